"""Upgrades: of revision 0004 with data in it, as SQL, beside others, and given up."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from tests.migrations.support import (
    SQL_TYPES,
    make_host_tables,
    make_revision_0004,
    read_schema,
)

from govbudget import IdType, Layout, SettingsError
from govbudget.cli import cli
from govbudget.cli.database import _upgrade
from govbudget.db.tables import Tables
from govbudget.migrations import (
    find_differences,
    head_revision,
    read_revision,
    upgrade,
    write_sql,
)
from govbudget.settings import Settings

pytestmark = pytest.mark.long

START = "0004"  # the oldest revision that is taken along
LAYOUTS = [
    Layout(),
    Layout(IdType.BIGINT, groups="host.teams.id"),
    Layout(IdType.TEXT, schema="order", groups="none"),  # a word of SQL
]
every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: str(layout.id_type))


@pytest.fixture(scope="module")
def empty_url(make_database):
    return make_database()


@pytest.fixture
def connection(empty_url):
    """Give a transaction in a database without anything; it is rolled back."""
    engine = sa.create_engine(empty_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def url(make_database):
    """Give an empty database to commit in."""
    return make_database()


def open_engine(url, **options):
    return sa.create_engine(url, poolclass=sa.NullPool, **options)


def as_text(url):
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def run(url, *arguments):
    return CliRunner().invoke(cli, arguments, env={"GOVBUDGET_DATABASE_URL": as_text(url)})


# -- from 0004, with data in it --

# One value a type, the same in every row: so every foreign key finds what it refers to.
VALUES = {
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "bigint": 7,
    "text": "seven",
    "boolean": False,
    "bytea": b"seven",
    "jsonb": '{"actor": null, "cause": "direct"}',
    "timestamp with time zone": "2026-01-02T03:04:05+00:00",
    "date": "2026-01-01",
    "numeric": 7,
    "text[]": ["seven"],
}
# Columns that may hold a few words only; and the rollup is of the one call of the ledger.
WORDS = {"source": "book", "grain": "day", "calls": 1, "unpriced_calls": 0}
COLUMNS = sa.text("""
    SELECT a.attname, format_type(a.atttypid, NULL)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = :name AND a.attnum > 0 AND NOT a.attisdropped
      AND a.attgenerated = ''
    ORDER BY a.attnum
""")


def fill(connection, schema):
    """Put one row with a value in each column into every table, those referred to first."""
    metadata = sa.MetaData()
    metadata.reflect(connection, schema=schema)
    quote = connection.dialect.identifier_preparer.quote
    for table in metadata.sorted_tables:
        if table.schema != schema or table.name == "alembic_version":
            continue
        columns = connection.execute(COLUMNS, {"schema": schema, "name": table.name}).all()
        names = ", ".join(quote(name) for name, _ in columns)
        marks = ", ".join(f"CAST(:{name} AS {kind})" for name, kind in columns)
        insert = f"INSERT INTO {quote(schema)}.{table.name} ({names}) VALUES ({marks})"
        connection.execute(sa.text(insert), {n: WORDS.get(n, VALUES[kind]) for n, kind in columns})


def read_rows(connection, schema):
    """Read every row, as text, by table."""
    names = sa.inspect(connection).get_table_names(schema=schema)
    quote = connection.dialect.identifier_preparer.quote
    return {
        name: connection.exec_driver_sql(f"SELECT * FROM {quote(schema)}.{name}").mappings().all()
        for name in sorted(names)
        if name != "alembic_version"
    }


def contains(rows, row):
    """Whether one of the rows has all that the row had."""
    return any(row.items() <= other.items() for other in map(Hashable, rows))


class Hashable(dict):
    """A row whose values are compared as text."""

    def __init__(self, row):
        super().__init__((name, str(value)) for name, value in row.items())


@every_layout
def test_an_upgrade_keeps_every_row_and_ends_as_a_new_installation(connection, layout):
    """Tables, checks, indexes, triggers, functions and storage; with a value in each column."""
    make_host_tables(connection, layout)
    connection.execute(sa.text("INSERT INTO host.teams VALUES (:id)"), {"id": host_id(layout)})
    make_revision_0004(connection, layout)
    assert read_revision(connection, layout) == START
    fill(connection, layout.schema)
    before = read_rows(connection, layout.schema)
    assert len(before) >= 8
    assert all(before.values())
    upgrade(connection, layout)
    after = read_rows(connection, layout.schema)
    lost = {
        name: row
        for name, rows in before.items()
        for row in map(Hashable, rows)
        if not contains(after.get(name, []), row)
    }
    assert lost == {}
    assert find_differences(connection, layout) == []
    new = Layout(layout.id_type, "brand_new", layout.groups)
    upgrade(connection, new)
    assert read_schema(connection, layout.schema) == read_schema(connection, "brand_new")


def host_id(layout):
    return VALUES[SQL_TYPES[layout.id_type]]


def test_both_roads_are_compared_in_all_that_the_catalog_knows(connection):
    """So that the test above can't pass by looking at nothing."""
    upgrade(connection)
    kinds = Counter(kind for kind, *_ in read_schema(connection, "govbudget"))
    assert set(kinds) == {"column", "constraint", "index", "relation", "function", "trigger"}
    assert min(kinds.values()) >= 3
    text = str(read_schema(connection, "govbudget"))
    assert "fillfactor=50" in text
    assert "ai_usage_cost_check" in text


