"""Pages of an organization's budgets: bounded, opaque, steady while rows come and go."""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from flask import Flask
from hypothesis import given, strategies as st
from itsdangerous import URLSafeSerializer
from tests.support import World, budget_path, count_statements, list_path
from tests.web.helpers import outcome, put_limit, read_problem
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client as MountedClient

from govbudget.errors import InvalidInput
from govbudget.web.paging import MAX_TOKEN, Page, read_page

INVALID = (400, "invalid-query")


class Estate(World):
    """A world whose organization a has `count` groups more, each with a budget."""

    def __init__(self, engine, count):
        super().__init__(engine)
        with engine.begin() as connection:
            self.groups = sorted(self.add_group(connection, self.a) for _ in range(count))
            rows = [
                {"group_id": group, "spend_limit_micros": 1, "revision": uuid4()}
                for group in self.groups
            ]
            self._put(connection, "group_ai_budgets", *rows)


@pytest.fixture(scope="module")
def estate(engine):
    return Estate(engine, 23)


def ask(send, town, person=None, organization=None, **query):
    path = list_path(organization or town.a)
    return send("GET", f"{path}?{urlencode(query)}", person or town.owner)


def ids(response):
    assert response.status_code == 200, response.data
    return [UUID(budget["group_id"]) for budget in response.json["budgets"]]


def walk(send, town, between=lambda: None, **query):
    """Follow the tokens to the end; give the pages."""
    pages, token = [], None
    while True:
        more = {} if token is None else {"page_token": token}
        response = ask(send, town, **query, **more)
        pages.append(ids(response))
        token = response.json["next_page_token"]
        if token is None:
            return pages
        assert len(pages) < 100
        between()


@pytest.mark.parametrize("size", [1, 2, 7, 22, 23, 24, 500])
def test_pages_of_any_size_give_every_budget_once_in_order(send, estate, size):
    pages = walk(send, estate, page_size=size)
    assert [one for page in pages for one in page] == estate.groups
    assert all(len(page) == size for page in pages[:-1])
    assert 1 <= len(pages[-1]) <= size, "the last page is never empty"


def test_the_last_page_ends_with_null_even_when_it_is_full(send, estate):
    response = ask(send, estate, page_size=23)
    assert len(response.json["budgets"]) == 23
    assert response.json["next_page_token"] is None


def test_an_organization_without_budgets_is_an_empty_page(send, world):
    response = ask(send, world)
    assert response.json == {"budgets": [], "next_page_token": None}


def test_a_page_asks_for_one_row_more_and_no_count(engine, send, estate):
    with count_statements(engine) as sent:
        ask(send, estate, page_size=5)
    assert len(sent) == 2
    assert "LIMIT" in sent[1]
    assert "count(" not in sent[1].lower()


def test_the_default_page_has_fifty(engine, send):
    town = Estate(engine, 51)
    response = ask(send, town)
    assert len(response.json["budgets"]) == 50
    assert response.json["next_page_token"] is not None


def test_a_token_survives_inserts_and_deletes(engine, send):
    """What was there all along is seen once; the row the token stands on may go."""
    town = Estate(engine, 12)
    first = ask(send, town, page_size=4)
    token = first.json["next_page_token"]
    stands_on = ids(first)[-1]
    assert send("DELETE", budget_path(stands_on), town.owner).status_code == 204
    assert send("DELETE", budget_path(town.groups[5]), town.owner).status_code == 204
    with engine.begin() as connection:
        before = town.add_group(connection, town.a, UUID(int=town.groups[0].int - 1))
        after = town.add_group(connection, town.a, UUID(int=town.groups[8].int + 1))
    for group in (before, after):
        assert put_limit(send, group, town.owner).status_code == 200
    rest = ids(ask(send, town, page_size=100, page_token=token))
    expected = sorted([*(g for g in town.groups[4:] if g != town.groups[5]), after])
    assert rest == expected


