"""Every route x every role x every place, against what the reviewed matrix says.

The expectation is worked out here from `policy/matrix.csv` and from where each role was put. It
asks nothing of the code under test: a role that reaches further than the reviewer read fails here.
"""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path
from uuid import uuid4

import pytest
from tests.support import (
    World,
    budget_path,
    count_statements,
    list_path,
    names_budget_table,
    spend_requests,
)
from tests.web.helpers import outcome, put_limit, read_row

POLICY = Path(__file__).parents[2] / "policy"
PRICE = {
    "provider": "acme",
    "model": "allow-list",
    "input_price": 1,
    "output_price": None,
    "cache_read_price": 0,
    "cache_write_price": 0,
}
ROUTES = {
    "get budget": ("GET", "group", "read"),
    "put budget": ("PUT", "group", "update"),
    "delete budget": ("DELETE", "group", "update"),
    "list budgets": ("GET", "organization", "read"),
    "list audit": ("GET", "organization", "update"),
    "get price": ("GET", "ai_model_price", "read"),
    "put prices": ("PUT", "ai_model_price", "update"),
    "hold": ("POST", "ai_usage", "create"),
    "find hold": ("GET", "ai_usage", "create"),
    "extend": ("POST", "ai_usage", "create"),
    "settle": ("POST", "ai_usage", "create"),
    "release": ("DELETE", "ai_usage", "create"),
    "record": ("POST", "ai_usage", "create"),
    "correct": ("POST", "ai_usage", "update"),
    "get override": ("GET", "ai_member_spend", "read"),
    "put override": ("PUT", "organization", "update"),
    "delete override": ("DELETE", "organization", "update"),
    "member spend": ("GET", "ai_member_spend", "read"),
    "group spend": ("GET", "group", "read"),
    "members spend": ("GET", "group", "read"),
    "groups spend": ("GET", "organization", "read"),
    "notices": ("GET", "organization", "read"),
    "report": ("GET", "organization", "read"),
}
SITE_WIDE = ("ai_model_price", "ai_usage")


def read_matrix():
    """Read who may do what, as the reviewer reads it."""
    with (POLICY / "matrix.csv").open(newline="") as file:
        rows = list(csv.DictReader(line for line in file if line[:1] not in "#\n"))
    return {(row["role"], row["object"], row["action"]): row["decision"] for row in rows}


def read_scopes():
    """Read where each role is held, as the reviewer reads it."""
    lines = (POLICY / "policy.csv").read_text().splitlines()
    fields = [[part.strip() for part in line.split(",")] for line in lines if line[:1] == "p"]
    return {field[1]: field[2] for field in fields}


MATRIX = read_matrix()
SCOPES = read_scopes()
ROLES = sorted(SCOPES)
PLACES = list(product(("same", "other"), (False, True)))


def may(roles, obj, action):
    return any(MATRIX[role, obj, action] == "allow" for role in roles)


class Neighbourhood(World):
    """A world with one person for every (role, same or other organization, member or not)."""

    def __init__(self, engine):
        super().__init__(engine)
        self.cast, self.hold, self.open_hold = {}, None, None
        with engine.begin() as connection:
            for role, (place, member) in product([*ROLES, None], PLACES):
                name = f"{role}-{place}-{member}"
                person = self.cast[role, place, member] = uuid4()
                self._put(connection, "users", {"id": person, "name": name})
                here, group = (self.a, self.a1) if place == "same" else (self.b, self.b1)
                joins = {self.a: {self.a1}} if member else {}
                if role is not None and SCOPES[role] == "group":
                    joins.setdefault(here, set()).add(group)
                elif role is not None:
                    site = SCOPES[role] == "site"
                    self.assign(connection, person, role, None if site else here)
                for organization, groups in joins.items():
                    self.join(connection, organization, person)
                    for one in groups:
                        self.join_group(connection, organization, one, person)

    def roles_toward_a1(self, role, place, member):
        """Say which roles count toward group a1, from where they were put."""
        roles = {"group-member"} if member else set()
        held = {"site": True, "user": False}  # toward a group, nobody is the user
        if role is not None and held.get(SCOPES[role], place == "same"):
            roles.add(role)
        return roles


@pytest.fixture(scope="module")
def neighbourhood(engine, send):
    town = Neighbourhood(engine)
    assert send("PUT", "/ai/prices", town.owner, json=[PRICE]).status_code == 200
    assert ask(send, town, "put override", town.owner).status_code == 200
    town.hold, town.open_hold = (
        ask(send, town, "hold", town.gateway).json["hold_id"] for _ in range(2)
    )
    for route in ("settle", "record"):
        assert ask(send, town, route, town.gateway).status_code in {200, 201}
    assert ask(send, town, "correct", town.owner).status_code == 201
    return town


