"""`govbudget db grants`: the least rights of a role that serves, and what it can't do with them."""

from __future__ import annotations

import re
from collections import defaultdict
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
import sqlglot
from sqlglot import exp
from tests.commands import as_text
from tests.support import TABLES, World, budget_path, list_path, make_gov, spend_requests

from govbudget.db.sql import prepare
from govbudget.server.app import create_app, make_engine
from govbudget.server.tokens import BearerTokens
from govbudget.statements import list_governed, list_ungoverned
from govbudget.web.routes import list_routes

GRANT = re.compile(r"GRANT ([A-Z, ]+) ON govbudget\.(\w+) TO (\w+);")


def read_grants(run, role="server"):
    """The rights on each table, as they are printed."""
    result = run("db", "grants", role)
    assert (result.status, result.err) == (0, "")
    first, *lines = result.out.splitlines()
    assert first == f"GRANT USAGE ON SCHEMA govbudget TO {role};"
    found = [GRANT.fullmatch(line).groups() for line in lines]
    assert {name for _, _, name in found} == {role}
    return {table: set(rights.split(", ")) for rights, table, _ in found}


def list_texts():
    gov = make_gov()
    for name, one in list_governed().items():
        if name.startswith("closing."):  # of a command, whose role may delete from the ledger
            continue
        for elsewhere in (True, False):
            yield str(gov.find(one, elsewhere=elsewhere, is_first=True))
    for one in list_ungoverned().values():
        yield str(prepare(one.text, gov.settings.layout, (), **one.parts(gov)))


@pytest.mark.slow
def test_the_rights_are_those_that_the_statements_need_and_no_more(run):
    """Each verb of each statement is granted, and each granted verb is some statement's."""
    needed = defaultdict(set)
    verbs = {exp.Insert: "INSERT", exp.Update: "UPDATE", exp.Delete: "DELETE"}
    for text in list_texts():
        tree = sqlglot.parse_one(text, dialect="postgres")
        for lock in tree.find_all(exp.Lock):
            needed[lock.parent.find(exp.Table).name].add("UPDATE")
        for kind, verb in verbs.items():
            for change in tree.find_all(kind):
                table = change.this.find(exp.Table).name
                needed[table].add(verb)
                if table in {t.name for t in TABLES.metadata.tables.values() if "audit" in t.info}:
                    needed["audit_log"].add("INSERT")
                conflict = change.args.get("conflict")
                if conflict is not None and conflict.expressions:
                    needed[table].add("UPDATE")
    granted = {table: rights - {"SELECT"} for table, rights in read_grants(run).items()}
    assert {table: rights for table, rights in granted.items() if rights} == needed


def test_every_table_may_be_read_and_ledger_and_trail_be_added_to_alone(run):
    """The version table too, which `/readyz` reads."""
    granted = read_grants(run)
    tables = {table.name for table in TABLES.metadata.tables.values()}
    assert granted.keys() == {*tables, "alembic_version"}
    assert all("SELECT" in rights for rights in granted.values())
    assert granted["ai_usage"] == granted["audit_log"] == {"SELECT", "INSERT"}
    assert granted["api_tokens"] == {"SELECT"}


def test_a_hosts_own_groups_are_the_hosts_to_grant(run):
    """Names are quoted where they must be."""
    result = run("db", "grants", "my-app", schema="money", groups="public.team.id", id_type="text")
    assert "public" not in result.out
    assert 'GRANT USAGE ON SCHEMA money TO "my-app";' in result.out.splitlines()
    assert 'GRANT SELECT, INSERT ON money.ai_usage TO "my-app";' in result.out.splitlines()


# -- served with nothing else --


@pytest.fixture(scope="module")
def owned(make_database, template):
    """A database of its own, as its owner sees it."""
    engine = sa.create_engine(make_database(template=template), poolclass=sa.NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def role(owned, run):
    """A role with the rights that are printed, and no other."""
    name = f"server_{uuid4().hex[:12]}"
    with owned.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name}")
        connection.exec_driver_sql(run("db", "grants", name).out)
    yield name
    with owned.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name}")
        connection.exec_driver_sql(f"DROP ROLE {name}")


def list_requests(world, model):
    """A request of each route that succeeds, in an order in which it does."""
    price = {"provider": "acme", "model": model, "input_price": 1, "output_price": 1}
    price |= {"cache_read_price": 1, "cache_write_price": 1}
    limit = {"spend_limit_micros": 10**9}
    yield "PUT", "/ai/prices", [price]
    yield "PUT", "/ai/prices", [{**price, "input_price": 2}]
    yield "GET", f"/ai/prices/acme/{model}", None
    for value in (limit, limit):
        yield "PUT", budget_path(world.a1), value
    yield "GET", budget_path(world.a1), None
    yield "GET", list_path(world.a), None
    names = spend_requests(world, model)
    for name in sorted(names, key=lambda n: (n.startswith("delete"), not n.startswith("put"))):
        if "/ai/holds/" in names[name][1]:
            yield spend_requests(world, model)["hold"]
        yield spend_requests(world, model)[name]
    yield "GET", f"/organizations/{world.a}/ai/audit", None
    yield "DELETE", budget_path(world.a1), None


