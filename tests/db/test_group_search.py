"""Which organization a group is of, where only the databases say it: few of them are asked."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, ProgrammingError
from tests.support import TABLES, World, count_statements

from govbudget.db.group_search import search_groups
from govbudget.directory.sql import own_directory

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engines(engine, make_database, template):
    other = sa.create_engine(make_database(template=template))
    yield engine, other
    other.dispose()


@pytest.fixture
def away():
    """A database that does not answer, and how often it was asked."""
    away = sa.create_engine("postgresql+psycopg://x@127.0.0.1:1/x?connect_timeout=2")
    away.tries = []

    @sa.event.listens_for(away, "do_connect")
    def note(*_):
        away.tries.append(1)

    return away


def search(*engines, **options):
    return search_groups(engines, own_directory(TABLES), **options)


def test_a_group_is_found_in_the_database_that_has_it_and_kept(engines):
    worlds = [World(engine) for engine in engines]
    find = search(*engines)
    assert [find(world.a1) for world in worlds] == [world.a for world in worlds]
    with count_statements(engines[0]) as first, count_statements(engines[1]) as other:
        assert [find(world.a1) for world in worlds] == [world.a for world in worlds]
    assert (first, other) == ([], [])


def test_a_group_that_is_nowhere_is_asked_for_again(engines):
    """It may be made meanwhile."""
    world, find = World(engines[0]), search(*engines)
    for _ in range(2):
        with count_statements(engines[1]) as sent:
            assert find(world.nobody) is None
        assert len(sent) == 1


def test_for_who_is_not_known_no_other_database_is_asked(engines):
    world = World(engines[1])
    find = search(*engines, may_ask=lambda _: False)
    with count_statements(engines[0]) as first, count_statements(engines[1]) as other:
        assert find(world.a1) is None
    assert (first, other) == ([], [])


def test_a_database_that_failed_last_is_asked_last(engines, away):
    worlds = [World(engines[0]) for _ in range(3)]
    find = search(away, engines[0])
    assert [find(world.a1) for world in worlds] == [world.a for world in worlds]
    assert len(away.tries) == 1


def test_what_one_that_is_away_may_have_is_not_said_to_be_nowhere(engines, away):
    world = World(engines[0])
    with pytest.raises(OperationalError):
        search(engines[0], away)(world.nobody)


def test_a_database_that_refuses_to_be_asked_hides_no_other(engines, make_database, template):
    """One without rights, for example."""
    url = make_database(template=template)
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql("""
            DO $$ BEGIN CREATE ROLE reads_nothing; EXCEPTION WHEN duplicate_object THEN END $$;
            GRANT USAGE ON SCHEMA govbudget TO reads_nothing
        """)
    refusing = sa.create_engine(
        url, poolclass=sa.NullPool, connect_args={"options": "-c role=reads_nothing"}
    )
    world, find = World(engines[0]), search(refusing, engines[0])
    assert find(world.a1) == world.a
    with pytest.raises(ProgrammingError, match="permission denied"):
        find(world.nobody)
