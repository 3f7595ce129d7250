"""What a database sets for its sessions: every route and every command works, or writes nothing."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import ExitStack
from itertools import count
from uuid import UUID

import click
import pytest
import sqlalchemy as sa
from tests.cli.test_db_grants import list_requests
from tests.cli.test_usage import list_commands
from tests.commands import as_text
from tests.support import TABLES, World, make_app

from govbudget.authz.files import packaged_policy_dir
from govbudget.db.connection import normalize_url
from govbudget.db.own_pool import find_own
from govbudget.server.app import create_app, make_engine
from govbudget.server.tokens import BearerTokens
from govbudget.web.routes import list_routes

pytestmark = pytest.mark.long

# Each a database of its own. Everything works there as without them. Settings about different
# things share a database: each walk takes seconds, and none hides what another one does.
HARMLESS = {
    "SQL dates, a zone, Latin clients, no search path, serializable, old strings": [
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'sql_standard'",
        "TimeZone = 'Asia/Kolkata'",
        "client_encoding = 'LATIN1'",
        "search_path = ''",
        "default_transaction_isolation = 'serializable'",
        "standard_conforming_strings = off",
        "backslash_quote = off",
        "bytea_output = 'escape'",
    ],
    "German dates, a zone without a name, clients of no encoding, our schema first": [
        "DateStyle = 'German'",
        "IntervalStyle = 'postgres_verbose'",
        "TimeZone = '<-03>3'",
        "client_encoding = 'SQL_ASCII'",
        "search_path = 'govbudget', 'pg_catalog'",
        "default_transaction_isolation = 'repeatable read'",
        "default_transaction_deferrable = on",
        "quote_all_identifiers = on",
    ],
    "Postgres dates, floats, row security, PL/pgSQL, no timeouts": [
        "DateStyle = 'Postgres, MDY'",
        "IntervalStyle = 'iso_8601'",
        "extra_float_digits = -15",
        "transform_null_equals = on",
        "array_nulls = off",
        "row_security = off",
        "plpgsql.variable_conflict = 'use_column'",
        "plpgsql.extra_errors = 'all'",
        "statement_timeout = 0",
        "lock_timeout = 0",
    ],
}
# A request or a command may be refused there. One that is has written nothing.
HINDERING = {
    "read-only": ["default_transaction_read_only = on"],
    "no time": ["statement_timeout = 1", "lock_timeout = 1"],
}
# What each command is given; `{x}` is the world's.
ARGUMENTS = {
    "audit export": "",
    "budget set": "{a1} --usd 20",
    "budget show": "{a1}",
    "budget list": "{a}",
    "budget clear": "{a1}",
    "budgets apply": "{limits}",
    "budgets export": "{a}",
    "db check": "",
    "db current": "",
    "db grants": "server",
    "db sql": "",
    "db upgrade": "",
    "directory check": "",
    "directory find": "a",
    "directory load": "{file} --dry-run",
    "notices list": "{a}",
    "notices sweep": "",
    "policy check": "",
    "policy diff": "{policy} {policy} --people",
    "policy explain": "--user {member} --object group --group {a1} --action read",
    "policy matrix": "",
    "policy who": "read group --organization {a}",
    "prices gaps": "",
    "prices load": "--shipped",
    "prices history": "openai gpt-4o",
    "prices show": "openai gpt-4o",
    "prices remove": "acme served",
    "spend close": "2020-01 --to {closed}",
    "spend export": "--organization {a}",
    "spend member": "{a} {member}",
    "spend report": "--organization {a}",
    "spend verify": "",
    "token create": "{member}",
    "token list": "",
    "token revoke": "{token}",
}
# What the server sets for each of its sessions.
SET = ("DateStyle", "TimeZone", "default_transaction_isolation", "client_encoding")
SERVING = {"serve", "demo"}  # the routes are what they do
STORED = " UNION ALL ".join(
    f"SELECT '{table.name}', md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t"
    for table in TABLES.metadata.sorted_tables
)
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME_TEXT = re.compile(r"20\d\d-\d\d-\d\d(T[\d:.]+(Z|\+00:00))?")


class Walk:
    """Sends a request to every route, of `serve` and of a host, and runs every command.

    Ids of the world are the same in each walk; other ids, and times, are not compared.
    """

    def __init__(self, url, settings, run, folder, monkeypatch):
        ids = count(1)
        monkeypatch.setattr("tests.support.uuid4", lambda: UUID(int=next(ids)))
        self.url, self.run_command = url, run
        # SQLAlchemy itself can't connect to SQL_ASCII: such a host names another one.
        ascii_alone = "client_encoding = 'SQL_ASCII'" in settings
        self.of_host = {"client_encoding": "utf8"} if ascii_alone else {}
        self.admin = sa.create_engine(
            url,
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"options": "-c statement_timeout=0", "client_encoding": "utf8"},
        )
        self.world = world = World(self.admin)
        store = BearerTokens(TABLES)
        with self.admin.connect() as connection:
            self.tokens = {
                name: store.create(connection, world.people[name], 1)
                for name in ("owner", "gateway", "nobody")
            }
            query = f"SELECT id FROM {TABLES.api_tokens} WHERE user_id = '{world.nobody}'"
            token = connection.exec_driver_sql(query).scalar_one()
            for setting in settings:
                connection.exec_driver_sql(f"ALTER DATABASE {url.database} SET {setting}")
        file, policy = folder / "directory.json", folder / "policy"
        file.write_text(json.dumps({"users": [{"id": str(world.member), "name": "Zoë"}]}))
        limits = folder / "limits.json"
        entry = {"group_id": str(world.a1), "spend_limit_micros": 7}
        content = {"organization_id": str(world.a), "limits": [entry], "overrides": []}
        limits.write_text(json.dumps(content))
        self.names = {"closed": folder / "closed", "file": file, "policy": policy, "token": token}
        self.names["limits"] = limits
        self.names["closed"].unlink(missing_ok=True)  # of the walk before: a closing refuses it
        self.names |= {name: getattr(world, name) for name in ("a", "a1", "member")}
        self.stack = ExitStack()

    def read_stored(self):
        with self.admin.connect() as connection:
            return dict(connection.exec_driver_sql(STORED).all())

    def list_steps(self):
        """Give each step by its name: a function that gives status and answer."""
        yield from self.list_requests()
        done = {}
        for path, command in list_commands():
            if not isinstance(command, click.Group) and path[0] not in SERVING:
                done[" ".join(path)] = path
        assert done.keys() == ARGUMENTS.keys()
        for name, arguments in ARGUMENTS.items():
            given = arguments.format(**self.names).split()
            yield name, lambda path=done[name], given=given: self.send_command(*path, *given)

    def send_command(self, *arguments):
        result = self.run_command(*arguments, database_url=as_text(self.url))
        assert "Traceback" not in result.err
        return result.status, result.out or result.err

    def list_requests(self):
        engine = make_engine(normalize_url(as_text(self.url)), 2)
        theirs = sa.create_engine(self.url, connect_args=self.of_host)
        for one in (engine, theirs):
            self.stack.callback(one.dispose)
        served, hosted = create_app(engine, {}).test_client(), make_app(theirs).test_client()
        for client, model in ((served, "served"), (hosted, "hosted")):
            asked = []
            self.world.hold = None
            for method, path, body in list_requests(self.world, model):
                ledger = path.startswith(("/ai/holds", "/ai/usage"))
                if body and "event_id" in body:
                    body["event_id"] += model
                asked.append(method)
                yield (
                    f"{method} {self.hide(path)} {model}",
                    lambda a=(client, method, path, body, ledger): self.send(*a),
                )
            assert len(asked) >= len(list_routes())
        yield "the server's session", lambda: self.read_session(engine)

    def read_session(self, engine):
        """What the server's sessions have of what a database may set for its own."""
        with find_own(engine).connect() as connection:
            found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in SET}
        return 0, json.dumps(found)

    def send(self, client, method, path, body, ledger):
        person = "gateway" if ledger else "owner"
        headers = {"Authorization": f"Bearer {self.tokens[person]}"}
        headers["X-User"] = str(self.world.people[person])
        answer = client.open(f"/api/v2{path}", method=method, json=body, headers=headers)
        assert answer.status_code != 500, (method, path)
        self.world.hold = (answer.json or {}).get("hold_id") if answer.data else self.world.hold
        return answer.status_code, answer.get_data(as_text=True)

    def hide(self, text):
        """What is compared of an answer."""
        known = {str(value) for value in vars(self.world).values() if isinstance(value, UUID)}
        known |= {str(person) for person in self.world.people.values()}
        text = UUID_TEXT.sub(lambda m: m[0] if m[0] in known else "ID", text)
        text = re.sub(r"gbt_[\w-]+|\b[0-9a-f]{32}\b", "SECRET OR REQUEST", text)
        return TIME_TEXT.sub("TIME", text)


