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
from govbudget.settings import Settings, read_settings
from govbudget.web.routes import list_routes

TABLES = Tables(Layout())
ROUTES = list_routes()
packaged_policy = cache(Policy.load)


@cache
def find_directory(layout):
    """Give the directory over govbudget's own tables; it is described once for all tests."""
    return own_directory(TABLES if layout == TABLES.layout else Tables(layout))


def make_gov(policy=None, engine=None, directory=None, clock=leave_to_database, **settings):
    """What units of work are opened from, over govbudget's own tables or another directory."""
    found = Settings(**settings)
    directory = directory or find_directory(found.layout)
    return Gov(found, policy or packaged_policy(), directory, lambda _: engine, clock)


def authorize(connection, person, action, *, policy=None, gov=None, **asked):
    """Give the grant of a unit on the connection, which stays open."""
    return Unit(gov or find_gov(policy), person, connection, None).authorize(action, **asked)


find_gov = cache(make_gov)  # its statements are prepared once for all tests


BUDGET_TABLES = re.compile(
    r"\b(group_ai_budgets|ai_model_prices|member_ai_overrides|ai_(holds|usage|notices|refusals|spend_\w+))\b"
)


class World:
    """Organizations `a` and `b`, each with groups; people named for the role they hold.

    `member` is in group `a1`, `outsider` in `b1`, `joined` in organization a and no group of it,
    `nobody` is nowhere, `gateway` a service of the site; `stranger` has no row at all.
    """

    def __init__(self, engine):
        self.engine = engine
        self.tables = TABLES
        self.directory = find_directory(TABLES.layout)
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
        self.hold = None  # the id of one, where a test makes it
        self.a, self.b = uuid4(), uuid4()
        self.a1, self.a2, self.b1 = uuid4(), uuid4(), uuid4()
        members = [(self.a, p) for p in ("org_admin", "user_admin", "member", "joined")]
        members += [(self.b, p) for p in ("outsider", "b_admin")]
        roles = {
            "owner": ("owner", None),
            "org_admin": ("org-admin", self.a),
            "user_admin": ("user-admin", self.a),
            "b_admin": ("org-admin", self.b),
            "gateway": ("gateway", None),
        }
        organizations, everyone = self._organizations(self.a, self.b)
        groups = [(self.a, self.a1), (self.a, self.a2), (self.b, self.b1)]
        in_groups = [(self.a, self.a1, "member"), (self.b, self.b1, "outsider")]
        rows = {
            "users": [{"id": i, "name": name} for name, i in self.people.items()],
            "organizations": organizations,
            "groups": everyone + [self._group(*group) for group in groups],
            "organization_members": [self._member(*member) for member in members],
            "group_members": [self._in_group(*row) for row in in_groups],
            "role_assignments": [self._held(person, *role) for person, role in roles.items()],
        }
        with engine.begin() as connection:
            connection.exec_driver_sql("".join(self._write(*table) for table in rows.items()))

    def __getattr__(self, name):
        try:
            return self.__dict__["people"][name]
        except KeyError:
            raise AttributeError(name) from None

    def _write(self, table, rows):
        """The SQL of rows of ids and plain words; it is sent at once, as tests make many worlds."""
        values = (
            ", ".join("NULL" if v is None else f"'{v}'" for v in row.values()) for row in rows
        )
        name = getattr(self.tables, table).fullname
        return f"INSERT INTO {name} ({', '.join(rows[0])}) VALUES ({'), ('.join(values)});"

    def _put(self, connection, table, *rows):
        connection.execute(sa.insert(getattr(self.tables, table)), rows)

    def _find(self, person):
        return self.people.get(person, person)

    def _group(self, organization, group):
        return {"id": group, "organization_id": organization, "name": "a group"}

    def _member(self, organization, person):
        return {"organization_id": organization, "user_id": self._find(person)}

    def _in_group(self, organization, group, person):
        user = self._find(person)
        return {"organization_id": organization, "group_id": group, "user_id": user}

    def _held(self, person, role, organization):
        user = self._find(person)
        return {"id": uuid4(), "user_id": user, "role": role, "organization_id": organization}

    def _organizations(self, *ids):
        rows = [{"id": id_, "name": "an organization"} for id_ in ids]
        return rows, [{**self._group(id_, id_), "name": "Everyone"} for id_ in ids]

    def add_organization(self, connection, *ids):
        organizations, everyone = self._organizations(*ids)
        self._put(connection, "organizations", *organizations)
        self._put(connection, "groups", *everyone)

    def add_group(self, connection, organization, group=None):
        group = group or uuid4()
        self._put(connection, "groups", self._group(organization, group))
        return group

    def join(self, connection, organization, person):
        self._put(connection, "organization_members", self._member(organization, person))

    def join_group(self, connection, organization, group, person):
        self._put(connection, "group_members", self._in_group(organization, group, person))

    def assign(self, connection, person, role, organization):
        self._put(connection, "role_assignments", self._held(person, role, organization))


