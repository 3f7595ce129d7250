"""Worlds, applications and statement counting for the tests."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from uuid import uuid4

import sqlalchemy as sa
from flask import Flask, request
from tests.web.conformance import check_answer

from govbudget import GovBudget, Layout, Policy
from govbudget.db.gov import Gov, leave_to_database
from govbudget.db.tables import Tables
from govbudget.db.unit import Unit
from govbudget.directory.sql import own_directory
from govbudget.settings import Settings
from govbudget.web.routes import list_routes

TABLES = Tables(Layout())
ROUTES = list_routes()
packaged_policy = cache(Policy.load)


def make_gov(policy=None, engine=None, directory=None, clock=leave_to_database, **settings):
    """What units of work are opened from, over govbudget's own tables or another directory."""
    found = Settings(**settings)
    directory = directory or own_directory(Tables(found.layout))
    return Gov(found, policy or packaged_policy(), directory, lambda: engine, clock)


def authorize(connection, person, action, *, policy=None, gov=None, **asked):
    """Give the grant of a unit on the connection, which stays open."""
    return Unit(gov or make_gov(policy), person, connection, None).authorize(action, **asked)


BUDGET_TABLES = re.compile(
    r"\b(group_ai_budgets|ai_model_prices|member_ai_overrides|ai_(holds|usage|spend_\w+))\b"
)


class World:
    """Organizations `a` and `b`, each with groups; people named for the role they hold.

    `member` is in group `a1`, `outsider` in `b1`, `joined` in organization a and no group of it,
    `nobody` is nowhere, `gateway` a service of the site; `stranger` has no row at all.
    """

    def __init__(self, engine):
        self.engine = engine
        self.tables = TABLES
        self.directory = own_directory(TABLES)
        names = (
            "owner",
            "org_admin",
            "user_admin",
            "member",
            "joined",
            "outsider",
            "b_admin",
            "gateway",
        )
        self.people = {name: uuid4() for name in (*names, "nobody")}
        self.stranger = uuid4()
        self.a, self.b = uuid4(), uuid4()
        with engine.begin() as connection:
            self._put(connection, "users", [{"id": i, "name": n} for n, i in self.people.items()])
            for organization in (self.a, self.b):
                self.add_organization(connection, organization)
            self.a1, self.a2, self.b1 = (
                self.add_group(connection, organization)
                for organization in (self.a, self.a, self.b)
            )
            for person in ("org_admin", "user_admin", "member", "joined"):
                self.join(connection, self.a, person)
            for person in ("outsider", "b_admin"):
                self.join(connection, self.b, person)
            self.join_group(connection, self.a, self.a1, "member")
            self.join_group(connection, self.b, self.b1, "outsider")
            self.assign(connection, "owner", "owner", None)
            self.assign(connection, "org_admin", "org-admin", self.a)
            self.assign(connection, "user_admin", "user-admin", self.a)
            self.assign(connection, "b_admin", "org-admin", self.b)
            self.assign(connection, "gateway", "gateway", None)

    def __getattr__(self, name):
        try:
            return self.__dict__["people"][name]
        except KeyError:
            raise AttributeError(name) from None

    def _put(self, connection, table, rows):
        connection.execute(sa.insert(getattr(self.tables, table)), rows)

    def add_organization(self, connection, organization):
        self._put(connection, "organizations", [{"id": organization, "name": "an organization"}])
        everyone = {"id": organization, "organization_id": organization, "name": "Everyone"}
        self._put(connection, "groups", [everyone])

    def add_group(self, connection, organization, group=None):
        group = group or uuid4()
        row = {"id": group, "organization_id": organization, "name": "a group"}
        self._put(connection, "groups", [row])
        return group

    def join(self, connection, organization, person):
        row = {"organization_id": organization, "user_id": self.people.get(person, person)}
        self._put(connection, "organization_members", [row])

    def join_group(self, connection, organization, group, person):
        user = self.people.get(person, person)
        row = {"organization_id": organization, "group_id": group, "user_id": user}
        self._put(connection, "group_members", [row])

    def assign(self, connection, person, role, organization):
        user = self.people.get(person, person)
        row = {"id": uuid4(), "user_id": user, "role": role, "organization_id": organization}
        self._put(connection, "role_assignments", [row])


def make_app(engine, config=None, **arguments):
    """An application whose callers say who they are in a header."""
    app = Flask(__name__)
    app.config.update(config or {})
    arguments.setdefault("identify", lambda: request.headers.get("X-User"))
    if not {key for key in app.config if key.startswith(("GOVBUDGET_POLICY", "GOVBUDGET_BUDGET"))}:
        arguments.setdefault("policy", packaged_policy())  # read once for all of them
    GovBudget(app, engine=engine, **arguments)
    return app


class Client:
    """Sends requests as people of a world, and holds the answers to the OpenAPI document."""

    def __init__(self, app, prefix="/api/v2"):
        self.app, self.prefix = app, prefix
        self.client = app.test_client()

    def __call__(self, method, path, person=None, *, headers=None, **options):
        headers = dict(headers or {})
        if person is not None:
            headers["X-User"] = str(person)
        response = self.client.open(self.prefix + path, method=method, headers=headers, **options)
        check_answer(self.app, response)
        return response


def budget_path(group):
    return f"/groups/{group}/ai/budget"


def list_path(organization):
    return f"/organizations/{organization}/ai/budgets"


def spend_requests(town, model):
    """The method, path and body of each route of spend, of acme's model and `town.hold`."""
    member = f"/organizations/{town.a}/members/{town.member}/ai"
    who = {"organization_id": str(town.a), "user_id": str(town.member)}
    call = {**who, "provider": "acme", "model": model, "tokens": {"input": 1}}
    hold, override = f"/ai/holds/{town.hold}", f"{member}/budget/override"
    limit = {"group_id": str(town.a1), "spend_limit_micros": 10**12}
    return {
        "hold": ("POST", "/ai/holds", call),
        "settle": ("POST", f"{hold}/settle", {"event_id": "settled", "tokens": {}}),
        "release": ("DELETE", hold, None),
        "record": ("POST", "/ai/usage", {**call, "event_id": "recorded"}),
        "get override": ("GET", override, None),
        "put override": ("PUT", override, limit),
        "delete override": ("DELETE", override, None),
        "member spend": ("GET", f"{member}/spend", None),
        "group spend": ("GET", f"/groups/{town.a1}/ai/spend", None),
        "members spend": ("GET", f"/groups/{town.a1}/members/ai/spend", None),
        "groups spend": ("GET", f"/organizations/{town.a}/groups/ai/spend", None),
    }


@contextmanager
def count_statements(engine):
    """Collect the statements that an engine sends."""
    seen = SimpleNamespace(sent=[])

    def listen(_conn, _cursor, statement, _parameters, _context, _many):
        seen.sent.append(statement)

    sa.event.listen(engine, "before_cursor_execute", listen)
    try:
        yield seen.sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", listen)


def wait_for_waiters(engine, count=1):
    """Wait until so many statements in this database wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    waiting += "AND wait_event_type = 'Lock'"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(500):
            if connection.exec_driver_sql(waiting).scalar_one() == count:
                return
            time.sleep(0.01)
    message = "too few came to wait for a lock"
    raise AssertionError(message)


def names_budget_table(statement):
    """Whether a statement names a table that only an authorized request may touch."""
    return BUDGET_TABLES.search(statement) is not None