def expect(route, roles):  # noqa: PLR0911 - one answer a kind of object
    """Say the answer from the roles that count toward the object, and the matrix."""
    method, obj, action = ROUTES[route]
    if obj in SITE_WIDE:
        sited = {role for role in roles if SCOPES[role] == "site"}
        done = {"hold": 201, "release": 204}.get(route, 200)
        return (done, None) if may(sited, obj, action) else (403, "forbidden")
    if obj == "ai_member_spend":  # of another: roles in groups count for nothing
        above = {role for role in roles if SCOPES[role] != "group"}
        return (200, None) if may(above, obj, action) else (404, "member-not-found")
    if obj == "organization" and not roles:
        return 404, "organization-not-found"
    if action == "read" and obj == "organization":
        return 200, None
    if obj == "organization":
        everywhere = {role for role in roles if SCOPES[role] != "group"}
        if may(everywhere, "group", action):
            return (204 if method == "DELETE" else 200), None
        return 403, "forbidden"
    if may(roles, obj, action):
        return (204 if method == "DELETE" else 200), None
    known = may(roles, obj, "read") or may(roles, obj, "update")
    return (403, "forbidden") if known else (404, "group-not-found")


def ask(send, town, route, person):  # noqa: PLR0911 - one path each
    if route in (requests := spend_requests(town, PRICE["model"])):
        method, path, body = requests[route]
        return send(method, path, person, **({"json": body} if body else {}))
    if route == "list budgets":
        return send("GET", list_path(town.a), person)
    if route == "list audit":
        return send("GET", list_path(town.a).replace("budgets", "audit"), person)
    if route == "get price":
        return send("GET", f"/ai/prices/{PRICE['provider']}/{PRICE['model']}", person)
    if route == "put prices":
        return send("PUT", "/ai/prices", person, json=[PRICE])
    if route == "put budget":
        return put_limit(send, town.a1, person, 1)
    return send(ROUTES[route][0], budget_path(town.a1), person)


def list_cases():
    """List each route for each role; each commit tries those of budgets and holds."""
    for route, role in product(ROUTES, [*ROLES, None]):
        is_quick = route in {"get budget", "put budget", "list budgets", "hold"}
        yield pytest.param(route, role, marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize(("route", "role"), [*list_cases()])
def test_the_answer_is_the_matrixs_and_a_refusal_sends_one_statement(
    engine, send, neighbourhood, route, role
):
    town = neighbourhood
    for place, member in PLACES:
        case = f"{role}, {place} organization, {'a' if member else 'no'} member"
        prepare(engine, send, town, route)
        with count_statements(engine) as sent:
            response = ask(send, town, route, town.cast[role, place, member])
        roles = town.roles_toward_a1(role, place, member)
        expected = expect(route, roles)
        assert outcome(response) == expected, case
        assert not names_budget_table(sent[0]), "the directory names a table that it must not"
        assert "audit" not in sent[0]
        if expected[1] is None:
            # An event that is known is looked up; so is the model of one that is corrected.
            more = {"settle": 1, "record": 1, "correct": 2}.get(route, 0)
            assert len(sent) == 2 + more, case
            assert "audit" in sent[1] if route == "list audit" else names_budget_table(sent[1])
        else:
            assert len(sent) == 1, case
            assert read_row(engine, town.a1) == 77, f"a refused request changed the budget: {case}"
        if route == "list budgets" and expected[1] is None:
            listed = str(town.a1) in [budget["group_id"] for budget in response.json["budgets"]]
            assert listed == may(roles, "group", "read"), f"the matrix differs: {case}"


def prepare(engine, send, town, route):
    """Make what the request changes or takes out, as every case finds it."""
    if read_row(engine, town.a1) != 77:
        assert put_limit(send, town.a1, town.owner, 77).status_code == 200
    if route == "delete override":
        assert ask(send, town, "put override", town.owner).status_code == 200


def test_the_cases_cover_every_cell_of_the_matrix_that_a_route_asks_about():
    """Adding a role to the policy adds its cases here, with nobody thinking of it."""
    asked = {(role, ROUTES[route][1], ROUTES[route][2]) for route, role in product(ROUTES, ROLES)}
    asked = {(role, "group" if o == "organization" else o, a) for role, o, a in asked}
    routed = {(obj, action) for _, obj, action in asked}
    assert asked == {cell for cell in MATRIX if cell[1:] in routed}
    unrouted = {cell[1:] for cell in MATRIX} - routed - {("policy", "read")}  # of the pages
    assert all(MATRIX[cell] == "deny" for cell in MATRIX if cell[1:] in unrouted)


def test_every_route_of_the_blueprint_is_among_the_cases():
    from tests.support import ROUTES as SERVED

    described = {(method, action) for method, _, action in ROUTES.values()}
    assert len(SERVED) == len(ROUTES)
    assert {(route.method, str(route.action)) for route in SERVED} == described
