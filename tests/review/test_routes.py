"""Every route names what it asks for in one place, and reaches no store without a grant for it."""

from __future__ import annotations

import re

import pytest
from tests.support import Client, World, count_statements, make_app, names_budget_table

from govbudget import (
    SITE,
    Action,
    Assignment,
    Group,
    Organization,
    Policy,
    PriceBook,
    Subject,
)
from govbudget.web.routes import ROUTES, Target

PREFIX = "/api/v2"
ids = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


@pytest.fixture(scope="module")
def town(engine):
    return World(engine)


# -- one place --


def test_the_urls_under_the_prefix_are_those_of_the_routes_and_a_refusal(engine):
    app = make_app(engine)
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith(PREFIX)]
    named = {PREFIX + route.path for route in ROUTES}
    assert {rule.rule for rule in rules} == {
        *named,
        PREFIX,
        f"{PREFIX}/openapi.json",
        f"{PREFIX}/<rest:path>",
    }
    # Each path is there once, and asks its own routes about the method.
    assert all(rule.methods is None for rule in rules)
    refusal = {rule.endpoint for rule in rules if rule.rule not in named}
    assert refusal == {"govbudget.unknown", "govbudget.openapi"}
    assert refusal.isdisjoint(rule.endpoint for rule in rules if rule.rule in named)


def test_no_route_is_named_twice():
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


@ids
def test_a_route_names_its_object_and_its_action(route):
    assert isinstance(route.target, Target)
    assert isinstance(route.action, Action)
    # Where the path has an object's id, it is the one that is loaded and decided about.
    named = set(re.findall(r"<(?:\w+:)?(\w+)>", route.path)) & {str(target) for target in Target}
    assert named == ({str(route.target)} - {str(Target.PRICE_BOOK)})


@ids
def test_a_route_that_writes_asks_for_update(route):
    assert (route.action is Action.UPDATE) or route.method == "GET"


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
    values = {"group": town.a1, "organization": town.a, "provider": "acme", "model": "routes"}
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda part: str(values[part[1]]), route.path)
    bodies = {Target.GROUP: {"spend_limit_micros": 5}, Target.PRICE_BOOK: [PRICE]}
    return path, {"json": bodies[route.target]} if route.method == "PUT" else {}


def name_owner(subject):
    return Subject(subject.id, (Assignment("owner", SITE),), subject.unit_of_work)


class Elsewhere(Policy):
    """Authorizes the same act on another object: the host's mistake that a store must notice."""

    __slots__ = ()

    def authorize(self, subject, action, obj):
        if isinstance(obj, PriceBook):  # there is only one
            other = next(other for other in Action if other != action)
            return super().authorize(name_owner(subject), other, obj)
        other = Group("elsewhere", "elsewhere", obj.type)
        return super().authorize(name_owner(subject), action, other)

    def authorize_list(self, subject, action, organization, object_type):
        other = Organization("elsewhere")
        return super().authorize_list(name_owner(subject), action, other, object_type)


class OtherAct(Policy):
    """Authorizes another act on the same object."""

    __slots__ = ()

    def authorize(self, subject, action, obj):
        other = next(other for other in Action if other != action)
        return super().authorize(name_owner(subject), other, obj)

    def authorize_list(self, subject, action, organization, object_type):
        other = next(other for other in Action if other != action)
        return super().authorize_list(name_owner(subject), other, organization, object_type)


class OtherUnit(Policy):
    """Authorizes by what another transaction has loaded."""

    __slots__ = ()

    def authorize(self, subject, action, obj):
        stale = Subject(subject.id, (Assignment("owner", SITE),), object())
        return super().authorize(stale, action, obj)

    def authorize_list(self, subject, action, organization, object_type):
        stale = Subject(subject.id, (Assignment("owner", SITE),), object())
        return super().authorize_list(stale, action, organization, object_type)


def send_counting(engine, town, route, policy):
    """Send the route's request as the owner; give the answer and the statements after the first."""
    path, body = ask(town, route)
    with count_statements(engine) as sent:
        answer = Client(make_app(engine, policy=policy))(route.method, path, town.owner, **body)
    assert not names_budget_table(sent[0])
    return answer, sent[1:]


@pytest.fixture
def with_a_price_and_a_budget(engine, town):
    send = Client(make_app(engine))
    assert send("PUT", "/ai/prices", town.owner, json=[PRICE]).status_code == 200
    body = {"spend_limit_micros": 5}
    assert send("PUT", f"/groups/{town.a1}/ai/budget", town.owner, json=body).status_code == 200


@ids
@pytest.mark.parametrize("careless", [Elsewhere, OtherAct, OtherUnit])
def test_a_store_refuses_a_grant_for_something_else_and_sends_nothing(
    engine, town, route, careless, caplog
):
    answer, sent = send_counting(engine, town, route, careless.load())
    assert (answer.status_code, answer.json["code"]) == (500, "internal-error")
    assert sent == []
    (failure,) = (record for record in caplog.records if record.exc_info)
    assert failure.exc_info[0].__name__ == "GrantRefused"


@ids
def test_the_same_request_with_its_own_grant_is_served(
    engine, town, route, with_a_price_and_a_budget
):
    """So the refusals above are the grant's doing."""
    answer, sent = send_counting(engine, town, route, Policy.load())
    assert answer.status_code in {200, 204}
    assert len(sent) == 1
