"""The pages with two databases: each page of its own, and what is mine in both."""

from __future__ import annotations

import re
from itertools import count, islice
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError
from tests.pages.test_pages import read_text
from tests.regions import make_region, place
from tests.support import TABLES, count_statements, make_app
from tests.web.helpers import put_limit

from govbudget.web.destination import find_request_organization

pytestmark = pytest.mark.slow

AWAY = sa.create_engine("postgresql+psycopg://x@127.0.0.1:1/x?connect_timeout=2")


@pytest.fixture(scope="module")
def region(engine, make_database, template):
    with make_region(engine, make_database(template=template), pages="/ai") as region:
        yield region


def visit(app, path, person):
    return app.test_client().open(f"/ai{path}", headers={"X-User": str(person)})


def find_places(page):
    """The organizations that the page of what is mine leads to, in order."""
    found = re.findall(r"/ai/organizations/([0-9a-f-]{36})\"", page.get_data(as_text=True))
    return list(dict.fromkeys(found))


@pytest.fixture
def both(region):
    """Somebody who is a member of organization a in both, and has a limit in the other one."""
    person = uuid4()
    for town in (region.one, region.other):
        with town.engine.begin() as connection:
            town._put(connection, "users", {"id": person, "name": "both"})
            town.join(connection, town.a, person)
            town.join_group(connection, town.a, town.a1, person)
    limited = region.other
    assert put_limit(region.send, limited.a1, limited.owner, 7_000_000).status_code == 200
    return person


def test_pages_of_an_organization_or_a_group_are_of_its_database(region):
    for town, beside in ((region.one, region.other), (region.other, region.one)):
        with count_statements(beside.engine) as sent:
            for path in (f"/organizations/{town.a}", f"/groups/{town.a1}"):
                assert visit(region.app, path, town.org_admin).status_code == 200
            for path in ("spend", "audit"):
                page = visit(region.app, f"/organizations/{town.a}/{path}", town.org_admin)
                assert page.status_code == 200
            assert visit(region.app, f"/groups/{town.a1}", town.outsider).status_code == 404
        assert sent == []


def test_mine_lists_the_organizations_of_each_database_and_shows_one(region, both):
    """With a fixed number of statements in each."""
    one, other = region.one, region.other
    with count_statements(one.engine) as first, count_statements(other.engine) as second:
        page = visit(region.app, f"/?organization={other.a}", both)
    assert page.status_code == 200
    assert set(find_places(page)) == {str(one.a), str(other.a)}
    assert "of $7.00" in read_text(page)
    assert read_text(page).count("an organization") >= 3
    with count_statements(other.engine) as alone:
        visit(make_app(other.engine, pages="/ai"), "/", both)
    assert (len(first), len(second)) == (3, len(alone) + 1)
    chosen = visit(region.app, "/", both)
    assert chosen.status_code == 200
    assert set(find_places(chosen)) == {str(one.a), str(other.a)}
    assert visit(region.app, f"/?organization={other.b}", both).status_code == 404
    assert visit(region.app, "/?organization=x", both).status_code == 400
    assert "You are not a member" in read_text(visit(region.app, "/", uuid4()))


def test_who_may_see_every_organization_pages_from_one_database_to_the_next(region):
    person = uuid4()
    is_in = lambda one, town: region.databases(one) is town.engine  # noqa: E731 - of this test
    for town in (region.one, region.other):
        with town.engine.begin() as connection:
            town._put(connection, "users", {"id": person, "name": "an owner"})
            town.assign(connection, person, "owner", None)
            here = (one for one in (uuid4() for _ in count()) if is_in(one, town))
            town.add_organization(connection, *islice(here, 3))
    seen, path, sizes = [], "/?page_size=2", []
    while path:
        page = visit(region.app, path, person)
        assert page.status_code == 200
        listed = find_places(page)
        sizes.append(len(listed))
        seen += listed
        found = re.search(r'rel="next" href="/ai([^"]+)"', page.get_data(as_text=True))
        path = found and found[1].replace("&amp;", "&")
    wanted = []
    for town in (region.one, region.other):
        with town.engine.connect() as connection:
            wanted += sorted(connection.scalars(sa.select(TABLES.organizations.c.id)))
    assert seen == list(map(str, wanted))
    assert max(sizes) == 2


def test_no_page_leaves_out_an_organization_for_one_that_its_caller_is_in(region):
    """Those come first on each page."""
    person, town = uuid4(), region.one
    with town.engine.begin() as connection:
        town._put(connection, "users", {"id": person, "name": "an owner"})
        town.assign(connection, person, "owner", None)
        ids = sorted(connection.scalars(sa.select(TABLES.organizations.c.id)))
        for organization in ids[1:]:
            town.join(connection, organization, person)
    app, seen, path = make_app(town.engine, pages="/ai"), set(), "/?page_size=1"
    while path:
        page = visit(app, path, person)
        seen |= set(find_places(page))
        found = re.search(r'rel="next" href="/ai([^"]+)"', page.get_data(as_text=True))
        path = found and found[1].replace("&amp;", "&")
    assert seen == set(map(str, ids))


def test_a_database_that_refuses_to_be_asked_hides_no_other_from_mine(region, both):
    """One without rights, for example, where the token can't be looked up either."""

    def identify():
        if region.databases(find_request_organization()) is region.other.engine:
            raise ProgrammingError("SELECT", {}, Exception("permission denied"))
        return both

    app = make_app(region.databases, pages="/ai", identify=identify)
    page = visit(app, "/", both)
    assert (page.status_code, find_places(page)) == (200, [str(region.one.a)])


@pytest.mark.parametrize("away", ["one", "other"])
def test_mine_shows_what_is_in_the_database_that_is_there(region, both, away):
    towns = region.one, region.other
    up = getattr(region, {"one": "other", "other": "one"}[away])
    engines = [town.engine if town is up else AWAY for town in towns]
    databases = place(engines, *((town.a, town.b) for town in towns))
    app = make_app(databases, pages="/ai")
    page = visit(app, "/", both)
    assert page.status_code == 200
    assert find_places(page) == [str(up.a)]
    lost = getattr(region, away)
    assert visit(app, f"/?organization={lost.a}", both).status_code == 503


@pytest.mark.parametrize("several", [True, False], ids=["Databases", "function"])
def test_mine_shows_nothing_of_a_database_where_the_caller_is_signed_out(region, both, several):
    """A token can be revoked in one of them, where a command has failed in another."""

    def identify():
        asked = region.databases(find_request_organization())
        return both if asked is region.one.engine else None

    databases = region.databases if several else region.databases.__call__
    app = make_app(databases, pages="/ai", identify=identify)
    assert find_places(visit(app, "/", both)) == [str(region.one.a)]
    page = visit(app, f"/?organization={region.other.a}", both)
    assert (page.status_code, find_places(page)) == (401, [])


def test_mine_with_a_function_of_the_hosts_is_of_one_database(region, both):
    app = make_app(region.databases.__call__, pages="/ai")
    other = region.other
    page = visit(app, f"/?organization={other.a}", both)
    assert page.status_code == 200
    assert find_places(page) == [str(other.a)]
    assert find_places(visit(app, "/", both)) == [str(region.one.a)]
