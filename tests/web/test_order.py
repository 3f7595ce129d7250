"""The error table of the contract is an order: a request with many faults gets the earliest."""

from __future__ import annotations

import io
from itertools import combinations
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.support import Client, budget_path, count_statements, list_path, make_app
from tests.web.helpers import MeddlingDirectory, outcome, put_limit

# Each fault spoils a good PUT of a budget: (what it does to the request, the answer it gets).
FAULTS = {
    "wrong method": ({"method": "PATCH"}, (405, "method-not-allowed")),
    "no credentials": ({"person": None}, (401, "unauthenticated")),
    "bad id": ({"group": "not-an-id"}, (400, "invalid-id")),
    "feature off": ({"features": frozenset()}, (403, "feature-disabled")),
    "unknown group": ({"group": str(uuid4())}, (404, "group-not-found")),
    "group of others": ({"person": "outsider"}, (404, "group-not-found")),
    "may only read": ({"person": "member"}, (403, "forbidden")),
    "wrong media type": ({"content_type": "text/plain"}, (415, "unsupported-media-type")),
    "too large": ({"pad": 1024 * 1024}, (413, "body-too-large")),
    "not JSON": ({"start": "{"}, (400, "invalid-body")),
    "bad field": ({"limit": "-1"}, (400, "invalid-body")),
    "wrong tag": ({"headers": {"If-Match": '"another"'}}, (412, "precondition-failed")),
}
GOOD = {
    "method": "PUT",
    "person": "org_admin",
    "group": None,
    "features": frozenset({"aibridge"}),
    "content_type": "application/json",
    "pad": 0,
    "start": "",
    "limit": "1",
    "headers": {},
}


@pytest.fixture(scope="module")
def ask(engine, policy, town):
    """Sends a PUT with the given faults."""
    features = set()
    app = make_app(engine, policy=policy, features=lambda: frozenset(features))
    client = Client(app)
    assert (
        put_limit(Client(make_app(engine, policy=policy)), town.a1, town.owner).status_code == 200
    )

    def send(names):
        request = dict(GOOD)
        for name in reversed(names):  # of two faults in one place the earlier stays
            request |= FAULTS[name][0]
        features.clear()
        features.update(request["features"])
        person = request["person"]
        return client(
            request["method"],
            budget_path(request["group"] or town.a1),
            person and getattr(town, person),
            data=f'{request["start"]}{{"spend_limit_micros":{request["limit"]}}}'
            + " " * request["pad"],
            content_type=request["content_type"],
            headers=request["headers"],
        )

    return send


def test_without_a_fault_the_request_is_done(ask):
    assert ask([]).status_code == 200


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_alone_gets_its_answer(ask, name):
    assert outcome(ask([name])) == FAULTS[name][1]


@pytest.mark.parametrize(("first", "second"), list(combinations(FAULTS, 2)))
def test_of_two_faults_the_earlier_is_answered(ask, first, second):
    assert outcome(ask([first, second])) == FAULTS[first][1]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_and_all_later_ones_together_get_its_answer(ask, name):
    names = list(FAULTS)
    assert outcome(ask(names[names.index(name) :])) == FAULTS[name][1]


@pytest.mark.parametrize(
    ("name", "statements"),
    [
        ("wrong method", 0),
        ("no credentials", 0),
        ("bad id", 0),
        ("feature off", 0),
        ("unknown group", 1),
        ("group of others", 1),
        ("may only read", 1),
        ("wrong media type", 1),
        ("too large", 1),
        ("not JSON", 1),
        ("bad field", 1),
        ("wrong tag", 2),
    ],
)
def test_a_fault_costs_no_statement_beyond_where_it_is_found(engine, ask, name, statements):
    engine.connect().close()
    with count_statements(engine) as sent:
        ask([name])
    assert len(sent) == statements