def make_app(engine, config=None, **arguments):
    """An application whose callers say who they are in a header."""
    app = Flask(__name__)
    app.config.update(config or {})
    layout = read_settings(app.config).layout
    if layout.owns_directory:
        arguments.setdefault("directory", find_directory(layout))  # described once for all of them
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
    """The method, path and body of each route of spend, of acme's model and `town.hold`.

    What is extended is `town.open_hold`, where there is one.
    """
    member = f"/organizations/{town.a}/members/{town.member}/ai"
    who = {"organization_id": str(town.a), "user_id": str(town.member)}
    call = {**who, "provider": "acme", "model": model, "tokens": {"input": 1}}
    hold, override = f"/ai/holds/{town.hold}", f"{member}/budget/override"
    limit = {"group_id": str(town.a1), "spend_limit_micros": 10**12}
    correction = {"event_id": "corrected", "organization_id": str(town.a), "corrects": "recorded"}
    correction |= {"tokens": {"input": 1}, "reason": "a test"}
    opened = getattr(town, "open_hold", None) or town.hold
    return {
        "hold": ("POST", "/ai/holds", call),
        "find hold": ("GET", hold, None),
        "extend": ("POST", f"/ai/holds/{opened}/extend", {"ttl_seconds": 60}),
        "settle": ("POST", f"{hold}/settle", {"event_id": "settled", "tokens": {}}),
        "release": ("DELETE", hold, None),
        "record": ("POST", "/ai/usage", {**call, "event_id": "recorded"}),
        "correct": ("POST", "/ai/corrections", correction),
        "get override": ("GET", override, None),
        "put override": ("PUT", override, limit),
        "delete override": ("DELETE", override, None),
        "member spend": ("GET", f"{member}/spend", None),
        "group spend": ("GET", f"/groups/{town.a1}/ai/spend", None),
        "members spend": ("GET", f"/groups/{town.a1}/members/ai/spend", None),
        "groups spend": ("GET", f"/organizations/{town.a}/groups/ai/spend", None),
        "notices": ("GET", f"/organizations/{town.a}/ai/notices", None),
        "report": ("GET", f"/organizations/{town.a}/ai/spend?from=2026-01-01&to=2027-01-01", None),
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


# How many in this database wait for a lock: for a transaction in which `pg_stat_activity` stands
# still. Of the others on the server, nothing is counted.
WAITING = """
    SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_locks
    JOIN pg_database ON pg_database.oid = database AND datname = current_database())
"""


def wait_for_waiters(engine, count=1):
    """Wait until so many statements in this database wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    waiting += "AND wait_event_type = 'Lock'"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(3_000):
            if connection.exec_driver_sql(waiting).scalar_one() == count:
                return
            time.sleep(0.01)
    message = "too few came to wait for a lock"
    raise AssertionError(message)


def measure_slowness():
    """How many times slower this machine is now than it was once: a loop took 7 ms then.

    A machine that others share is several times slower for hours. What may take some time is
    allowed so much more.
    """
    start, count = time.process_time(), 0
    while count < 250_000:
        count += 1
    return max(1, (time.process_time() - start) / 0.007)


def names_budget_table(statement):
    """Whether a statement names a table that only an authorized request may touch."""
    return BUDGET_TABLES.search(statement) is not None
