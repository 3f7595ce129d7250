"""What all tests share: one real PostgreSQL for the session, started when first asked for.

`tests/policy` runs with pycasbin and pytest alone, so nothing else is imported before it is used.
"""

from __future__ import annotations

import ast
import gc
import os
import signal
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import chain, groupby
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

SLOW_FILE = "\npytestmark = pytest.mark.slow\n"
QUICK = "not slow and not long and not wheel"  # as in pyproject.toml
TEST_URL = "GOVBUDGET_TEST_DATABASE_URL"
SERVER = pytest.StashKey()


def pytest_configure(config):
    """Let what is started be interrupted, and try few examples in the quick suite, else many.

    A shell starts a background job with SIGINT ignored, and so would be whatever a test starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    try:
        from hypothesis import settings
    except ImportError:
        return
    few = config.option.markexpr == QUICK
    settings.register_profile("govbudget", deadline=None, max_examples=8 if few else 60)
    settings.load_profile("govbudget")


def pytest_ignore_collect(collection_path, config):
    """Leave a file that is slow as a whole unread in the quick suite."""
    if config.option.markexpr == QUICK and collection_path.suffix == ".py":
        return SLOW_FILE in collection_path.read_text() or None
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Let each of xdist's workers begin with a part of the long tests, so that they end together.

    Each worker starts with an equal part of the list, and takes from the end of another's.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    parts = [[] for _ in range(workers)]
    for number, (_, found) in enumerate(groupby(long, key=lambda item: item.path)):
        parts[number % workers] += found
    for part in parts:
        room = max(0, len(items) // workers - len(part))
        part.extend(others[:room])
        del others[:room]
    items[:] = chain(*parts, others)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    """Let the garbage collector pass over what was imported and collected: it all stays.

    Else each of its full runs takes longer than most tests.
    """
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    """Say why nothing ran: a path that is not there, or tests that are not quick ones."""
    if exitstatus not in {pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.USAGE_ERROR}:
        return
    paths = [Path(argument.partition("::")[0]) for argument in config.args]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        terminalreporter.write_line(f"there is no {', '.join(missing)}")
    elif config.option.markexpr == QUICK:
        others = "`make test-slow` with the same ARGS, then `make test-all`"
        terminalreporter.write_line(f"no quick test matches; try {others}")


@pytest.fixture(scope="session")
def asked_tables():
    """The decision tables that Casbin was asked for, by the digest of their files."""
    return {}


@pytest.fixture(autouse=True)
def tables_by_digest(request, monkeypatch, asked_tables):
    """Ask Casbin about the same model and lines once: many tests load the same few.

    A test that is about Casbin's own answers has the fixture `casbin`.
    """
    if "casbin" in request.fixturenames:
        return
    from govbudget.authz import evaluator

    ask = evaluator.build_table

    def build_once(files, lines, **options):
        if files.digest not in asked_tables:
            asked_tables[files.digest] = ask(files, lines, **options)
        return asked_tables[files.digest]

    monkeypatch.setattr(evaluator, "build_table", build_once)


@pytest.fixture(scope="session")
def parsed_once():
    """Let Casbin's evaluator parse a text once: it would parse its matcher for each question.

    That is half of what a question costs, and all questions are about the one pinned matcher.
    """
    from casbin.util import expression

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expression, "ast", SimpleNamespace(parse=cache(ast.parse)))
        yield


@pytest.fixture
def casbin(parsed_once):
    """Casbin is asked at each load."""


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Start one PostgreSQL for all of xdist's workers; it stops when their controller does."""
    config = node.config
    if SERVER not in config.stash and not os.environ.get(TEST_URL):
        stack = ExitStack()
        config.add_cleanup(stack.close)
        config.stash[SERVER] = stack.enter_context(_start_server())
    if SERVER in config.stash:
        node.workerinput[TEST_URL] = config.stash[SERVER].render_as_string(hide_password=False)


@contextmanager
def _start_server():
    """Run a PostgreSQL for these tests and give its URL."""
    import sqlalchemy as sa

    from govbudget.server.embedded import start_postgres

    with start_postgres() as started:
        url = sa.make_url(started)
        with _admin(url) as connection:
            # Durability is not under test here; the crash suite starts a server of its own.
            for setting in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
                connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def postgres_url(request):
    """The URL of a PostgreSQL in which databases may be made: the given, the workers', our own."""
    from govbudget.db.connection import normalize_url

    given = getattr(request.config, "workerinput", {}).get(TEST_URL) or os.environ.get(TEST_URL)
    if given:
        yield normalize_url(given)
        return
    with _start_server() as url:
        yield url


