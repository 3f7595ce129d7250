"""The refused calls of "mine": how many, and why, in words; one's own alone."""

from __future__ import annotations

import re
from functools import partial
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.pages.test_pages import read_text
from tests.pages.test_people import NASTY, PRICE, put_override
from tests.support import TABLES, World, count_statements

pytestmark = pytest.mark.slow


def make_town(engine, send):
    """Make the world of these tests."""
    town = World(engine)
    price = {**PRICE, "model": "refused"}
    assert send("PUT", "/ai/prices", town.owner, json=[price]).status_code == 200
    limit = {"spend_limit_micros": 5_000_000}
    assert send("PUT", f"/groups/{town.a1}/ai/budget", town.org_admin, json=limit).status_code
    for model, tokens in (
        *(("refused", 6_000_000), ("refused", 5_450_000)),
        *((uuid4().hex, 1), (uuid4().hex, 1), ("unheard-of", 1)),
    ):
        refuse(send, town, model, tokens)
    return town


@pytest.fixture(scope="module")
def fill(engine, send):
    """Makes a world in which calls of `member` were refused: two over $5.00, three unpriced."""
    return partial(make_town, engine, send)


def refuse(send, town, model, tokens, **more):
    who = {"organization_id": str(town.a), "user_id": str(town.member)}
    call = {**who, "provider": "acme", "model": model, "tokens": {"input": tokens}, **more}
    assert send("POST", "/ai/holds", town.gateway, json=call).status_code == 403


def test_mine_says_how_many_calls_were_refused_and_why(visit, town, engine):
    with count_statements(engine) as sent:
        page = visit("/", town.member)
    assert (page.status_code, len(sent)) == (200, 9)
    text = read_text(page)
    assert re.search(
        r"\d{4}-\d\d-\d\d Over the limit of \$5\.00 from group a group ,"
        r" last asked \$5\.45 for acme refused at \d\d:\d\d 2 ",
        text,
    )
    assert re.search(
        r" No price is known for acme unheard-of , last asked for at \d\d:\d\d 3", text
    )


def test_only_ones_own_refusals_are_shown_and_only_of_the_organization_that_is_shown(
    visit, town, engine
):
    for person in ("joined", "org_admin", "user_admin", "outsider", "owner"):
        assert "Refused calls" not in read_text(visit("/", town.people[person]))
    with engine.begin() as connection:
        town.join(connection, town.b, "member")
    try:
        elsewhere = read_text(visit(f"/?organization={town.b}", town.member))
        assert "Refused calls" not in elsewhere
        assert "Refused calls" in read_text(visit(f"/?organization={town.a}", town.member))
    finally:
        members = TABLES.organization_members
        here = (members.c.organization_id == town.b) & (members.c.user_id == town.member)
        with engine.begin() as connection:
            connection.execute(sa.delete(members).where(here))


def test_a_limit_of_nothing_and_an_override_are_other_words(visit, engine, send):
    town = make_town(engine, send)
    put_override(send, town, 0)
    refuse(send, town, "refused", 1)
    text = read_text(visit("/", town.member))
    assert " Blocked by the limit of $0 from an override, last asked $0.000001 for" in text
    put_override(send, town, None)


@pytest.mark.parametrize("nasty", NASTY)
def test_the_name_of_a_model_is_text_and_nothing_else(visit, other_town, engine, nasty):
    table = TABLES.ai_refusals
    rename = sa.update(table).where(table.c.user_id == other_town.member)
    with engine.begin() as connection:
        connection.execute(rename.values(provider=nasty, model=nasty))
    page = visit("/", other_town.member)
    text = page.get_data(as_text=True)
    assert page.status_code == 200
    assert "<script" not in text
    assert "<img" not in text
    assert "49" not in re.findall(r"<bdi>([^<]*)</bdi>", text)
    assert nasty in read_text(page) or "<" in nasty
