"""The page of an organization: who crossed a threshold first, and how many of each group did."""

from __future__ import annotations

import re
from functools import partial
from html import unescape
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.pages.test_pages import read_text
from tests.pages.test_people import NASTY, PRICE
from tests.support import TABLES, World, count_statements, make_app

from govbudget import Policy
from govbudget.authz.files import packaged_policy_dir

pytestmark = pytest.mark.slow

FIRST = "Members who crossed a threshold of their limit this month, the highest first"


def make_town(engine, send):
    """Make the world of these tests."""
    town = World(engine)
    price = {**PRICE, "model": "crossed"}
    assert send("PUT", "/ai/prices", town.owner, json=[price]).status_code == 200
    for group, micros in ((town.a1, 5_000_000), (town.a, 4_000_000)):
        set_limit(send, town, group, micros)
    use(send, town, "member", 4_000_000)
    use(send, town, "joined", 6_000_000)
    return town


@pytest.fixture(scope="module")
def fill(engine, send):
    """Makes a world where `member` spent $4.00 of $5.00, and `joined` $6.00 of a budget of all."""
    return partial(make_town, engine, send)


def set_limit(send, town, group, micros):
    limit = {"spend_limit_micros": micros}
    assert send("PUT", f"/groups/{group}/ai/budget", town.org_admin, json=limit).status_code == 200


def use(send, town, person, tokens):
    used = {"organization_id": str(town.a), "user_id": str(town.people[person])}
    used |= {"provider": "acme", "model": "crossed", "event_id": uuid4().hex}
    used |= {"tokens": {"input": tokens}}
    assert send("POST", "/ai/usage", town.gateway, json=used).status_code == 201


def test_who_crossed_the_highest_threshold_comes_first_with_limit_and_spend(visit, town, engine):
    with count_statements(engine) as sent:
        page = visit(f"/organizations/{town.a}", town.org_admin)
    assert (page.status_code, len(sent)) == (200, 5)
    text = read_text(page)
    _, _, listed = text.partition(FIRST)
    assert re.search(
        r"joined 100 % \$4\.00 limit from group Everyone \$6\.00 \$0\.00"
        r" member 75 % \$5\.00 limit from group a group \$4\.00 \$0\.00"
        r" All who crossed 100 % , 90 % , 75 % \. Groups ",
        listed,
    )


def test_each_group_says_how_many_crossed_a_threshold_of_its_limit(visit, town):
    """A lower threshold only where more members crossed it."""
    text = read_text(visit(f"/organizations/{town.a}", town.org_admin))
    assert "Everyone $4.00 $6.00 1 1 crossed 100 %" in text
    assert "a group $5.00 $4.00 1 1 crossed 75 %" in text
    assert text.count("1 crossed") == 2


def test_only_members_whose_spend_one_may_read_are_listed_and_counted(visit, town):
    path = f"/organizations/{town.a}"
    _, _, own = read_text(visit(path, town.member)).partition(FIRST)
    assert ("member 75 %" in own, "joined" in own) == (True, False)
    assert re.search(r"a group \$5\.00 \$4\.00 1 1 crossed 75 %", own)
    assert "1 crossed 100 %" not in own
    assert visit(path, town.outsider).status_code == 404
    assert visit(f"{path}?crossed=75", town.outsider).status_code == 404
    own = read_text(visit(f"{path}?crossed=75", town.member))
    assert ("member 75 %" in own, "joined" in own) == (True, False)
    everybody = read_text(visit(f"{path}?crossed=75", town.org_admin))
    assert ("member 75 %" in everybody, "joined 75 %" in everybody) == (True, True)
    assert FIRST not in read_text(visit(f"/organizations/{town.b}", town.b_admin))
    nobody = read_text(visit(f"/organizations/{town.b}?crossed=75", town.b_admin))
    assert "Nobody whose spend you may see has crossed 75 % this month" in nobody


def test_a_limit_that_was_raised_since_is_shown_as_it_is_now(visit, town, send):
    set_limit(send, town, town.a1, 100_000_000)
    try:
        text = read_text(visit(f"/organizations/{town.a}", town.org_admin))
        assert "member 75 % $100.00 limit from group a group $4.00" in text
    finally:
        set_limit(send, town, town.a1, 5_000_000)


