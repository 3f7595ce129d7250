"""Mine, organization and group: the API's figures in words, for whoever may see them."""

from __future__ import annotations

import re
from functools import partial
from html import unescape
from threading import BoundedSemaphore
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.pages.test_pages import read_text
from tests.support import TABLES, World, count_statements

from govbudget.spend import report_view

pytestmark = pytest.mark.slow

PRICE = {"provider": "acme", "model": "small", "input_price": 1_000_000, "output_price": None}
PRICE |= {"cache_read_price": None, "cache_write_price": None}


def make_town(engine, send):
    """Make the world of these tests."""
    town = World(engine)
    assert send("PUT", "/ai/prices", town.owner, json=[PRICE]).status_code == 200
    limit = {"spend_limit_micros": 5_000_000}
    put = f"/groups/{town.a1}/ai/budget"
    assert send("PUT", put, town.org_admin, json=limit).status_code == 200
    call = {"organization_id": str(town.a), "user_id": str(town.member)}
    call |= {"provider": "acme", "model": "small"}
    used = {**call, "event_id": "one", "tokens": {"input": 1_170_000}}
    assert send("POST", "/ai/usage", town.gateway, json=used).status_code == 201
    held = {**call, "tokens": {"input": 450_000}}
    assert send("POST", "/ai/holds", town.gateway, json=held).status_code == 201
    return town


@pytest.fixture(scope="module")
def fill(engine, send):
    """Makes a world in which `member` has spent $1.17 of $5.00 and holds $0.45."""
    return partial(make_town, engine, send)


def put_override(send, town, micros):
    path = f"/organizations/{town.a}/members/{town.member}/ai/budget/override"
    if micros is None:
        return send("DELETE", path, town.org_admin)
    body = {"group_id": str(town.a1), "spend_limit_micros": micros}
    return send("PUT", path, town.org_admin, json=body)


def test_mine_says_what_is_spent_held_and_left_and_what_set_the_limit(visit, town, send, engine):
    with count_statements(engine) as sent:
        page = visit("/", town.member)
    assert (page.status_code, len(sent)) == (200, 9)
    text = read_text(page)
    assert re.search(
        r"\$1\.17 of \$5\.00, held \$0\.45, resets 1 \w+ 00:00 UTC; limit from group a group", text
    )
    spend = send("GET", f"/organizations/{town.a}/members/me/ai/spend", town.member).json
    assert spend["current_spend_micros"] == 1_170_000
    assert "Left $3.38" in text


def test_no_limit_blocked_an_override_and_a_groups_limit_are_different_words(visit, town, send):
    put_override(send, town, 2_000_000)
    assert "$1.17 of $2.00, held $0.45" in (text := read_text(visit("/", town.member)))
    assert "; an override" in text
    put_override(send, town, 0)
    assert "$0: blocked, spent $1.17" in read_text(visit("/", town.member))
    put_override(send, town, None)
    assert "No limit: spent $0.00, held $0.00" in read_text(visit("/", town.joined))


def test_who_is_a_member_of_nothing_has_nothing_and_a_wrong_organization_is_404(visit, town):
    assert "You are not a member of an organization" in read_text(visit("/", town.nobody))
    assert visit(f"/?organization={town.b}", town.member).status_code == 404
    assert visit("/?organization=x", town.member).status_code == 400
    assert visit("/?other=x", town.member).status_code == 400


def test_an_owner_is_led_to_every_organization_and_a_stranger_to_none(visit, town):
    text = visit("/", town.owner).get_data(as_text=True)
    for organization in (town.a, town.b):
        assert f"/ai/organizations/{organization}" in text
    strangers = (
        *((town.nobody, town.a), (town.member, town.b), (town.b_admin, town.a)),
        *((town.gateway, town.a), (town.gateway, town.b)),  # it may record, and read nothing
    )
    for person, place in strangers:
        assert f"/ai/organizations/{place}" not in visit("/", person).get_data(as_text=True)


def test_an_organization_shows_the_groups_that_the_caller_may_read(visit, town, engine):
    path = f"/organizations/{town.a}"
    with count_statements(engine) as sent:
        admins = visit(path, town.org_admin)
    assert (admins.status_code, len(sent)) == (200, 5)
    assert re.search(r"a group \$5\.00 \$1\.17 1", read_text(admins))
    assert f"/ai/groups/{town.a2}" in admins.get_data(as_text=True)
    members = visit(path, town.member).get_data(as_text=True)
    assert f"/ai/groups/{town.a1}" in members
    assert f"/ai/groups/{town.a2}" not in members
    assert visit(path, town.outsider).status_code == 404