def is_refused(status, text):
    return status in {2, 503}


@pytest.fixture(scope="module")
def start_walk(make_database, template, tmp_path_factory):
    folder = tmp_path_factory.mktemp("defaults")
    shutil.copytree(packaged_policy_dir(), folder / "policy")
    walks = []

    def start(settings, run, monkeypatch):
        walk = Walk(make_database(template=template), settings, run, folder, monkeypatch)
        walks.append(walk)
        return walk

    yield start
    for walk in walks:
        walk.stack.close()


@pytest.fixture(scope="module")
def expected():
    """The answers without any setting, once they are known."""
    return []


def walk_plainly(walk, expected):
    for name, step in walk.list_steps():
        status, text = step()
        assert not is_refused(status, text), (name, text)
        expected.append((name, status, walk.hide(text)))


@pytest.mark.parametrize("settings", HARMLESS.values(), ids=HARMLESS)
def test_every_answer_is_as_without_the_settings(start_walk, run, monkeypatch, settings, expected):
    if not expected:
        walk_plainly(start_walk([], run, monkeypatch), expected)
        assert len(expected) > 40
    walk = start_walk(settings, run, monkeypatch)
    for (name, step), known in zip(walk.list_steps(), expected, strict=True):
        status, text = step()
        assert (name, status, walk.hide(text)) == known