def test_a_token_is_of_one_organization(send, engine, estate):
    token = ask(send, estate, page_size=3).json["next_page_token"]
    other = Estate(engine, 5)
    assert outcome(ask(send, other, page_token=token)) == INVALID
    assert outcome(ask(send, estate, organization=estate.b, page_token=token)) == INVALID
    assert ids(ask(send, estate, page_token=token)) == estate.groups[3:]


def test_a_token_is_of_one_list(send, estate):
    token = ask(send, estate, page_size=3).json["next_page_token"]
    spend = f"/organizations/{estate.a}/groups/ai/spend?page_token={token}"
    assert outcome(send("GET", spend, estate.owner)) == INVALID


def sign(estate):
    """What signs the tokens of the list of budgets."""
    return URLSafeSerializer(f"govbudget.budgets {estate.a}", salt="govbudget.page")


def test_a_token_has_one_spelling(send, estate):
    token = ask(send, estate, page_size=3).json["next_page_token"]
    (position,) = sign(estate).loads(token)
    assert sign(estate).dumps([position]) == token
    for spelled in (position.upper(), position.replace("-", ""), f"{{{position}}}"):
        assert outcome(ask(send, estate, page_token=sign(estate).dumps([spelled]))) == INVALID


def test_a_token_gives_nobody_more_than_they_may_read(send, estate):
    token = ask(send, estate, page_size=3).json["next_page_token"]
    assert ids(ask(send, estate, estate.member, page_token=token)) == []
    refused = ask(send, estate, estate.outsider, page_token=token)
    assert outcome(refused) == (404, "organization-not-found")


def test_a_token_that_was_touched_is_400(send, estate):
    token = ask(send, estate, page_size=3).json["next_page_token"]
    other = "B" if token[-1] != "B" else "C"
    spelled = (
        token[:-1],
        token[1:],
        token[:-1] + other,
        token + "A",
        token + "=",
        token + "==",
        token + " ",
        " " + token,
        token + "\n",
        token.swapcase(),
        token[::-1],
        token[:10] + "!" + token[10:],
        token * 2,
        "",
        "null",
        "A" * 5000,
        "\u00e9",
        "\x00",
    )
    for touched in spelled:
        assert outcome(ask(send, estate, page_token=touched)) == INVALID, touched


def test_a_token_over_its_bound_is_not_read(app):
    """However well it is formed."""
    position = random.Random(0).randbytes(MAX_TOKEN).hex()
    with app.test_request_context(list_path("a")):
        page = Page("a", 1, None).cut([position, "y"], lambda row: (row,), "rows")
        token = page["next_page_token"]
    asked = app.test_request_context(list_path("a"), query_string={"page_token": token})
    with asked, pytest.raises(InvalidInput) as refused:
        read_page("a", str)
    assert refused.value.code == "invalid-query"


def test_a_token_is_never_decompressed(send, estate):
    """In a few bytes it would hold megabytes, which take seconds to read."""
    lists = "[" + "[]," * 600_000 + "[]]"
    for content in (lists, json.dumps([str(estate.groups[2])])):
        packed = b"." + base64.urlsafe_b64encode(zlib.compress(content.encode(), 9)).rstrip(b"=")
        token = sign(estate).make_signer().sign(packed).decode()
        assert len(token) < MAX_TOKEN
        assert outcome(ask(send, estate, page_token=token)) == INVALID


def test_a_long_position_is_a_token_that_is_read_again(app):
    """Of a text that a compression would shorten; the longest that an id can be."""
    position = "\U00010348" * 255
    with app.test_request_context(list_path("a")):
        token = Page("a", 1, None).cut([position, "y"], lambda row: (row,), "rows")
    query = {"page_token": token["next_page_token"]}
    with app.test_request_context(list_path("a"), query_string=query):
        assert read_page("a", str).after == position


