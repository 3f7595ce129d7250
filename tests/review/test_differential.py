"""Stock Casbin, over random worlds, says what the HTTP answers are."""

from __future__ import annotations

from functools import cache
from uuid import uuid4

import casbin
import pytest
import sqlalchemy as sa
from casbin.persist.adapters.string_adapter import StringAdapter
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.review.helpers import FOLDERS, MODEL, write_rows
from tests.review.oracle import read_rows
from tests.support import TABLES, Client, budget_path, list_path, make_app

from govbudget import Policy

pytestmark = pytest.mark.long

SHIPPED = read_rows((FOLDERS["shipped"] / "policy.csv").read_text())
DEDICATED = read_rows((FOLDERS["dedicated"] / "policy.csv").read_text())
SCOPES = {role: scope for role, scope, *_ in DEDICATED}
STORED = [*SCOPES, "auditor"]  # the last is declared by no policy
NOWHERE = "nowhere"


@st.composite
def worlds(draw):
    """Organizations of users and groups, people in them, and roles stored anywhere at all."""
    organizations = range(draw(st.integers(1, 2)))
    groups = draw(st.lists(st.sampled_from(organizations), min_size=1, max_size=3))
    users = range(draw(st.integers(1, 2)))
    place = st.one_of(st.none(), st.sampled_from(organizations))
    assignment = st.tuples(st.sampled_from(users), st.sampled_from(STORED), place)
    membership = st.tuples(st.sampled_from(users), st.sampled_from(organizations))
    in_group = st.tuples(st.sampled_from(users), st.sampled_from(range(len(groups))))
    within = draw(st.sets(in_group, max_size=4))
    return {
        "organizations": len(organizations),
        "groups": groups,
        "users": len(users),
        "roles": draw(st.sets(assignment, max_size=5)),
        # Whoever is in a group is in its organization.
        "members": draw(st.sets(membership)) | {(user, groups[group]) for user, group in within},
        "group_members": within,
    }


@st.composite
def policies(draw):
    """The shipped lines with some taken away, some allowed and some denied."""
    rights = sorted(set(SCOPES.items()))
    row = st.builds(
        lambda held, obj, action, effect: (*held, obj, action, effect),
        st.sampled_from(rights),
        st.sampled_from(("group", "ai_model_price")),
        st.sampled_from(("read", "update")),
        st.sampled_from(("allow", "deny", "deny")),
    )
    kept = draw(st.lists(st.sampled_from(SHIPPED), min_size=1, unique=True))
    return [*kept, *draw(st.lists(row, max_size=4))]


class Drawn:
    """A world of hypothesis's, put into the database, and the same as lines of Casbin."""

    def __init__(self, engine, drawn):
        self.organizations = [uuid4() for _ in range(drawn["organizations"])]
        self.users = [uuid4() for _ in range(drawn["users"])]
        everyone = [(organization, organization) for organization in self.organizations]
        own = [(uuid4(), self.organizations[place]) for place in drawn["groups"]]
        self.groups = dict([*everyone, *own])  # id -> organization
        self.held = []  # (user, role, domain)
        with engine.begin() as connection:
            self.fill(connection, drawn, own)

    def fill(self, connection, drawn, own):
        def put(table, rows):
            if rows:
                connection.execute(sa.insert(getattr(TABLES, table)), rows)

        def hold(user, role, domain):
            self.held.append((user, role, domain))

        put("organizations", [{"id": o, "name": "an organization"} for o in self.organizations])
        put("users", [{"id": user, "name": "somebody"} for user in self.users])
        put(
            "groups",
            [{"id": g, "organization_id": o, "name": str(g)} for g, o in self.groups.items()],
        )
        rows = []
        for user, place in drawn["members"]:
            organization = self.organizations[place]
            rows.append({"organization_id": organization, "user_id": self.users[user]})
            hold(self.users[user], "group-member", f"group:{organization}")
        put("organization_members", rows)
        rows = []
        for user, place in drawn["group_members"]:
            group, organization = own[place]
            ids = {"organization_id": organization, "group_id": group}
            rows.append({**ids, "user_id": self.users[user]})
            hold(self.users[user], "group-member", f"group:{group}")
        put("group_members", rows)
        rows = []
        for user, role, place in drawn["roles"]:
            organization = None if place is None else self.organizations[place]
            ids = {"id": uuid4(), "user_id": self.users[user], "organization_id": organization}
            rows.append({**ids, "role": role})
            hold(
                self.users[user],
                role,
                "site" if place is None else f"organization:{organization}",
            )
        put("role_assignments", rows)
        limits = {"spend_limit_micros": 7, "revision": uuid4()}
        now = {"created_at": sa.func.now(), "updated_at": sa.func.now()}
        for group in self.groups:
            row = {"group_id": group, **limits, **now}
            connection.execute(sa.insert(TABLES.group_ai_budgets).values(row))