def test_a_group_shows_members_whose_spend_the_caller_may_read(visit, town, engine):
    path = f"/groups/{town.a1}"
    with count_statements(engine) as sent:
        page = visit(path, town.org_admin)
    assert (page.status_code, len(sent)) == (200, 6)
    text = read_text(page)
    assert re.search(r"member \$5\.00 limit from group a group \$1\.17 \$0\.45 \$1\.17", text)
    assert "Limit of each member $5.00 Spent for the group this month $1.17" in text
    assert re.search(r"Spent for the group a day .* \d{4}-\d\d-\d\d \$1\.17 1 0", text)
    assert page.get_data(as_text=True).count("<rect x=") == 1
    assert visit(path, town.outsider).status_code == 404
    everyone = read_text(visit(f"/groups/{town.a}", town.org_admin))
    assert re.search(r"user_admin No limit", everyone)
    own = read_text(visit(f"/groups/{town.a}", town.joined))
    assert ("joined" in own, "user_admin" in own) == (True, False)


def test_pages_follow_each_other_and_more_rows_take_no_more_statements(visit, town, engine):
    groups = [{"id": uuid4(), "organization_id": town.a, "name": f"g{n}"} for n in range(120)]
    with engine.begin() as connection:
        connection.execute(sa.insert(TABLES.groups), groups)
    path, seen = f"/organizations/{town.a}", []
    while path:
        with count_statements(engine) as sent:
            text = visit(path, town.org_admin).get_data(as_text=True)
        assert len(sent) == (4 if "page_token" in path else 5)
        seen += re.findall(r"/ai/groups/([0-9a-f-]+)", text)
        found = re.search(r'rel="next" href="/ai([^"]+)"', text)
        path = found[1] if found else None
    assert len(seen) == len(set(seen)) == 123
    with engine.begin() as connection:
        ours = TABLES.groups.c.id.in_([group["id"] for group in groups])
        connection.execute(sa.delete(TABLES.groups).where(ours))


NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' OR 1=1 --",
    "{{ 7 * 7 }}",
    "\u202eevil\u202c",
    "n" * 256,
)


def test_a_group_that_moved_away_is_shown_by_its_id_alone(visit, send, engine):
    """Its name is the other organization's now; what it spent is still this one's."""
    town = World(engine)
    assert send("PUT", "/ai/prices", town.owner, json=[PRICE]).status_code == 200
    limit = {"spend_limit_micros": 5_000_000}
    put = f"/groups/{town.a1}/ai/budget"
    assert send("PUT", put, town.org_admin, json=limit).status_code == 200
    call = {"organization_id": str(town.a), "user_id": str(town.member), "provider": "acme"}
    call |= {"model": "small", "event_id": "of a1", "tokens": {"input": 1_000}}
    assert send("POST", "/ai/usage", town.gateway, json=call).status_code == 201
    groups, listed = TABLES.groups, TABLES.group_members
    with engine.begin() as connection:
        connection.execute(sa.delete(listed).where(listed.c.group_id == town.a1))
        moved = sa.update(groups).where(groups.c.id == town.a1)
        connection.execute(moved.values(organization_id=town.b, name="a secret of b"))
    for path in ("spend?by=group", "audit"):
        text = read_text(visit(f"/organizations/{town.a}/{path}", town.org_admin))
        assert str(town.a1) in text
        assert "secret" not in text
    assert "a secret of b" in read_text(visit(f"/groups/{town.a1}", town.b_admin))