@pytest.mark.slow
def test_every_route_is_served_with_these_rights(owned, role):
    """By the server's own application, as the role; and `/readyz` says that it is ready."""
    world = World(owned)
    world.hold = None
    store = BearerTokens(world.tables)
    with owned.begin() as connection:
        tokens = {
            name: store.create(connection, UUID(str(world.people[name])), 1)
            for name in ("owner", "gateway")
        }
    engine = make_engine(owned.url.update_query_dict({"options": f"-c role={role}"}), 2)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT current_user").scalar_one() == role
    app = create_app(engine, {})
    client, rules = app.test_client(), app.url_map.bind("localhost")
    assert client.get("/readyz").status_code == 200
    asked = set()
    for method, path, body in list_requests(world, "least"):
        of_ledger = path.startswith(("/ai/holds", "/ai/usage"))
        answer = client.open(
            f"/api/v2{path}",
            method=method,
            json=body,
            headers={"Authorization": f"Bearer {tokens['gateway' if of_ledger else 'owner']}"},
        )
        assert answer.status_code < 300, (method, path, answer.get_data(as_text=True))
        world.hold = (answer.json or {}).get("hold_id") if answer.data else world.hold
        asked.add(
            (
                method,
                rules.match(f"/api/v2{path.partition('?')[0]}", method, return_rule=True)[0].rule,
            )
        )
    assert asked == {(route.method, f"/api/v2{route.path}") for route in list_routes()}
    engine.dispose()


@pytest.mark.slow
def test_without_any_one_of_these_rights_it_is_not_ready_and_says_which(owned, role, run):
    """As after an upgrade whose new rights were forgotten: requests would be 500."""
    engine = make_engine(owned.url.update_query_dict({"options": f"-c role={role}"}), 2)
    client = create_app(engine, {}).test_client()
    rights = {(table, right) for table, found in read_grants(run).items() for right in found}
    for table, right in sorted(rights - {("alembic_version", "SELECT")}):
        statement = f"{{}} {right} ON govbudget.{table} {{}} {role}"
        with owned.begin() as connection:
            connection.exec_driver_sql(statement.format("REVOKE", "FROM"))
        ready = client.get("/readyz")
        says = f"the database's role has no {right} on govbudget.{table}; run what "
        assert (ready.status_code, ready.json) == (
            503,
            {"status": says + "`govbudget db grants ROLE` prints"},
        )
        with owned.begin() as connection:
            connection.exec_driver_sql(statement.format("GRANT", "TO"))
    assert client.get("/readyz").status_code == 200
    engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        *(f"UPDATE {{s}}.{table} SET {column} = {column}" for table, column in (
            ("audit_log", "at"), ("ai_usage", "cost_picos"), ("api_tokens", "expires_at"))),
        *(f"{verb} {{s}}.{table}" for verb in ("DELETE FROM", "TRUNCATE")
          for table in ("audit_log", "ai_usage", "users")),
        "INSERT INTO {s}.users VALUES (gen_random_uuid(), 'x')",
        "ALTER TABLE {s}.audit_log DISABLE TRIGGER ALL",
        "DROP TABLE {s}.audit_log",
        "CREATE TABLE {s}.more ()",
    ],
)  # fmt: skip
def test_ledger_and_trail_are_append_only_to_the_server(owned, role, statement):
    """And the directory and its roles are no server's to change."""
    with owned.connect() as connection:
        connection.exec_driver_sql(f"SET ROLE {role}")
        with pytest.raises(sa.exc.ProgrammingError) as refusal:
            connection.exec_driver_sql(statement.format(s="govbudget"))
    assert refusal.value.orig.sqlstate == "42501"


# -- what a server has beyond them --


BEHIND = "CREATE ROLE {r}_o; ALTER SCHEMA {s} OWNER TO {r}_o; GRANT {r}_o TO {r}"


@pytest.fixture
def check(owned, role, run):
    """Log in as the role and run `db check`; give its warnings."""
    with owned.begin() as connection:
        connection.exec_driver_sql(f"ALTER ROLE {role} LOGIN PASSWORD 'word'")
    url = as_text(owned.url.set(username=role, password="word"))

    def check():
        result = run("db", "check", database_url=url)
        assert (result.status, result.err) == (0, "")
        *warnings, last = result.out.splitlines()
        assert last.endswith("as it should be")
        start, end = "warning: the role ", "; to serve with less, see `govbudget db grants`"
        assert all(line.startswith(start) and line.endswith(end) for line in warnings)
        return [line.removeprefix(start).removesuffix(end) for line in warnings]

    return check


