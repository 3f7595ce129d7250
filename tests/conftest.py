"""What all tests share: one real PostgreSQL for the session, started when first asked for.

`tests/policy` runs with pycasbin and pytest alone, so nothing else is imported before it is used.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from uuid import uuid4

import pytest


@pytest.fixture(scope="session")
def postgres_url():
    """The URL of a PostgreSQL in which databases may be made."""
    import sqlalchemy as sa

    from govbudget.db.connection import normalize_url
    from govbudget.server.embedded import start_postgres

    given = os.environ.get("GOVBUDGET_TEST_DATABASE_URL")
    with ExitStack() as stack:
        if given:
            yield normalize_url(given)
            return
        url = sa.make_url(stack.enter_context(start_postgres()))
        with _admin(url) as connection:
            # Durability is not under test here; the crash suite starts a server of its own.
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        yield url


def _admin(url):
    import sqlalchemy as sa

    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    return engine.connect()


@pytest.fixture(scope="session")
def make_database(postgres_url):
    """A function that makes an empty database and gives its URL; all are dropped at the end."""
    made = []

    def make(template=None):
        name = f"govbudget_test_{uuid4().hex}"
        with _admin(postgres_url) as connection:
            clause = f" TEMPLATE {template}" if template else ""
            connection.exec_driver_sql(f"CREATE DATABASE {name}{clause}")
        made.append(name)
        return postgres_url.set(database=name)

    yield make
    with _admin(postgres_url) as connection:
        for name in made:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def template(make_database):
    """The name of a migrated database (ids of type uuid) that nobody uses but to copy it."""
    import sqlalchemy as sa

    from govbudget.layout import Layout
    from govbudget.migrations import upgrade

    url = make_database()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        upgrade(connection, Layout())
    return url.database


@pytest.fixture(scope="module")
def database_url(make_database, template):
    """A migrated database for the tests of one file: each makes its own world in it."""
    return make_database(template=template)


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