def test_a_list_finds_the_organization_before_it_reads_the_query(engine, policy, town):
    on = Client(make_app(engine, policy=policy))
    off = Client(make_app(engine, policy=policy, features=set()))
    bad = "?page_size=0&page_token=x&page=1"
    good_path, bad_path = list_path(town.a), list_path("7")
    assert outcome(on("POST", bad_path + bad)) == (405, "method-not-allowed")
    assert outcome(off("GET", bad_path + bad)) == (401, "unauthenticated")
    assert outcome(off("GET", bad_path + bad, town.owner)) == (400, "invalid-id")
    assert outcome(off("GET", good_path + bad, town.owner)) == (403, "feature-disabled")
    for person in (town.outsider, town.stranger):
        refused = on("GET", good_path + bad, person)
        assert outcome(refused) == (404, "organization-not-found")
    assert outcome(on("GET", good_path + bad, town.owner)) == (400, "invalid-query")


def test_a_large_body_is_received_after_the_decision(send, town):
    """So that nobody who may not send it fills the memory."""
    received = []

    class Large(io.BytesIO):
        def readinto(self, buffer):
            received.append(len(buffer))
            return super().readinto(buffer)

    for person, status in ((town.member, 403), (town.owner, 200)):
        assert received == []
        body = {"input_stream": Large(b"[]"), "content_length": 2}
        response = send("PUT", "/ai/prices", person, content_type="application/json", **body)
        assert response.status_code == status
    assert received


def test_a_body_of_prices_is_checked_after_the_decision(engine, policy, town):
    on = Client(make_app(engine, policy=policy))
    off = Client(make_app(engine, policy=policy, features=set()))
    wrong = {"data": "{" + " " * (16 * 1024 * 1024), "content_type": "text/plain"}
    assert outcome(on("PATCH", "/ai/prices", **wrong)) == (405, "method-not-allowed")
    assert outcome(off("PUT", "/ai/prices", **wrong)) == (401, "unauthenticated")
    assert outcome(off("PUT", "/ai/prices", town.member, **wrong)) == (403, "feature-disabled")
    assert outcome(on("PUT", "/ai/prices", town.member, **wrong)) == (403, "forbidden")
    answered = on("PUT", "/ai/prices", town.owner, **wrong)
    assert outcome(answered) == (415, "unsupported-media-type")
    wrong["content_type"] = "application/json"
    assert outcome(on("PUT", "/ai/prices", town.owner, **wrong)) == (413, "body-too-large")
    wrong["data"] = "{"
    assert outcome(on("PUT", "/ai/prices", town.owner, **wrong)) == (400, "invalid-body")


def test_a_missing_price_is_found_after_the_decision(send, town):
    assert outcome(send("GET", "/ai/prices/x/y", town.org_admin)) == (403, "forbidden")
    assert outcome(send("GET", "/ai/prices/x/y", town.owner)) == (404, "price-not-found")


def test_a_delete_where_there_is_no_row_is_404_whatever_the_headers(send, world):
    for headers in (
        {},
        {"If-Match": "*"},
        {"If-Match": '"x"'},
        {"If-None-Match": "*"},
        {"If-None-Match": '"x"'},
        {"If-Match": '"x"', "If-None-Match": "*"},
    ):
        response = send("DELETE", budget_path(world.a2), world.owner, headers=headers)
        assert outcome(response) == (404, "budget-not-set")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("PUT", (409, "group-changed")),
        ("DELETE", (409, "group-changed")),
        ("GET", (404, "group-not-found")),
    ],
)
def test_a_group_that_moves_after_the_look_up_is_found_last(
    engine, policy, world, method, expected
):
    """Everything that the request itself gets wrong is said before the move is."""
    tables = world.tables
    put_limit(Client(make_app(engine, policy=policy)), world.a2, world.owner)

    def move(group):
        with engine.begin() as connection:
            connection.execute(
                sa.update(tables.groups)
                .where(tables.groups.c.id == group)
                .values(organization_id=world.b)
            )

    directory = MeddlingDirectory(world.directory, move)
    send = Client(make_app(engine, policy=policy, directory=directory))
    options = {"json": {"spend_limit_micros": -1}} if method == "PUT" else {}
    if method == "PUT":
        answered = send(method, budget_path(world.a2), world.owner, **options)
        assert outcome(answered) == (400, "invalid-body")
        with engine.begin() as connection:
            connection.execute(
                sa.update(tables.groups)
                .where(tables.groups.c.id == world.a2)
                .values(organization_id=world.a)
            )
        options = {"json": {"spend_limit_micros": 9}}
    assert outcome(send(method, budget_path(world.a2), world.owner, **options)) == expected