def test_the_next_page_is_linked_to_where_the_host_is_mounted(app, estate):
    """As the outside sees it: below the path of the mount."""
    mounted = MountedClient(DispatcherMiddleware(Flask("outside"), {"/in side": app}))
    headers = {"X-User": str(estate.owner)}
    first = f"/in side/api/v2{list_path(estate.a)}?page_size=20"
    link = mounted.get(first, headers=headers).headers["Link"]
    target = re.fullmatch(r'<(/in%20side/api/v2/[^>]*)>; rel="next"', link)[1]
    assert ids(mounted.get(target, headers=headers)) == estate.groups[20:]


def test_a_token_made_by_hand_of_something_else_is_400(send, estate):
    group = str(estate.groups[0])
    for content in (
        [],
        [group, group],
        [1],
        [None],
        ["x"],
        [group.upper()],
        [[group]],
        {group: 2},
        "ab",
        7,
        None,
        [[[[]]]],
    ):
        token = sign(estate).dumps(content)
        assert outcome(ask(send, estate, page_token=token)) == INVALID, content
    plain = base64.urlsafe_b64encode(json.dumps([group]).encode()).decode()
    assert outcome(ask(send, estate, page_token=plain)) == INVALID


@given(
    token=st.text(max_size=60)
    | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("="))
    | st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4).map(
        lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    )
)
def test_a_garbage_token_is_400_and_never_a_page(engine, send, estate, token):
    encoded = token.encode("utf-8", "surrogatepass")
    with count_statements(engine) as sent:
        response = ask(send, estate, page_token=encoded)
    assert outcome(response) == INVALID
    assert len(sent) == 1


@pytest.mark.parametrize("size", [1, 500, "007"])
def test_a_page_size_within_bounds_is_taken(send, estate, size):
    assert ask(send, estate, page_size=size).status_code == 200


@pytest.mark.parametrize(
    "size",
    [
        "0",
        "501",
        "-1",
        "+5",
        "1.0",
        "1e2",
        "",
        " 5",
        "5 ",
        "5\n",
        "0x5",
        "many",
        "\u0661",
        "9" * 5000,
    ],
)
def test_any_other_page_size_is_400(send, estate, size):
    problem = read_problem(ask(send, estate, page_size=size))
    assert problem["code"] == "invalid-query"
    assert [item["pointer"] for item in problem["errors"]] == ["page_size"]


def test_a_parameter_that_is_unknown_or_given_twice_is_400(send, estate):
    for query, pointers in (
        ("page=2", ["page"]),
        ("page_size=3&page_size=3", ["page_size"]),
        ("page_token=&page_token=", ["page_token", "page_token"]),
        ("PAGE_SIZE=3", ["PAGE_SIZE"]),
        ("%FF=1", ["%FF"]),
        ("page_size=0&page_token=x&y=1", ["page_size", "page_token", "y"]),
    ):
        problem = read_problem(send("GET", f"{list_path(estate.a)}?{query}", estate.owner))
        assert problem["code"] == "invalid-query"
        assert sorted(item["pointer"] for item in problem["errors"]) == pointers


def test_the_list_of_wrong_parameters_has_an_end(send, estate):
    query = "&".join(f"p{index}=" for index in range(400))
    problem = read_problem(send("GET", f"{list_path(estate.a)}?{query}", estate.owner))
    assert [item["pointer"] for item in problem["errors"]] == [f"p{index}" for index in range(50)]


def test_pages_and_single_reads_tell_the_same(send, estate):
    listed = ask(send, estate, page_size=3).json["budgets"]
    for budget in listed:
        single = send("GET", budget_path(budget["group_id"]), estate.owner)
        assert single.json == budget


def test_a_member_pages_through_their_own_groups_only(engine, send):
    town = Estate(engine, 9)
    mine = town.groups[1::3]
    with engine.begin() as connection:
        for group in mine:
            town.join_group(connection, town.a, group, "joined")
    pages, token = [], None
    while True:
        query = {"page_size": 2} | ({"page_token": token} if token else {})
        response = ask(send, town, town.joined, **query)
        pages += ids(response)
        token = response.json["next_page_token"]
        if token is None:
            break
    assert pages == mine