class Expected:
    """What must be answered: by stock Casbin, its model as shipped, and `g` lines for the world."""

    def __init__(self, rows, world):
        self.scopes = {role: scope for role, scope, *_ in rows}
        self.world = world
        own = any("group_ai_budget" in row for row in rows)
        self.budget_object = "group_ai_budget" if own else "group"
        held = "".join(f"g, user:{user}, {role}, {domain}\n" for user, role, domain in world.held)
        model = casbin.Enforcer.new_model(text=MODEL.decode())
        text = (write_rows(rows) + held).strip()
        self.enforcer = casbin.Enforcer(model, StringAdapter(text))
        self.allows = cache(self.ask)  # many of the answers below need the same

    def ask(self, user, group, obj, action):
        organization = self.world.groups[group]
        places = (f"organization:{organization}", f"group:{group}", NOWHERE)
        return self.enforcer.enforce(f"user:{user}", *places, obj, action)

    def budget(self, user, group, action, good):
        if self.allows(user, group, self.budget_object, action):
            return good
        known = {self.budget_object, "group"}
        if any(self.allows(user, group, obj, act) for obj in known for act in ("read", "update")):
            return 403
        return 404

    def price(self, user, action, good):
        places = (NOWHERE, NOWHERE, NOWHERE)
        allowed = self.enforcer.enforce(f"user:{user}", *places, "ai_model_price", action)
        return good if allowed else 403

    def listed(self, user, organization):
        groups = [g for g, o in self.world.groups.items() if o == organization]
        here = {"site", f"organization:{organization}", *(f"group:{g}" for g in groups)}
        stands = any(
            who == user and domain in here and self.scopes.get(role) == domain.partition(":")[0]
            for who, role, domain in self.world.held
        )
        if not stands:
            return None
        return {str(g) for g in groups if self.allows(user, g, self.budget_object, "read")}


NEVER = {"If-Match": '"never"'}


def compare(engine, drawn, rows, send):
    """Ask over HTTP as every user about every group, list and price; compare each answer."""
    world = Drawn(engine, drawn)
    expected = Expected(rows, world)
    limit = {"json": {"spend_limit_micros": 7}}
    differences = []

    def check(answer, wanted, *about):
        if answer != wanted:
            differences.append((*about, answer, wanted))

    for user in [*world.users, uuid4()]:
        for group in world.groups:
            path = budget_path(group)
            for method, action, good, options in (
                ("GET", "read", 200, {}),
                ("PUT", "update", 200, limit),
                ("DELETE", "update", 412, {"headers": NEVER}),  # allowed, and leaves it there
            ):
                wanted = expected.budget(user, group, action, good)
                answer = send(method, path, user, **options)
                check(answer.status_code, wanted, method, user, group)
        for organization in world.organizations:
            answer = send("GET", list_path(organization), user)
            found = answer.json.get("budgets")
            listed = None if found is None else {budget["group_id"] for budget in found}
            check(listed, expected.listed(user, organization), "list", user, organization)
        answer = send("GET", "/ai/prices/nobody/nothing", user)
        check(answer.status_code, expected.price(user, "read", 404), "price", user)
        answer = send("PUT", "/ai/prices", user, json=[])
        check(answer.status_code, expected.price(user, "update", 200), "prices", user)
    assert differences == []


many = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
some = settings(many, max_examples=20)


@pytest.fixture(scope="module")
def send(engine):
    """Sends requests to an application with a policy."""
    return lambda policy: Client(make_app(engine, policy=policy))


@pytest.fixture(scope="module")
def send_shipped(send):
    return send(Policy.load(FOLDERS["shipped"]))


@pytest.fixture(scope="module")
def send_dedicated(send):
    return send(Policy.load(FOLDERS["dedicated"]))


def load_rows(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("policy")
    (folder / "model.conf").write_bytes(MODEL)
    (folder / "policy.csv").write_text(write_rows(rows))
    return Policy.load(folder)


@given(worlds())
@some
def test_answers_under_the_shipped_policy_are_stock_casbins(engine, send_shipped, drawn):
    compare(engine, drawn, SHIPPED, send_shipped)


@given(worlds())
@some
def test_answers_under_the_dedicated_policy_are_stock_casbins(engine, send_dedicated, drawn):
    compare(engine, drawn, DEDICATED, send_dedicated)


@given(worlds(), policies())
@many
def test_answers_under_any_policy_are_stock_casbins(engine, send, tmp_path_factory, drawn, rows):
    compare(engine, drawn, rows, send(load_rows(tmp_path_factory, rows)))