def test_who_crossed_thresholds_of_several_limits_stands_there_once(visit, engine, send):
    town = make_town(engine, send)
    set_limit(send, town, town.a1, 4_500_000)
    use(send, town, "member", 100_000)
    set_limit(send, town, town.a1, 4_450_000)
    use(send, town, "member", 1)
    path = f"/organizations/{town.a}"
    _, _, listed = read_text(visit(path, town.org_admin)).partition(FIRST)
    assert "member 90 % $4.45" in listed
    assert (listed.count("member 90 %"), "member 75 %" in listed) == (1, False)
    for threshold in (75, 90):
        text = read_text(visit(f"{path}?crossed={threshold}", town.org_admin))
        assert text.count(f"member {threshold} % $4.45") == 1


def test_who_left_is_not_listed(visit, town, engine):
    members = TABLES.organization_members
    here = (members.c.organization_id == town.a) & (members.c.user_id == town.joined)
    with engine.begin() as connection:
        connection.execute(sa.delete(members).where(here))
    try:
        text = read_text(visit(f"/organizations/{town.a}", town.org_admin))
        assert ("joined" in text, "1 crossed 100 %" in text) == (False, False)
    finally:
        with engine.begin() as connection:
            town.join(connection, town.a, "joined")


@pytest.fixture
def crowd(town, engine):
    """120 more members who crossed 90 %, for a test."""
    people = [uuid4() for _ in range(120)]
    notice = {"organization_id": town.a, "spend_limit_micros": 1, "limit_source": "group"}
    notice |= {"group_id": town.a2, "spent_picos": 1, "threshold": 90}
    month = sa.func.date_trunc("month", sa.func.now()).cast(sa.Date)
    with engine.begin() as connection:
        users = [{"id": one, "name": f"p{n}"} for n, one in enumerate(people)]
        connection.execute(sa.insert(TABLES.users), users)
        for one in people:
            town.join(connection, town.a, one)
            row = {**notice, "id": uuid4(), "user_id": one, "period": month}
            connection.execute(sa.insert(TABLES.ai_notices).values(row))
    yield people
    with engine.begin() as connection:
        for table, column in ((TABLES.ai_notices, "user_id"), (TABLES.users, "id")):
            connection.execute(sa.delete(table).where(table.c[column].in_(people)))


def test_ten_stand_above_the_groups_and_all_are_on_pages_of_their_own(visit, town, engine, crowd):
    text = visit(f"/organizations/{town.a}", town.org_admin).get_data(as_text=True)
    first, _, _ = text.partition("Groups this month")
    assert first.count('<td><span class="tag') == 10
    assert "100 or more crossed 90 %" in text
    path, seen, counts = re.search(r'href="/ai([^"]+crossed=90)"', text)[1], [], set()
    while path:
        with count_statements(engine) as sent:
            text = visit(path, town.org_admin).get_data(as_text=True)
        counts.add(len(sent))
        seen += re.findall(r'<tr><th scope="row"><bdi>([^<]+)</bdi></th>', text)
        found = re.search(r'rel="next" href="/ai([^"]+)"', text)
        path = unescape(found[1]) if found else None
    assert counts == {3}
    assert len(seen) == len({*seen})
    assert {*seen} >= {"joined", *(f"p{n}" for n in range(120))}


@pytest.mark.parametrize(
    "query",
    [
        *("crossed=76", "crossed=x", "crossed=", "crossed=\u0667\u0665", "crossed=75&crossed=90"),
        *("crossed=75&other=1", "crossed=75&page_token=x", "cross=75"),
    ],
)
def test_a_question_that_is_none_is_400(visit, town, query):
    assert visit(f"/organizations/{town.a}?{query}", town.org_admin).status_code == 400


def test_under_the_dedicated_policy_people_see_the_same_pages(engine, town):
    app = make_app(engine, policy=Policy.load(packaged_policy_dir() / "dedicated"), pages="/ai")
    client = app.test_client()
    for person in ("owner", "org_admin", "member"):
        for path in (f"/ai/organizations/{town.a}", f"/ai/groups/{town.a1}", "/ai/"):
            answer = client.get(path, headers={"X-User": str(town.people[person])})
            assert answer.status_code == 200, (person, path)


@pytest.mark.parametrize("nasty", NASTY)
def test_a_name_is_text_and_nothing_else(visit, other_town, engine, nasty):
    for table, its_id in ((TABLES.users, other_town.member), (TABLES.groups, other_town.a1)):
        with engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.id == its_id).values(name=nasty))
    for query in ("", "?crossed=75"):
        page = visit(f"/organizations/{other_town.a}{query}", other_town.org_admin)
        text = page.get_data(as_text=True)
        assert page.status_code == 200
        assert "<script" not in text
        assert "<img" not in text
        assert "49" not in re.findall(r"<bdi>([^<]*)</bdi>", text)
        assert nasty in read_text(page) or "<" in nasty