def _admin(url):
    import sqlalchemy as sa

    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    return engine.connect()


@pytest.fixture(scope="session")
def make_database(postgres_url):
    """A function that makes an empty database and gives its URL.

    At the end all are dropped, where the server is not one that ends with its databases.
    """
    made = []

    def make(template=None):
        name = f"govbudget_test_{uuid4().hex}"
        with _admin(postgres_url) as connection:
            # Copied as files, in half of the time; by default each block goes through the log.
            options = f"TEMPLATE {template or 'template1'} STRATEGY file_copy"
            connection.exec_driver_sql(f"CREATE DATABASE {name} {options}")
        made.append(name)
        return postgres_url.set(database=name)

    yield make
    if os.environ.get(TEST_URL):
        with _admin(postgres_url) as connection:
            for name in made:
                connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def template(request, postgres_url, make_database):
    """The name of a migrated database (ids of type uuid) that nobody uses but to copy it.

    On the server that xdist's workers share, one of them makes it for all.
    """
    import sqlalchemy as sa

    from govbudget.layout import Layout
    from govbudget.migrations import upgrade

    name = "govbudget_test_template"
    is_shared = TEST_URL in getattr(request.config, "workerinput", {})
    with _admin(postgres_url) as connection:
        connection.exec_driver_sql("SELECT pg_advisory_lock(1)")  # until the connection ends
        query = f"SELECT FROM pg_database WHERE datname = '{name}'"
        if is_shared and connection.exec_driver_sql(query).first() is not None:
            return name
        url = make_database()
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as migrated:
            upgrade(migrated, Layout())
        if not is_shared:
            return url.database
        connection.exec_driver_sql(f"ALTER DATABASE {url.database} RENAME TO {name}")
        return name


@pytest.fixture(scope="session")
def shared(make_database, template):
    """The database of this process, which the files of tests use one after the other.

    Its URL, a connection that clears it up, and what it has besides rows.
    """
    url = make_database(template=template)
    with _admin(url) as connection:
        # Else the trail would refuse that rows are taken out.
        connection.exec_driver_sql("SET session_replication_role = replica")
        yield url, connection, _describe(connection)


@pytest.fixture(scope="module")
def database_url(shared):
    """A migrated database for the tests of one file, without rows: each makes its own world in it.

    A file that changes more than rows overrides this fixture with a database of its own.
    """
    url, connection, description = shared
    _empty(connection)
    yield url
    assert _describe(connection) == description, "these tests need a database of their own"


@pytest.fixture
def emptied(shared, database_url):
    """The URL of the file's database, without the rows of the tests before: for what is of all."""
    url, connection, _ = shared
    assert url == database_url
    _empty(connection)
    return url


def _empty(connection):
    """Take every row out, and whoever else is still connected."""
    connection.exec_driver_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    connection.exec_driver_sql("""DO $$ DECLARE found record; is_full boolean; BEGIN
        FOR found IN SELECT tablename FROM pg_tables WHERE schemaname = 'govbudget'
            AND tablename <> 'alembic_version' LOOP
            EXECUTE 'SELECT EXISTS (SELECT FROM govbudget.' || found.tablename || ')' INTO is_full;
            IF is_full THEN EXECUTE 'DELETE FROM govbudget.' || found.tablename; END IF;
        END LOOP;
    END $$""")


def _describe(connection):
    """Give what a database has besides rows: relations, triggers, constraints, functions.

    A session that has just ended may still have its temporary tables.
    """
    return connection.exec_driver_sql("""
        SELECT string_agg(what, E'\\n' ORDER BY what) FROM (
            SELECT concat(oid::regclass, relkind) FROM pg_class WHERE relpersistence <> 't'
            UNION ALL SELECT concat(tgrelid::regclass, tgname, tgenabled) FROM pg_trigger
            UNION ALL SELECT concat(conrelid::regclass, pg_get_constraintdef(oid))
                FROM pg_constraint
            UNION ALL SELECT concat(proname, md5(prosrc)) FROM pg_proc
                WHERE pronamespace >= 16384 OR pronamespace = 'public'::regnamespace
            UNION ALL SELECT setconfig::text FROM pg_db_role_setting s JOIN pg_database d
                ON d.oid = s.setdatabase AND datname = current_database()
        ) AS found(what)
    """).scalar_one()


@pytest.fixture(scope="module")
def engine(database_url):
    """An engine on the file's database."""
    import sqlalchemy as sa

    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def world(engine):
    """Two organizations with groups of both, and someone in each role."""
    from tests.support import World

    return World(engine)