@pytest.mark.slow
def test_a_role_with_the_rights_of_the_command_is_checked_without_a_warning(check):
    assert check() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("GRANT UPDATE, DELETE ON {s}.ai_usage TO {r}", "has DELETE on {u}, has UPDATE on {u}"),
        ("GRANT TRUNCATE ON {s}.audit_log TO {r}", "has TRUNCATE on audit_log"),
        ("GRANT TRIGGER ON {s}.group_ai_budgets TO {r}", "has TRIGGER on group_ai_budgets"),
        ("GRANT UPDATE (cost_picos) ON {s}.ai_usage TO {r}", "has UPDATE on {u}"),
        ("GRANT INSERT ON {s}.role_assignments TO {r}", "has INSERT on role_assignments"),
        ("GRANT pg_write_all_data TO {r}", "has INSERT on users"),
        ("GRANT CREATE ON SCHEMA {s} TO {r}", "has CREATE on the schema"),
        ("ALTER TABLE {s}.users OWNER TO {r}", "owns the schema or a part of it"),
        ("ALTER FUNCTION {s}.{f} OWNER TO {r}", "owns the schema or a part of it"),
        (f"{BEHIND}; ALTER ROLE {{r}} NOINHERIT", "owns the schema or a part of it"),
        ("ALTER ROLE {r} CREATEROLE", "can create roles"),
        ("ALTER ROLE {r} SUPERUSER", "is a superuser"),
    ],
)  # fmt: skip
def test_a_right_too_many_is_a_warning_that_names_it(owned, role, check, more, says):
    """A table's, a column's, a membership's, an owner's."""
    with owned.begin() as connection:
        owner = connection.exec_driver_sql("SELECT current_user").scalar_one()
        function = connection.exec_driver_sql(
            "SELECT oid::regprocedure::text FROM pg_proc"
            " WHERE pronamespace = 'govbudget'::regnamespace ORDER BY proname"
        ).scalars().first()  # fmt: skip
        function = function.removeprefix("govbudget.")
        connection.exec_driver_sql(more.format(s="govbudget", r=role, f=function))
    try:
        (warning,) = check()
    finally:
        with owned.begin() as connection:
            for kind, name in (("TABLE", "users"), ("FUNCTION", function)):
                connection.exec_driver_sql(f"ALTER {kind} govbudget.{name} OWNER TO {owner}")
            connection.exec_driver_sql(f"ALTER SCHEMA govbudget OWNER TO {owner}")
            connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}_o")
    assert says.format(u="ai_usage") in warning
    assert warning.startswith(f"`{role}` ")


@pytest.mark.slow
def test_whom_a_role_logged_in_as_counts_too(run, owned, role):
    """It needs no right to become that one again."""
    url = f"{as_text(owned.url)}&options=-c%20role%3D{role}"
    result = run("db", "check", database_url=url)
    assert result.status == 0
    assert f"the role `{owned.url.username}` is a superuser;" in result.out
    assert f"`{role}`" not in result.out


@pytest.mark.parametrize("role", ["", "  ", "public"])
def test_a_role_that_is_everybody_or_nobody_is_refused(run, role):
    """PostgreSQL takes `public` for everybody, also in quotes."""
    result = run("db", "grants", role)
    assert (result.status, result.out) == (2, "")
    assert "ROLE is the name of one database role" in result.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        ("role={role}", "spend close 2020-01 --to {file}", "connect as a role that may"),
        ("role={role}", "token revoke {token}", "connect as a role that may"),
        ("role={role}", "db upgrade", "connect as a role that may"),
        ("statement_timeout=1s", "prices gaps", "PGOPTIONS='-c statement_timeout=0 -c"),
        ("transaction_timeout=1s", "spend verify", "PGOPTIONS='-c transaction_timeout=0'"),
        ("default_transaction_read_only=on", "notices sweep", "name the primary"),
    ],
    ids=lambda case: case[1].partition(" --")[0],
)
def test_a_command_that_the_database_refuses_says_what_to_do(run, owned, role, tmp_path, case):
    """In one line, and nothing is half done: no file is left, and no month is marked."""
    options, arguments, says = case
    url = owned.url.set(query={**owned.url.query, "options": f"-c{options.format(role=role)}"})
    names = {"file": tmp_path / "file", "token": uuid4()}
    with owned.connect() as connection:
        if "transaction_timeout" in options and connection.dialect.server_version_info < (17,):
            pytest.skip("this PostgreSQL has no such setting")
        if "timeout" in options:  # what waits for a statement's answer is told why there is none
            connection.exec_driver_sql("LOCK TABLE govbudget.ai_usage")
        done = run(*arguments.format(**names).split(), database_url=as_text(url))
    assert done.status == 2
    assert done.sentence.startswith("the database refused: ")
    assert says in done.sentence
    assert list(tmp_path.iterdir()) == []
    with owned.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM govbudget.ai_closings").all() == []