@pytest.mark.parametrize("settings", HINDERING.values(), ids=HINDERING)
def test_what_is_refused_has_written_nothing(start_walk, run, monkeypatch, settings):
    walk = start_walk(settings, run, monkeypatch)
    refused = []
    for name, step in walk.list_steps():
        before = walk.read_stored()
        status, text = step()
        if is_refused(status, text):
            refused.append(name)
            assert walk.read_stored() == before, (name, text)
    assert refused


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused_by_all(make_database, run, encoding):
    """Nothing can be stored in it: `db upgrade` is refused as well."""
    url = make_database(template=f"template0 ENCODING '{encoding}' LOCALE 'C'")
    engine = make_engine(normalize_url(as_text(url)), 2)
    client = create_app(engine, {}).test_client()
    for route in list_routes():
        path = re.sub(r"<[^>]+>", str(UUID(int=1)), route.path)
        headers = {"Authorization": f"Bearer gbt_{'x' * 43}"}
        answer = client.open(f"/api/v2{path}", method=route.method, headers=headers)
        assert answer.status_code == 503, (route.path, answer.data)
    assert client.get("/readyz").status_code == 503
    engine.dispose()
    result = run("db", "upgrade", database_url=as_text(url))
    assert (result.status, encoding in result.sentence) == (2, True)