@every_layout
def test_an_upgraded_budget_is_audited_like_any_other(connection, layout):
    """What happens to a row from before leaves its entry."""
    make_host_tables(connection, layout)
    connection.execute(sa.text("INSERT INTO host.teams VALUES (:id)"), {"id": host_id(layout)})
    make_revision_0004(connection, layout)
    fill(connection, layout.schema)
    upgrade(connection, layout)
    tables = Tables(layout)
    log = tables.audit_log
    kept = sa.select(sa.func.count()).select_from(log)
    before = connection.scalar(kept)
    connection.execute(sa.update(tables.group_ai_budgets).values(spend_limit_micros=8))
    entries = connection.execute(sa.select(log.c.before, log.c.after).order_by(log.c.at)).all()
    assert len(entries) == before + 1
    assert entries[-1] == ({"spend_limit_micros": 7}, {"spend_limit_micros": 8})


def test_usage_of_before_keeps_its_cost_and_names_the_units_without_a_price(connection):
    """A cost that was null stays so."""
    make_revision_0004(connection)
    insert = (
        "INSERT INTO govbudget.ai_usage (organization_id, event_id, user_id, period, day, provider,"
        " model, input_price, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,"
        " cost_picos) SELECT '{0}', e, '{0}', '2026-11-01', '2026-11-02', 'acme', 'm', p, i, o, c,"
        " 0, cost FROM (VALUES ('none', 1, 5, 0, 0, 5), ('part', 1, 5, 2, 3, NULL),"
        " ('all', NULL, 5, 0, 0, NULL), ('held', 1, 5, 0, 3, 9),"
        " ('no tokens', NULL, 0, 0, 0, NULL))"
        " AS v (e, p, i, o, c, cost)"
    )
    connection.exec_driver_sql(insert.format(VALUES["uuid"]))
    upgrade(connection, Layout())
    read = "SELECT event_id, cost_picos{} FROM govbudget.ai_usage"
    assert set(connection.exec_driver_sql(read.format(", unpriced::text"))) == {
        ("none", 5, None),
        ("part", None, "{output,cache_read}"),
        ("all", None, "{input}"),
        ("held", 9, "{cache_read}"),
        ("no tokens", None, None),
    }


# -- as SQL, for a DBA --


def start_from(connection, layout, start):
    if start is not None:
        make_revision_0004(connection, layout)


def describe(engine, layout):
    with engine.connect() as connection:
        return (
            read_revision(connection, layout),
            read_schema(connection, layout.schema),
            find_differences(connection, layout),
        )


@pytest.mark.parametrize(
    ("layout", "start"),
    [
        pytest.param(
            layout,
            start,
            id=f"{layout.id_type}-{start}",
            marks=() if start is None or layout is LAYOUTS[0] else pytest.mark.long,
        )
        for layout in LAYOUTS
        for start in (None, START)
    ],
)
def test_the_printed_sql_does_what_the_command_does(make_database, layout, start):
    by_hand, by_command = open_engine(make_database()), open_engine(make_database())
    for engine in (by_hand, by_command):
        with engine.begin() as connection:
            make_host_tables(connection, layout)
            start_from(connection, layout, start)
    with by_hand.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.connection.driver_connection.execute(write_sql(layout, start))
    with by_command.begin() as connection:
        upgrade(connection, layout)
    described = describe(by_hand, layout)
    assert described == describe(by_command, layout)
    revision, _, differences = described
    assert (revision, differences) == (head_revision(), [])


