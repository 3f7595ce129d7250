"""Every route names what it asks for in one place, and reaches no store without a grant for it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import product
from uuid import uuid4

import pytest
from tests.policy.helpers import load_unreviewed
from tests.support import (
    ROUTES,
    Client,
    World,
    count_statements,
    make_app,
    names_budget_table,
    packaged_policy,
)

from govbudget import extension
from govbudget.identity import Action
from govbudget.web.call import Target

pytestmark = pytest.mark.slow

PREFIX = "/api/v2"
ids = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


@pytest.fixture(scope="module")
def town(engine):
    town = World(engine)
    town.hold, town.event = uuid4(), "unknown"
    return town


# -- one place --


def test_the_urls_under_the_prefix_are_those_of_the_routes_with_their_methods(engine):
    app = make_app(engine)
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith(PREFIX)]
    named = {(PREFIX + route.path, route.method) for route in ROUTES}
    found = [(rule.rule, method) for rule in rules for method in rule.methods]
    asked = [(path, method) for path, method in found if method not in {"HEAD", "OPTIONS"}]
    assert sorted(asked) == sorted({*named, (f"{PREFIX}/openapi.json", "GET")})
    assert len({rule.endpoint for rule in rules}) == len(rules)


def test_no_route_is_named_twice():
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


@ids
def test_a_route_names_its_object_and_its_action(route):
    assert isinstance(route.target, Target)
    assert isinstance(route.action, Action)
    # Where the path has an object's id, it is the one that is loaded and decided about.
    named = set(re.findall(r"<(?:\w+:)?(\w+)>", route.path)) & {"group", "organization"}
    site_wide = {Target.PRICE_BOOK, Target.LEDGER}
    expected = {Target.GROUP: {"group"}}.get(route.target, {"organization"})
    assert named == (set() if route.target in site_wide else expected)
    assert route.target is not Target.MEMBER or "<user>" in route.path


@ids
def test_a_route_that_writes_asks_for_more_than_to_read(route):
    assert (route.action is Action.READ) <= (route.method == "GET")
    assert route.action is not Action.CREATE or route.target is Target.LEDGER


@ids
def test_a_path_answers_to_the_methods_that_it_names_and_no_other(engine, town, route):
    send = Client(make_app(engine))
    path, _ = ask(town, route)
    methods = {r.method for r in ROUTES if r.path == route.path}
    for method in {"GET", "PUT", "DELETE", "POST", "PATCH", "TRACE", "PROPFIND"} - methods:
        answer = send(method, path, town.owner)
        assert answer.status_code == 405
        assert set(answer.headers["Allow"].split(", ")) >= methods


# -- no store without a grant --

PRICE = {
    "provider": "acme",
    "model": "routes",
    "input_price": 1,
    "output_price": 1,
    "cache_read_price": None,
    "cache_write_price": None,
}


def ask(town, route):
    """A path of the route, and a body that is right."""
    values = {
        "group": town.a1,
        "organization": town.a,
        "provider": "acme",
        "model": "routes",
        "user": town.member,
        "hold": town.hold,
    }
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda part: str(values[part[1]]), route.path)
    call = {
        "organization_id": str(town.a),
        "user_id": str(town.member),
        "provider": "acme",
        "model": "routes",
        "tokens": {"input": 1},
    }
    bodies = {
        "put_budget": {"spend_limit_micros": 5},
        "put_prices": [PRICE],
        "put_override": {"group_id": str(town.a1), "spend_limit_micros": 5},
        "post_holds": call,
        "post_extend": {"ttl_seconds": 60},
        "post_settle": {"event_id": uuid4().hex, "tokens": {}},
        "post_usage": {**call, "event_id": uuid4().hex},
        "post_corrections": {
            "event_id": uuid4().hex,
            "organization_id": str(town.a),
            "corrects": town.event,
            "tokens": {"input": 2},
            "reason": "a test",
        },
    }
    name = route.view.__name__
    path += {"get_organization_spend": "?from=2026-01-01&to=2026-02-01"}.get(name, "")
    return path, {"json": bodies[name]} if name in bodies else {}


def ask_as(town, route):
    is_service = route.target is Target.LEDGER and route.action is Action.CREATE
    return town.gateway if is_service else town.owner


KINDS = ("group", "ai_model_price", "ai_usage", "ai_member_spend")
# Whoever asks below may do everything, so that nothing but the grant refuses.
ANYTHING = "\n".join(
    f"p, {role}, site, {kind}, {action}, allow"
    for role, kind, action in product(("owner", "gateway"), KINDS, Action)
)
load_all_allowed = cache(lambda: load_unreviewed(ANYTHING.encode()))


def ask_for_another_act(route):
    """The route with another action in its row."""
    other = Action.UPDATE if route.action is Action.READ else Action.READ
    return replace(route, action=other)


def ask_for_another_kind(route):
    """The route with another kind of object in its row."""
    other = Target.LEDGER if route.target is Target.PRICE_BOOK else Target.PRICE_BOOK
    return replace(route, target=other)


def send_counting(engine, town, route, policy):
    """Send the route's request as the owner; give the answer and the statements after the first."""
    path, body = ask(town, route)
    with count_statements(engine) as sent:
        answer = Client(make_app(engine, policy=policy))(
            route.method, path, ask_as(town, route), **body
        )
    assert not names_budget_table(sent[0])
    return answer, sent[1:]


@pytest.fixture
def with_everything(engine, town):
    """A price, a budget, an override, a recorded call and a hold."""
    send = Client(make_app(engine))
    for name in ("put_prices", "put_budget", "put_override", "post_usage", "post_holds"):
        route = next(route for route in ROUTES if route.view.__name__ == name)
        path, body = ask(town, route)
        answer = send(route.method, path, ask_as(town, route), **body)
        assert answer.status_code in {200, 201}
        if name == "post_usage":
            town.event = answer.json["event_id"]
    town.hold = answer.json["hold_id"]


@ids
@pytest.mark.parametrize("careless", [ask_for_another_act, ask_for_another_kind])
def test_a_route_that_asks_for_another_right_is_refused_and_sends_nothing(  # noqa: PLR0917 - fixtures
    engine, town, route, careless, monkeypatch, caplog
):
    """The statements say which right they need, so a mistake in a row of the routes opens nothing.

    Of another object, unit or transaction than its own no grant can speak: `tests/db/`.
    """
    monkeypatch.setattr(extension, "list_routes", lambda **_: (careless(route),))
    answer, sent = send_counting(engine, town, route, load_all_allowed())
    assert (answer.status_code, answer.json["code"]) == (500, "internal-error")
    assert sent == []
    (failure,) = (record for record in caplog.records if record.exc_info)
    assert failure.exc_info[0].__name__ == "GrantRefused"


@ids
def test_the_same_request_with_its_own_grant_is_served(engine, town, route, with_everything):
    """So the refusals above are the grant's doing."""
    answer, sent = send_counting(engine, town, route, packaged_policy())
    assert answer.status_code in {200, 201, 204}
    looked_up = route.path == "/ai/corrections"  # whose model is corrected
    assert len(sent) == 1 + looked_up