def test_people_of_one_name_have_a_bar_each_and_what_is_cut_is_not_called_all(
    visit, send, engine, monkeypatch
):
    town = World(engine)
    assert send("PUT", "/ai/prices", town.owner, json=[PRICE]).status_code == 200
    with engine.begin() as connection:
        twins = TABLES.users.c.id.in_([town.member, town.joined])
        connection.execute(sa.update(TABLES.users).where(twins).values(name="a twin"))
    call = {"organization_id": str(town.a), "provider": "acme", "model": "small"}
    for person, tokens in (("member", 1_000_000), ("joined", 3_000_000)):
        used = {**call, "event_id": f"of twin {person}", "tokens": {"input": tokens}}
        used["user_id"] = str(getattr(town, person))
        assert send("POST", "/ai/usage", town.gateway, json=used).status_code == 201
    path = f"/organizations/{town.a}/spend?by=user"
    page = visit(path, town.org_admin).get_data(as_text=True)
    titles = re.findall(r"<title>(a twin: [^<]+)</title>", page)
    assert sorted(titles) == ["a twin: $1.00", "a twin: $3.00"]
    assert "$4.00 in all" in page
    monkeypatch.setattr("govbudget.pages.spend.MAX_LINES", 1)
    cut = read_text(visit(path, town.org_admin))
    assert "in all" not in cut
    assert re.search(r"\$[13]\.00 in the first row", cut)
    assert "There is more than fits here" in cut
    monkeypatch.undo()
    monkeypatch.setattr("govbudget.pages.spend.MAX_BARS", 1)
    few = read_text(visit(path, town.org_admin))
    assert "The chart shows the first of 2" in few


@pytest.mark.parametrize("nasty", NASTY)
def test_a_name_is_text_and_nothing_else(visit, other_town, engine, nasty):
    """Markup, quotes, templates, right-to-left marks and 256 characters."""
    tables = (
        (TABLES.organizations, other_town.a),
        (TABLES.groups, other_town.a1),
        (TABLES.users, other_town.member),
    )
    with engine.begin() as connection:
        for table, its_id in tables:
            rename = sa.update(table).where(table.c.id == its_id).values(name=nasty)
            connection.execute(rename)
    for path in ("/", f"/organizations/{other_town.a}", f"/groups/{other_town.a1}"):
        page = visit(path, other_town.member if path == "/" else other_town.org_admin)
        text = page.get_data(as_text=True)
        assert page.status_code == 200
        assert "<script" not in text
        assert "<img" not in text
        assert "49" not in re.findall(r"<bdi>([^<]*)</bdi>", text)
        assert re.search(r"<bdi>[^<]+</bdi>", text)
        assert nasty in read_text(page) or "{{" in nasty or "<" in nasty


def test_the_report_of_the_page_is_the_apis_and_links_to_exactly_this_as_csv(
    visit, town, send, engine, monkeypatch
):
    path = f"/organizations/{town.a}/spend?from=2026-01-01&to=2099-01-01&by=user&by=model"
    with count_statements(engine) as sent:
        page = visit(path, town.org_admin)
    assert (page.status_code, len(sent)) == (200, 3)
    text = page.get_data(as_text=True)
    assert "$1.17 1 0" in read_text(page)
    csv = unescape(re.search(r'href="/ai([^"]+format=csv)"', text)[1])
    answer = visit(csv, town.org_admin)
    assert (answer.mimetype, answer.headers["Cache-Control"]) == ("text/csv", "no-store")
    query = {"from": "2026-01-01", "to": "2099-01-01", "group_by": "model,user", "format": "csv"}
    report = f"/organizations/{town.a}/ai/spend"
    of_api = send("GET", report, town.org_admin, query_string=query)
    assert answer.get_data() == of_api.get_data()
    header, *rows = answer.get_data(as_text=True).splitlines()
    assert header.startswith("model,user,cost_micros")
    assert [row.split(",")[2] for row in rows] == ["1170000"]
    own = read_text(visit(path, town.member))
    assert "$1.17 1 0" in own
    monkeypatch.setattr(report_view, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(report_view, "_turns", BoundedSemaphore(0))  # others write theirs
    assert visit(csv, town.org_admin).status_code == 503
    assert visit(path, town.org_admin).status_code == 200
    assert "Nothing was spent" in read_text(visit(path, town.joined))
    assert visit(path, town.outsider).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        *("from=x", "from=2026-02-01&to=2026-01-01", "by=hour", "group_id=x", "order=1"),
        *("provider=%00", "model=a%0Ab", "format=xml", "from=2026-01-01&from=2026-02-01"),
    ],
)
def test_a_report_that_can_not_be_asked_for_is_400(visit, town, query):
    assert visit(f"/organizations/{town.a}/spend?{query}", town.org_admin).status_code == 400
