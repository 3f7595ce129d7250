"""Every route names what it asks for in one place, and reaches no store without a grant for it."""

from __future__ import annotations

import re
from functools import cache
from uuid import uuid4

import pytest
from tests.support import (
    Client,
    World,
    count_statements,
    make_app,
    names_budget_table,
    packaged_policy,
)

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
from govbudget.identity import Ledger, Member
from govbudget.web.call import Target
from govbudget.web.routes import ROUTES

PREFIX = "/api/v2"
ids = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


@pytest.fixture(scope="module")
def town(engine):
    town = World(engine)
    town.hold = uuid4()
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
    assert (route.action is Action.CREATE) == (route.target is Target.LEDGER)


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
        "tokens": {},
    }
    bodies = {
        "put_budget": {"spend_limit_micros": 5},
        "put_prices": [PRICE],
        "put_override": {"group_id": str(town.a1), "spend_limit_micros": 5},
        "post_holds": call,
        "post_settle": {"event_id": uuid4().hex, "tokens": {}},
        "post_usage": {**call, "event_id": uuid4().hex},
    }
    name = route.view.__name__
    return path, {"json": bodies[name]} if name in bodies else {}


def ask_as(town, route):
    return town.gateway if route.target is Target.LEDGER else town.owner


def name_owner(subject, unit_of_work=None):
    held = (Assignment("owner", SITE), Assignment("gateway", SITE))
    return Subject(subject.id, held, unit_of_work or subject.unit_of_work)


class Elsewhere(Policy):
    """Authorizes the same act on another object: the host's mistake that a store must notice."""

    __slots__ = ()

    def authorize(self, subject, action, obj):
        if isinstance(obj, PriceBook | Ledger):  # there is only one
            other = next(other for other in (Action.READ, Action.UPDATE) if other != action)
            return super().authorize(name_owner(subject), other, PriceBook())
        if isinstance(obj, Member):
            return super().authorize(name_owner(subject), action, Member("elsewhere", obj.id))
        other = Group("elsewhere", "elsewhere", obj.type)
        return super().authorize(name_owner(subject), action, other)

    def authorize_list(self, subject, action, organization, object_type):
        other = Organization("elsewhere")
        return super().authorize_list(name_owner(subject), action, other, object_type)


class OtherAct(Policy):
    """Authorizes another act, on the same object where one may be done."""

    __slots__ = ()

    def authorize(self, subject, action, obj):
        other = next(other for other in (Action.READ, Action.UPDATE) if other != action)
        same = PriceBook() if isinstance(obj, Ledger | Member) else obj
        return super().authorize(name_owner(subject), other, same)

    def authorize_list(self, subject, action, organization, object_type):
        other = next(other for other in (Action.READ, Action.UPDATE) if other != action)
        return super().authorize_list(name_owner(subject), other, organization, object_type)


class OtherUnit(Policy):
    """Authorizes by what another transaction has loaded."""

    __slots__ = ()

    def authorize(self, subject, action, obj):
        return super().authorize(name_owner(subject, object()), action, obj)

    def authorize_list(self, subject, action, organization, object_type):
        return super().authorize_list(
            name_owner(subject, object()), action, organization, object_type
        )


load_once = cache(lambda kind: kind.load())


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
    """A price, a budget, an override and a hold."""
    send = Client(make_app(engine))
    for name in ("put_prices", "put_budget", "put_override", "post_holds"):
        route = next(route for route in ROUTES if route.view.__name__ == name)
        path, body = ask(town, route)
        answer = send(route.method, path, ask_as(town, route), **body)
        assert answer.status_code in {200, 201}
    town.hold = answer.json["hold_id"]


@ids
@pytest.mark.parametrize("careless", [Elsewhere, OtherAct, OtherUnit])
def test_a_store_refuses_a_grant_for_something_else_and_sends_nothing(
    engine, town, route, careless, caplog
):
    answer, sent = send_counting(engine, town, route, load_once(careless))
    assert (answer.status_code, answer.json["code"]) == (500, "internal-error")
    assert sent == []
    (failure,) = (record for record in caplog.records if record.exc_info)
    assert failure.exc_info[0].__name__ == "GrantRefused"


@ids
def test_the_same_request_with_its_own_grant_is_served(engine, town, route, with_everything):
    """So the refusals above are the grant's doing."""
    answer, sent = send_counting(engine, town, route, packaged_policy())
    assert answer.status_code in {200, 201, 204}
    assert len(sent) == 1