def test_the_sql_is_one_transaction_that_asks_no_database():
    env = {"GOVBUDGET_DATABASE_URL": None, "GOVBUDGET_SCHEMA": "money"}
    result = CliRunner().invoke(cli, ["db", "sql"], env=env)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line for line in result.stdout.splitlines() if line]
    assert (lines[0], lines[-1]) == ("BEGIN;", "COMMIT;")
    assert result.stdout == write_sql(Layout(schema="money"))


def test_the_sql_from_a_revision_has_what_comes_after_it_only():
    result = CliRunner().invoke(cli, ["db", "sql", "--from", START])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "ALTER TABLE govbudget.ai_usage ADD COLUMN unpriced" in result.stdout
    assert "CREATE TABLE govbudget.ai_closings" in result.stdout
    assert "CREATE TABLE govbudget.ai_usage" not in result.stdout
    assert "CREATE SCHEMA" not in result.stdout


def test_the_sql_from_an_unknown_revision_is_wrong_usage():
    result = CliRunner().invoke(cli, ["db", "sql", "--from", "9999"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("govbudget: `9999` is not a revision. Write one of `0004`, ")


# -- the command --


def test_current_prints_the_revision_and_nothing_else(url):
    before = run(url, "db", "current")
    assert (before.exit_code, before.stdout) == (1, "")
    assert before.stderr == "govbudget: schema `govbudget` is at nothing\n"
    run(url, "db", "upgrade")
    after = run(url, "db", "current")
    assert (after.exit_code, after.stdout, after.stderr) == (0, f"{head_revision()}\n", "")


@pytest.mark.long
@pytest.mark.parametrize(
    ("timeouts", "sentence"),
    [
        (("--lock-timeout", "1"), "waiting 1 s for a lock; nothing was changed"),
        (
            ("--lock-timeout", "0", "--statement-timeout", "1"),
            "waiting 1 s for a statement; nothing was changed",
        ),
    ],
)
def test_an_upgrade_of_a_busy_system_gives_up_with_a_sentence(url, timeouts, sentence):
    """It does not wait for hours with everybody else behind it in the queue."""
    engine = open_engine(url)
    with engine.begin() as connection:
        make_revision_0004(connection)
    with engine.connect() as busy:
        busy.exec_driver_sql("SELECT count(*) FROM govbudget.group_ai_budgets")
        busy.exec_driver_sql("SELECT count(*) FROM govbudget.ai_usage")
        result = run(url, "db", "upgrade", *timeouts)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert sentence in line
    assert "--statement-timeout" in line if len(timeouts) == 4 else "--lock-timeout" in line
    with engine.connect() as connection:
        assert read_revision(connection, Layout()) == START
    assert run(url, "db", "upgrade", *timeouts).exit_code == 0


def test_the_timeouts_end_with_the_upgrade(url):
    """A host's pooled connection goes back as it was."""
    engine = sa.create_engine(url, pool_size=1, max_overflow=0)
    read = sa.text("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
    with engine.connect() as connection:
        before = connection.execute(read).one()
    _upgrade(engine, Settings().layout, {"lock_timeout": 3, "statement_timeout": 4})
    with engine.connect() as connection:
        assert connection.execute(read).one() == before
    engine.dispose()


OTHER = """
import sys
import sqlalchemy as sa
from govbudget.cli.database import _upgrade
from govbudget.db.connection import normalize_url
from govbudget.settings import Settings

engine = sa.create_engine(normalize_url(sys.argv[1]), poolclass=sa.NullPool)
with engine.connect():
    print("connected", flush=True)
sys.stdin.readline()
_upgrade(engine, Settings().layout, {"lock_timeout": 10, "statement_timeout": 10})
"""
PIPES = {
    "stdin": subprocess.PIPE,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
}


def wait_for_lock(url):
    """Wait until a connection to the database waits for a lock."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with open_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        for _ in range(400):
            if connection.scalar(waiting):
                return
            time.sleep(0.025)
    pytest.fail("nobody waits")


@pytest.mark.long
@pytest.mark.parametrize("start", [None, START])
def test_two_upgrades_at_once_both_end_well(url, start):
    """Two instances of an application that is being rolled out."""
    engine = open_engine(url)
    with engine.begin() as connection:
        start_from(connection, Layout(), start)
    # Alembic is one for the process, so the other instance is one: it has read the revision, and
    # goes on when the first one is done but for its commit.
    other = subprocess.Popen([sys.executable, "-c", OTHER, as_text(url)], **PIPES)
    assert other.stdout.readline() == "connected\n"
    with engine.connect() as connection, connection.begin():
        upgrade(connection, Layout())
        other.stdin.write("go\n")
        other.stdin.flush()
        wait_for_lock(url)
    output, errors = other.communicate(timeout=20)
    assert (other.returncode, errors) == (0, ""), output
    with engine.connect() as connection:
        assert find_differences(connection, Layout()) == []
        versions = connection.exec_driver_sql("SELECT * FROM govbudget.alembic_version")
        assert versions.scalars().all() == [head_revision()]


def test_what_is_not_a_connection_is_refused_also_where_alembic_prints_sql():
    """With `--sql` a migration gets something that only writes down."""
    offline = sa.create_mock_engine("postgresql+psycopg://", lambda *_: None)
    nowhere = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    for given in (offline, nowhere, None):
        with pytest.raises(SettingsError, match=r"`upgrade` got a .*print `govbudget db sql`"):
            upgrade(given)


def test_a_schema_of_somebody_else_is_refused(connection):
    """Nothing is made beside the host's tables; a version table of another program is not read."""
    connection.exec_driver_sql("CREATE SCHEMA shop")
    connection.exec_driver_sql("CREATE TABLE shop.orders (id bigint)")
    with pytest.raises(SettingsError, match="`shop` holds tables already \\(`orders`\\)"):
        upgrade(connection, Layout(schema="shop"))
    connection.exec_driver_sql("CREATE TABLE shop.alembic_version (version_num text)")
    connection.exec_driver_sql("INSERT INTO shop.alembic_version VALUES ('a1b2')")
    with pytest.raises(SettingsError, match="`shop` is at `a1b2`, which this version"):
        upgrade(connection, Layout(schema="shop"))


@pytest.mark.parametrize("revision", ["9999", "0003"])
def test_a_revision_that_is_newer_or_was_never_released_is_refused(url, revision):
    run(url, "db", "upgrade")
    with open_engine(url).begin() as connection:
        connection.exec_driver_sql(f"UPDATE govbudget.alembic_version SET version_num='{revision}'")
    upgraded, checked = run(url, "db", "upgrade"), run(url, "db", "check")
    assert (upgraded.exit_code, upgraded.stdout) == (2, "")
    (line,) = upgraded.stderr.splitlines()
    assert f"is at `{revision}`, which this version of govbudget does not know" in line
    assert "A newer version made it, or one from before the first release" in line
    assert checked.exit_code == 1
    assert f"is at {revision}, the newest is {head_revision()}" in checked.stdout


def test_a_schema_that_a_dba_made_is_enough(url):
    """The right to make schemas in the database is not needed where the schema is there."""
    with open_engine(url).begin() as connection:
        name = f"app_{UUID(int=connection.connection.driver_connection.info.backend_pid).hex}"
        connection.exec_driver_sql(f"CREATE ROLE {name}")
        connection.exec_driver_sql(f"CREATE SCHEMA govbudget AUTHORIZATION {name}")
    try:
        with open_engine(url).begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL ROLE {name}")
            right = sa.text("SELECT has_database_privilege(current_database(), 'CREATE')")
            assert not connection.scalar(right)
            upgrade(connection)
            assert find_differences(connection, Layout()) == []
    finally:
        with open_engine(url).begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {name}")
            connection.exec_driver_sql(f"DROP ROLE {name}")


# -- triggers and functions --


def list_behaviour(connection):
    """Give what takes each trigger away, or switches or changes it, and changes each function.

    A list for each way, of a name with its statement.
    """
    triggers = connection.exec_driver_sql(
        "SELECT t.tgname, c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " WHERE c.relnamespace = 'govbudget'::regnamespace AND NOT t.tgisinternal"
    ).all()
    functions = connection.exec_driver_sql(
        "SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc"
        " WHERE pronamespace = 'govbudget'::regnamespace"
    ).all()
    another = "FOR EACH STATEMENT EXECUTE FUNCTION govbudget.refuse_audit_change()"
    for way in (
        "DROP TRIGGER {0} ON govbudget.{1}",
        "ALTER TABLE govbudget.{1} DISABLE TRIGGER {0}",
        "ALTER TABLE govbudget.{1} ENABLE REPLICA TRIGGER {0}",
        f"CREATE OR REPLACE TRIGGER {{0}} BEFORE UPDATE ON govbudget.{{1}} {another}",
    ):
        yield [(trigger, way.format(trigger, table)) for trigger, table in triggers]
    made = "CREATE OR REPLACE FUNCTION govbudget.{}({}) RETURNS {}"
    body = " LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
    yield [(function[0], made.format(*function) + body) for function in functions]


def test_every_trigger_or_function_that_is_gone_off_or_changed_is_found(engine):
    with engine.connect() as connection:
        ways = list(list_behaviour(connection))
        assert sum(map(len, ways)) >= 9 * 4 + 4
        for changes in ways:
            with connection.begin_nested() as savepoint:
                for _, statement in changes:
                    connection.exec_driver_sql(statement)
                differences = find_differences(connection, Layout())
                found = [name for name, _ in changes for d in differences if f"`{name}`" in d]
                assert found == [name for name, _ in changes], differences
                assert len(differences) == len(changes)
                savepoint.rollback()
        connection.exec_driver_sql("DROP FUNCTION govbudget.refuse_audit_change CASCADE")
        assert len(find_differences(connection, Layout())) == 2


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ("record_group_ai_budgets", "record_member_ai_overrides"),
        ("AFTER INSERT OR DELETE OR UPDATE", "AFTER INSERT OR DELETE"),
        ("FOR EACH ROW", "FOR EACH STATEMENT"),
    ],
)
def test_a_trigger_that_is_told_something_else_is_found(engine, part, instead):
    with engine.connect() as connection:
        (made,) = connection.exec_driver_sql(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'group_ai_budgets_audit'"
        ).one()
        assert part in made
        made = made.replace(part, instead).replace("CREATE", "CREATE OR REPLACE")
        connection.exec_driver_sql(made)
        (difference,) = find_differences(connection, Layout())
    assert "`group_ai_budgets_audit`" in difference


def test_check_says_so_with_status_1(url):
    run(url, "db", "upgrade")
    assert run(url, "db", "check").exit_code == 0
    with open_engine(url).begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_log_append_only ON govbudget.audit_log")
    result = run(url, "db", "check")
    assert result.exit_code == 1
    differs = [line for line in result.stdout.splitlines() if not line.startswith("warning: ")]
    assert differs == ["differs: no trigger `audit_log_append_only` in force as it should be"]


# -- inside a migration of the host's own --

HOST_REVISION = """
import sqlalchemy as sa
from alembic import op
from govbudget import Layout
from govbudget.migrations import upgrade as upgrade_budgets

revision, down_revision = "h1", None

def upgrade():
    op.create_table("team", sa.Column("id", sa.Uuid, primary_key=True))
    upgrade_budgets(op.get_bind(), Layout(groups="public.team.id"))
    op.create_table("after", sa.Column("id", sa.Uuid, primary_key=True))
"""
HOST_ENV = """
from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()
context.get_context()
"""


def test_a_migration_of_the_host_can_bring_the_schema_along(url, tmp_path):
    """One `alembic upgrade head` of the host's, in its transaction; its own work goes on after."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "h1.py").write_text(HOST_REVISION)
    (tmp_path / "env.py").write_text(HOST_ENV)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    with open_engine(url).connect() as connection:
        config.attributes["connection"] = connection
        with connection.begin() as whole:
            alembic.command.upgrade(config, "head")
            layout = Layout(groups="public.team.id")
            assert find_differences(connection, layout) == []
            assert {"team", "after"} <= set(sa.inspect(connection).get_table_names())
            whole.rollback()
        assert not sa.inspect(connection).has_schema("govbudget")


def test_upgrades_in_threads_do_not_get_into_each_others_way(make_database):
    """Two applications in one process, each with a layout and a database of its own."""
    layouts = [Layout(), Layout(IdType.TEXT, "money", "none")]

    def make(layout):
        with open_engine(make_database()).begin() as connection:
            upgrade(connection, layout)
            return find_differences(connection, layout), read_revision(connection, layout)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(make, layouts)) == [([], head_revision())] * 2
