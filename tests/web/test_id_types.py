"""Ids of type bigint and text over HTTP: one spelling each, and nothing that SQL can't take."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import quote
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import given, strategies as st
from tests.support import Client, count_statements, make_app
from tests.web.helpers import is_of_the_host, outcome, put_limit

from govbudget import IdType, Layout
from govbudget.db.tables import Tables
from govbudget.directory.sql import SqlDirectory
from govbudget.migrations import upgrade

pytestmark = pytest.mark.slow

INVALID = (400, "invalid-id")
UNKNOWN = (404, "group-not-found")
EDGE = 2**63

BIGINTS = [1, 7, 42, -5, 0, 2**31, EDGE - 1, -EDGE]
TEXTS = [
    "finance",
    "Finance",
    "two words",
    "a+b",
    "50%",
    "it's",
    "x;y",
    "a?b#c",
    "\u00fcn\u00efcode",
    "e\u0301",
    "\u65e5\u672c\u8a9e",
    "\U0001f4b8",
    "7",
    "07",
    "..",
    "t" * 255,
    "\U0001f4b8" * 254,
    "\U0001f4b8" * 255,
]


def settle(make_database, id_type, organization, *, owner, member, groups):
    """Make a database with ids of that type: one organization, its groups, an owner, a member."""
    layout = Layout(id_type)
    tables = Tables(layout)
    engine = sa.create_engine(make_database())
    with engine.begin() as connection:
        upgrade(connection, layout)

        def put(table, *rows):
            connection.execute(sa.insert(getattr(tables, table)), list(rows))

        put("users", *({"id": one, "name": "n"} for one in (owner, member)))
        put("organizations", {"id": organization, "name": "o"})
        place = {"organization_id": organization}
        put("groups", *({"id": one, "name": "g", **place} for one in groups))
        put("organization_members", {"user_id": member, **place})
        put("group_members", {"user_id": member, "group_id": groups[0], **place})
        role = {"id": uuid4(), "role": "owner", "organization_id": None}
        put("role_assignments", {"user_id": owner, **role})
        put("role_assignments", {**role, "id": uuid4(), "user_id": member, "role": "gateway"})
    return engine, SimpleNamespace(
        organization=organization, owner=owner, member=member, groups=groups, tables=tables
    )


@pytest.fixture(scope="module")
def bigint(make_database, policy):
    engine, town = settle(
        make_database, IdType.BIGINT, 9, owner=1001, member=EDGE - 2, groups=BIGINTS
    )

    def identify():
        from flask import request

        given = request.headers.get("X-User")
        return given and int(given)

    config = {"GOVBUDGET_ID_TYPE": "bigint"}
    town.send = Client(make_app(engine, config, policy=policy, identify=identify))
    town.engine = engine
    yield town
    engine.dispose()


@pytest.fixture(scope="module")
def text(make_database, policy):
    engine, town = settle(
        make_database, IdType.TEXT, "\U0001f389" * 255, owner="boss", member="m", groups=TEXTS
    )
    town.send = Client(make_app(engine, {"GOVBUDGET_ID_TYPE": "text"}, policy=policy))
    town.engine = engine
    yield town
    engine.dispose()


def path_of(group):
    return f"/groups/{quote(str(group), safe='')}/ai/budget"


@pytest.mark.parametrize("group", BIGINTS)
def test_a_bigint_is_put_read_and_deleted_as_a_json_integer(bigint, group):
    response = put_limit(bigint.send, group, bigint.owner, 3)
    assert response.status_code == 200
    assert f'"group_id":{group},'.encode() in response.data
    assert bigint.send("GET", path_of(group), bigint.owner).data == response.data
    assert bigint.send("DELETE", path_of(group), bigint.owner).status_code == 204


@pytest.mark.parametrize(
    "group",
    [
        str(EDGE),
        str(-EDGE - 1),
        "9" * 19,
        "9" * 5000,
        "007",
        "00",
        "-0",
        "+7",
        "7.0",
        "7e0",
        "0x7",
        "7_0",
        " 7",
        "7 ",
        "7\n",
        "\u0667",
        "\u00b2",
        "7\x00",
        "\x00",
        "true",
        "None",
        "--7",
        "-",
        "7;DELETE",
        "7,8",
        "d9428888-122b-11e1-b85c-61cd3cbb3210",
    ],
    ids=lambda group: ascii(group)[:24],
)
def test_another_spelling_of_a_number_is_no_bigint(bigint, group):
    with count_statements(bigint.engine) as sent:
        assert outcome(bigint.send("GET", path_of(group), bigint.owner)) == INVALID
        listing = path_of(group).replace("groups", "organizations").replace("budget", "budgets")
        assert outcome(bigint.send("GET", listing, bigint.owner)) == INVALID
    assert sent == []


def test_a_bigint_that_is_nobodys_is_not_found(bigint):
    for group in (123456, 1 - EDGE, EDGE - 2):
        assert outcome(bigint.send("GET", path_of(group), bigint.owner)) == UNKNOWN


@given(group=st.integers(-(2**70), 2**70) | st.integers(EDGE - 3, EDGE + 3))
def test_a_number_is_a_bigint_exactly_within_its_bounds(bigint, group):
    expected = UNKNOWN if -EDGE <= group < EDGE else INVALID
    if group not in BIGINTS:
        assert outcome(bigint.send("GET", path_of(group), bigint.owner)) == expected


def refuse_callers(engine, id_type, path, callers):
    """A request of each caller, whom `identify` gives as it is, fails before any statement."""
    app = make_app(engine, {"GOVBUDGET_ID_TYPE": id_type}, identify=lambda: caller)
    send = Client(app)
    with count_statements(engine) as sent:
        for caller in callers:
            assert outcome(send("GET", path)) == (500, "internal-error"), ascii(caller)
    assert sent == []


def test_a_caller_that_is_no_bigint_is_a_mistake_of_the_host(bigint):
    callers = (True, 1001.0, b"1001", "01001", "x", EDGE, -EDGE - 1)
    refuse_callers(bigint.engine, "bigint", path_of(7), callers)


def test_pages_of_bigints_run_in_the_order_of_numbers(bigint):
    for group in BIGINTS:
        put_limit(bigint.send, group, bigint.owner)
    assert walk(bigint, size=3) == sorted(BIGINTS)
    assert walk(bigint, size=3, person=bigint.member) == [BIGINTS[0]]


@pytest.mark.parametrize("group", TEXTS, ids=lambda group: ascii(group)[:24])
def test_a_text_is_put_read_and_deleted_as_it_is_spelt(text, group):
    path = path_of(group)
    put = text.send("PUT", path, text.owner, json={"spend_limit_micros": 3})
    assert (put.status_code, put.json["group_id"]) == (200, group)
    assert text.send("GET", path, text.owner).data == put.data
    assert text.send("DELETE", path, text.owner).status_code == 204


@pytest.mark.parametrize(
    "group",
    [
        "\x00",
        "a\x00",
        "a\nb",
        "\n",
        "\r",
        "\t",
        "a\x1b[0m",
        "\x7f",
        "\x85",
        "\u200b",
        "\u202e",
        "\u2028",
        "\ufeff",
        "\ufffd",
        "\ue000",
        "t" * 256,
        "t" * 5000,
    ],
    ids=lambda group: ascii(group)[:24],
)
def test_a_text_that_cannot_be_seen_or_stored_is_no_id(text, group):
    with count_statements(text.engine) as sent:
        assert outcome(text.send("GET", path_of(group), text.owner)) == INVALID
    assert sent == []


def test_a_caller_that_is_no_text_id_is_a_mistake_of_the_host(text):
    callers = ("", "\x00", "a\nb", "\ud800", "t" * 256, 7, b"boss")
    refuse_callers(text.engine, "text", path_of("finance"), callers)


def test_bytes_that_are_no_utf8_are_no_id(text):
    for path in (
        "/groups/%FF/ai/budget",
        "/groups/a%C0%80/ai/budget",
        "/groups/%ED%A0%80/ai/budget",
    ):
        assert outcome(text.send("GET", path, text.owner)) == INVALID


def test_a_text_is_matched_to_the_letter(text):
    for group in (
        "FINANCE",
        "finance ",
        "f%nance",
        "fin_nce",
        "\u00fcni\u0308code",
        "\u00e9",
        "' OR ''='",
    ):
        assert outcome(text.send("GET", path_of(group), text.owner)) == UNKNOWN


def test_a_slash_in_a_text_is_another_path(text):
    for path in ("/groups/a/b/ai/budget", "/groups/a%2Fb/ai/budget", "/groups//ai/budget"):
        assert is_of_the_host(text.send("GET", path, text.owner))


@given(group=st.text(max_size=20))
def test_any_text_gets_an_answer_and_never_a_500(text, group):
    response = text.send("GET", path_of(group.encode("utf-8", "replace").decode()), text.owner)
    if group == "" or "/" in group:
        assert is_of_the_host(response)
    else:
        assert outcome(response)[0] in {200, 400, 404}


def test_pages_of_texts_give_every_group_once_whatever_the_collation(text):
    for group in TEXTS:
        text.send("PUT", path_of(group), text.owner, json={"spend_limit_micros": 1})
    for size in (1, 3, 5):
        assert sorted(walk(text, size=size)) == sorted(TEXTS)
    assert walk(text, size=1, person=text.member) == [TEXTS[0]]


def walk(town, size, person=None):
    """Follow the tokens to the end; give the ids."""
    seen, token = [], None
    path = f"/organizations/{quote(str(town.organization))}/ai/budgets"
    for _ in range(50):
        query = f"?page_size={size}" + (f"&page_token={token}" if token else "")
        page = town.send("GET", path + query, person or town.owner)
        seen += [budget["group_id"] for budget in page.json["budgets"]]
        token = page.json["next_page_token"]
        if token is None:
            return seen
    pytest.fail("the pages have no end")


@pytest.fixture(params=["bigint", "text"])
def host(request, policy):
    """The same people in a host, whose tables name no group that holds everyone."""
    town = request.getfixturevalue(request.param)
    settings = {"ID_TYPE": request.param, "SCHEMA": "money", "GROUPS": "govbudget.groups.id"}
    layout, own = Layout(IdType(request.param), *list(settings.values())[1:]), town.tables
    directory = SqlDirectory(
        groups=sa.select(own.groups.c.id, own.groups.c.organization_id),
        group_members=own.group_members,
        organization_members=own.organization_members,
        role_assignments=own.role_assignments,
    )
    identify = town.send.app.extensions["govbudget"].identify
    config = {f"GOVBUDGET_{key}": value for key, value in settings.items()}
    app = make_app(town.engine, config, policy=policy, directory=directory, identify=identify)
    price = {"provider": "acme", "model": "m", "input_price": 10**12}
    with town.engine.begin() as connection:
        upgrade(connection, layout)
        connection.execute(sa.insert(Tables(layout).ai_model_prices), price)
    return SimpleNamespace(**{**vars(town), "send": Client(app)})


def test_spend_works_in_a_host_with_ids_of_that_type(host):
    """The member is a gateway too: they call without a limit, then with one of their own."""
    group, place = host.groups[0], f"/organizations/{quote(str(host.organization))}"
    member, of_group = f"{place}/members/{host.member}/ai", f"/groups/{quote(str(group))}"
    who = {"organization_id": host.organization, "user_id": host.member}
    call = {**who, "provider": "acme", "model": "m", "tokens": {"input": 1}}

    def ask(method, path, person=host.member, **body):
        answer = host.send(method, path, person, **({"json": body} if body else {}))
        assert answer.status_code < 300, answer.data
        return answer.json

    recorded = ask("POST", "/ai/usage", **call, event_id="e1")
    assert recorded.items() >= {**who, "group_id": None, "cost_micros": 10**6}.items()
    override = {"group_id": group, "spend_limit_micros": 2 * 10**6}
    stranger = host.send(
        "PUT",
        f"{member}/budget/override",
        host.owner,
        json={**override, "group_id": host.groups[1]},
    )
    assert outcome(stranger) == (400, "not-a-member")
    told = ask("PUT", f"{member}/budget/override", host.owner, **override)
    assert told.items() >= {**who, **override}.items()
    assert ask("GET", f"{member}/budget/override") == told
    held = ask("POST", "/ai/holds", **call)
    assert held.items() >= {**who, "group_id": group, "cost_micros": 10**6}.items()
    refused = host.send("POST", "/ai/holds", host.member, json=call)
    assert outcome(refused) == (403, "budget-exceeded")
    assert refused.json["group_id"] == group
    ask("POST", f"/ai/holds/{held['hold_id']}/settle", event_id="e2", tokens={"input": 1})
    told = ask("GET", f"{place}/members/me/ai/spend")
    expected = {**who, "effective_group_id": group, "current_spend_micros": 2 * 10**6}
    assert told.items() >= expected.items()
    assert ask("GET", f"{of_group}/ai/spend")["current_spend_micros"] == 10**6
    (spender,) = ask("GET", f"{of_group}/members/ai/spend", host.owner)["members"]
    assert (spender["user_id"], spender["calls"]) == (host.member, 1)
    pages = [ask("GET", f"{place}/groups/ai/spend?page_size=1", host.owner)]
    token = pages[0]["next_page_token"]
    pages += [ask("GET", f"{place}/groups/ai/spend?page_token={token}", host.owner)]
    seen = [row["group_id"] for page in pages for row in page["groups"]]
    assert sorted(seen) == sorted(host.groups)
    ask("DELETE", f"{member}/budget/override", host.owner)
