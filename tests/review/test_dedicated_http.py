"""The dedicated policy over HTTP: each role, here and elsewhere, as its reviewed matrix says."""

from __future__ import annotations

import csv
from itertools import product
from uuid import uuid4

import pytest
from tests.review.helpers import FOLDERS, append, copy_policy
from tests.support import (
    ROUTES,
    Client,
    World,
    budget_path,
    count_statements,
    list_path,
    make_app,
    names_budget_table,
    spend_requests,
)

from govbudget import Policy, PolicyError
from govbudget.authz.matrix import write_matrix
from govbudget.review.check import check_policy

pytestmark = pytest.mark.slow

DEDICATED = FOLDERS["dedicated"]

with (DEDICATED / "matrix.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))
SCOPES = {row["role"]: row["scope"] for row in ROWS}
ALLOWED = {
    (row["role"], row["object"], row["action"]) for row in ROWS if row["decision"] == "allow"
}
ROLES = [*SCOPES, None]
PRICE = {"provider": "acme", "model": "dedicated"} | dict.fromkeys(
    ("input_price", "output_price", "cache_read_price", "cache_write_price"), 3
)

# call: (method, what the matrix is asked about, where)
CALLS = {
    "get": ("GET", ("group_ai_budget", "read"), "group"),
    "put": ("PUT", ("group_ai_budget", "update"), "group"),
    "delete": ("DELETE", ("group_ai_budget", "update"), "group"),
    "list": ("GET", ("group_ai_budget", "read"), "organization"),
    "audit": ("GET", ("group_ai_budget", "update"), "organization"),
    "price": ("GET", ("ai_model_price", "read"), "site"),
    "prices": ("PUT", ("ai_model_price", "update"), "site"),
    "hold": ("POST", ("ai_usage", "create"), "site"),
    "find hold": ("GET", ("ai_usage", "create"), "site"),
    "extend": ("POST", ("ai_usage", "create"), "site"),
    "settle": ("POST", ("ai_usage", "create"), "site"),
    "release": ("DELETE", ("ai_usage", "create"), "site"),
    "record": ("POST", ("ai_usage", "create"), "site"),
    "correct": ("POST", ("ai_usage", "update"), "site"),
    "get override": ("GET", ("ai_member_spend", "read"), "member"),
    "put override": ("PUT", ("group_ai_budget", "update"), "organization"),
    "delete override": ("DELETE", ("group_ai_budget", "update"), "organization"),
    "member spend": ("GET", ("ai_member_spend", "read"), "member"),
    "group spend": ("GET", ("group_ai_budget", "read"), "group"),
    "members spend": ("GET", ("group_ai_budget", "read"), "group"),
    "groups spend": ("GET", ("group_ai_budget", "read"), "organization"),
    "notices": ("GET", ("group_ai_budget", "read"), "organization"),
    "report": ("GET", ("group_ai_budget", "read"), "organization"),
}
DONE = {"delete": 204, "release": 204, "delete override": 204, "hold": 201}


def may(roles, obj, action):
    """Whether one of the roles is allowed; the dedicated policy denies nothing by a line."""
    return any((role, obj, action) in ALLOWED for role in roles)


class Town(World):
    """Someone for every role, held in organization a or group a1 (here), or in b or b1."""

    def __init__(self, engine):
        super().__init__(engine)
        self.cast, self.hold = {}, None
        with engine.begin() as connection:
            for role, here, member in product(ROLES, (True, False), (True, False)):
                person = self.cast[role, here, member] = uuid4()
                self._put(connection, "users", {"id": person, "name": f"{role}"})
                organization, group = (self.a, self.a1) if here else (self.b, self.b1)
                groups = {(self.a, self.a1)} if member else set()
                scope = SCOPES.get(role)
                if scope == "group":
                    groups.add((organization, group))
                elif role is not None:
                    self.assign(connection, person, role, organization if scope != "site" else None)
                for where, one in groups:
                    self.join(connection, where, person)
                    self.join_group(connection, where, one, person)

    def roles_toward(self, group, role, here, member):
        """Which of somebody's roles count toward group a1 or a2, by where they were put."""
        scope = SCOPES.get(role)
        roles = set()
        if scope == "site" or (scope == "organization" and here):
            roles.add(role)
        if group == "a1" and (member or (scope == "group" and here)):
            roles.add("group-member")
        return roles


@pytest.fixture(scope="module")
def send(engine):
    return Client(make_app(engine, policy=DEDICATED))


@pytest.fixture(scope="module")
def town(engine, send):
    town = Town(engine)
    assert send("PUT", "/ai/prices", town.owner, json=[PRICE]).status_code == 200
    town.hold = town.open_hold = None
    town.hold, town.open_hold = (
        ask(send, "hold", town, town.gateway).json["hold_id"] for _ in range(2)
    )
    for call in ("settle", "record"):
        assert ask(send, call, town, town.gateway).status_code in {200, 201}
    assert ask(send, "correct", town, town.owner).status_code == 201
    return town


def expect(call, town, who):
    """The status, from the matrix."""
    _, asked, place = CALLS[call]
    roles, done = town.roles_toward("a1", *who), DONE.get(call, 200)
    if place == "site":
        sited = {role for role in roles if SCOPES[role] == "site"}
        return done if may(sited, *asked) else 403
    if place == "member":
        above = {role for role in roles if SCOPES[role] != "group"}
        return done if may(above, *asked) else 404
    if place == "organization":
        if not roles:  # whoever is in a group of the organization stands in it
            return 404
        everywhere = {role for role in roles if SCOPES[role] != "group"}
        return done if asked[1] == "read" or may(everywhere, *asked) else 403
    if may(roles, *asked):
        return done
    known = product(roles, ("group", "group_ai_budget"), ("read", "update"))
    return 403 if any(cell in ALLOWED for cell in known) else 404


def ask(send, call, town, person):
    if call in (requests := spend_requests(town, "dedicated")):
        method, path, body = requests[call]
        return send(method, path, person, **({"json": body} if body else {}))
    method, _, place = CALLS[call]
    body = {}
    if call == "put":
        body = {"json": {"spend_limit_micros": 2}}
    elif call == "prices":
        body = {"json": [PRICE]}
    path = {
        "group": budget_path(town.a1),
        "organization": list_path(town.a).replace(
            "budgets", "audit" if call == "audit" else "budgets"
        ),
        "site": "/ai/prices" if call == "prices" else "/ai/prices/acme/dedicated",
    }[place]
    return send(method, path, person, **body)


@pytest.mark.parametrize("call", CALLS)
def test_everyone_is_answered_as_the_matrix_says_and_a_refusal_sends_one_statement(
    engine, send, town, call
):
    differences = []
    for who, person in town.cast.items():
        if call in {"get", "put", "delete"}:
            put = send("PUT", budget_path(town.a1), town.owner, json={"spend_limit_micros": 77})
            assert put.status_code == 200
        if "override" in call:
            put = ask(send, "put override", town, town.cast["budget-admin", True, False])
            assert put.status_code == 200
        with count_statements(engine) as sent:
            answer = ask(send, call, town, person)
        expected = expect(call, town, who)
        if answer.status_code != expected:
            differences.append((who, answer.status_code, expected))
        assert not names_budget_table(sent[0])
        # An event that is recorded is looked up; so is the model of one that is corrected.
        more = {"settle": 1, "record": 1, "correct": 2}.get(call, 0)
        assert len(sent) == (1 if expected >= 400 else 2 + more)
        if expected >= 400 and call in {"put", "delete"}:
            left = send("GET", budget_path(town.a1), town.owner).json["spend_limit_micros"]
            assert left == 77
    assert differences == []


def test_the_list_shows_each_budget_to_whom_the_matrix_lets_read_it(send, town):
    for group in (town.a1, town.a2):
        body = {"spend_limit_micros": 77}
        assert send("PUT", budget_path(group), town.owner, json=body).status_code == 200
    shown = set()
    for who, person in town.cast.items():
        readable = {
            str(group)
            for name, group in (("a1", town.a1), ("a2", town.a2))
            if may(town.roles_toward(name, *who), "group_ai_budget", "read")
        }
        answer = send("GET", list_path(town.a), person)
        listed = {budget["group_id"] for budget in answer.json.get("budgets", ())}
        assert listed == readable, who
        assert (answer.status_code == 404) == (not town.roles_toward("a1", *who))
        shown.add(len(listed))
    assert shown == {0, 1, 2}


def test_who_sets_budgets_and_who_runs_groups_are_different_people(send, town):
    """The point of this design, said once without the matrix."""
    path, body = budget_path(town.a1), {"json": {"spend_limit_micros": 5}}
    budget_admin, org_admin, user_admin = (
        town.cast[role, True, False] for role in ("budget-admin", "org-admin", "user-admin")
    )
    assert send("PUT", path, budget_admin, **body).status_code == 200
    for person in (org_admin, user_admin):
        assert send("GET", path, person).status_code == 200
        refused = send("PUT", path, person, **body)
        assert (refused.status_code, refused.json["code"]) == (403, "forbidden")
        assert send("DELETE", path, person).status_code == 403
    assert send("DELETE", path, budget_admin).status_code == 204
    elsewhere = town.cast["budget-admin", False, False]
    assert send("GET", path, elsewhere).json["code"] == "group-not-found"
    policy = Policy.load(DEDICATED)
    assert not policy.decide({"budget-admin"}, "group", "update").allowed
    assert policy.decide({"org-admin"}, "group", "update").allowed


def test_every_route_is_among_the_calls():
    served = sorted((route.method, str(route.action)) for route in ROUTES)
    assert served == sorted((method, asked[1]) for method, asked, _ in CALLS.values())


# -- what budgets are decided as comes from the policy alone --


@pytest.mark.parametrize("name", ["shipped", "dedicated"])
def test_the_policy_says_what_budgets_are_decided_as(engine, town, name):
    """The same people, database and request: a budget-admin sets budgets under one of the two."""
    send = Client(make_app(engine, policy=FOLDERS[name]))
    budget_admin, org_admin = (
        town.cast[role, True, False] for role in ("budget-admin", "org-admin")
    )
    allowed, refused = (
        (budget_admin, org_admin) if name == "dedicated" else (org_admin, budget_admin)
    )
    body = {"json": {"spend_limit_micros": 5}}
    assert send("PUT", budget_path(town.a1), allowed, **body).status_code == 200
    assert send("PUT", budget_path(town.a1), refused, **body).status_code in {403, 404}


def test_one_line_about_budgets_that_nobody_reviewed_does_not_start(engine, tmp_path):
    """So a half-made move to the other design does not start: most people would be locked out."""
    folder = copy_policy(FOLDERS["shipped"], tmp_path / "policy")
    append(folder / "policy.csv", "p, budget-admin, organization, group_ai_budget, update, allow\n")
    (folder / "matrix.csv").unlink()
    with pytest.raises(PolicyError, match="not-reviewed"):
        make_app(engine, policy=folder)
    review = check_policy(folder)
    assert not review.starts
    assert [f.code for f in review.findings if f.file == "matrix.csv"] == ["not-reviewed"]
    (folder / "matrix.csv").write_text(write_matrix(review.table))
    assert make_app(engine, policy=folder)
    assert check_policy(folder).starts


def test_a_reload_to_a_resource_that_nobody_reviewed_raises_and_changes_nothing(engine, tmp_path):
    folder = copy_policy(FOLDERS["dedicated"], tmp_path / "policy")
    gov = make_app(engine, policy=folder).extensions["govbudget"]
    table = gov.policy.table
    (folder / "matrix.csv").unlink()
    with pytest.raises(PolicyError, match="not-reviewed"):
        gov.reload_policy()
    assert gov.policy.table is table


@pytest.mark.parametrize(("start", "then"), [("shipped", "dedicated"), ("dedicated", "shipped")])
def test_a_reload_to_the_other_design_raises_and_changes_nothing(engine, tmp_path, start, then):
    folder = copy_policy(FOLDERS[start], tmp_path / "policy")
    policy = make_app(engine, policy=folder).extensions["govbudget"].policy
    table = policy.table
    copy_policy(FOLDERS[then], folder)
    with pytest.raises(PolicyError) as refused:
        policy.reload()
    assert [finding.code for finding in refused.value.findings] == ["needs-restart"]
    assert policy.table is table
    copy_policy(FOLDERS[start], folder)
    policy.reload()
    assert policy.digest == table.digest
