"""A transaction that the database gives up is tried again, not for ever, and counts once."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from tests.spend.test_store import ONE, Spender
from tests.spend.test_verify import verify
from tests.support import authorize, count_statements, make_gov

from govbudget.db.retries import MAX_TRIES, explain_outage
from govbudget.spend.errors import BudgetExceeded
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens

pytestmark = pytest.mark.slow

DOLLAR = 10**12


def unit(spender, engine, act, *arguments, **options):
    """Do one act as the HTTP views do it."""

    def work(unit):
        grant = unit.authorize("create", ledger=True)
        return getattr(Spend, act)(grant, *arguments, **options)

    return make_gov(engine=engine).run(spender.world.nobody, work)


@contextmanager
def failing(engine, state, times):
    """Let the next changes of counters fail with a SQLSTATE, so often.

    A sequence counts them: it is the one thing that a rollback does not take back.
    """
    with engine.begin() as connection:
        connection.exec_driver_sql(f"""
            CREATE SEQUENCE public.failures;
            CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF nextval('public.failures') <= {times} THEN
                RAISE EXCEPTION 'made to fail' USING ERRCODE = '{state}';
              END IF;
              RETURN NEW;
            END $$;
            CREATE TRIGGER fail BEFORE INSERT ON govbudget.ai_spend_counters
              FOR EACH ROW EXECUTE FUNCTION public.fail()
        """)
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "DROP FUNCTION public.fail CASCADE; DROP SEQUENCE public.failures"
            )


def acts(spender):
    """Each statement that takes or books, with its arguments."""
    holds = [spender("hold", spender.call, ONE).id for _ in range(2)]
    return {
        "hold": (spender.call, ONE),
        "settle": (holds[0], "e1", ONE),
        "release": (holds[1],),
        "record": ("e2", spender.call, ONE),
    }


@pytest.mark.parametrize("act", ["hold", "settle", "release", "record"])
@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_serialization_failure_or_deadlock_is_tried_again_and_counts_once(world, act, state):
    spender = Spender(world)
    arguments = acts(spender)[act]
    with failing(world.engine, state, MAX_TRIES - 1):
        with count_statements(world.engine) as sent:
            unit(spender, world.engine, act, *arguments)
        assert sum("WITH" in statement for statement in sent) == MAX_TRIES
    held = {"hold": 3, "settle": 1, "release": 1, "record": 2}[act]
    spent = int(act in {"settle", "record"})
    assert spender.read("ai_spend_counters", "spent_picos", "held_picos") == [
        (spent * DOLLAR, held * DOLLAR)
    ]
    assert verify(world, world.a) == (1, spent, [])


@pytest.mark.parametrize("act", ["hold", "settle", "release", "record"])
@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_it_is_given_up_after_a_few_tries_as_unavailable_and_nothing_is_changed(world, act, state):
    spender = Spender(world)
    arguments = acts(spender)[act]
    with failing(world.engine, state, 100):
        with count_statements(world.engine) as sent, pytest.raises(sa.exc.DBAPIError) as given_up:
            unit(spender, world.engine, act, *arguments)
        assert sum("WITH" in statement for statement in sent) == MAX_TRIES
    assert explain_outage(given_up.value).code == "unavailable"
    assert spender.read("ai_spend_counters", "spent_picos", "held_picos") == [(0, 2 * DOLLAR)]
    assert verify(world, world.a) == (1, 0, [])


LEVELS = ("repeatable read", "serializable")


@pytest.mark.parametrize("level", LEVELS)
def test_a_host_at_a_stricter_level_is_told_and_overspends_nothing(world, level):
    """Its snapshot is older than another's hold: PostgreSQL refuses, and nothing is held."""
    spender = Spender(world)
    spender.limit(world.a1, 2)
    spender("hold", spender.call, ONE)
    with world.engine.connect().execution_options(isolation_level=level.upper()) as connection:
        # takes the snapshot
        grant = authorize(connection, world.nobody, "create", ledger=True)
        spender("hold", spender.call, ONE)
        with pytest.raises(sa.exc.OperationalError) as refused:
            Spend.hold(grant, spender.call, ONE)
        assert refused.value.orig.sqlstate == "40001"
    assert spender.read("ai_spend_counters", "held_picos") == [(2 * DOLLAR,)]


@pytest.mark.parametrize("level", LEVELS)
def test_a_crowd_at_a_stricter_level_by_default_is_exact(world, database_url, level):
    """Whoever is out of tries was not admitted, or not recorded, and may come again."""
    setting = "-c default_transaction_isolation=" + level.replace(" ", "\\ ")
    engine = sa.create_engine(database_url, pool_size=6, connect_args={"options": setting})
    spender = Spender(world)
    spender.limit(world.a1, 20)
    seen = Counter()

    def persist(act, *arguments):
        while True:
            try:
                return unit(spender, engine, act, *arguments)
            except sa.exc.DBAPIError as error:
                if explain_outage(error) is None:
                    raise

    def work(number):
        for turn in range(10):
            try:
                hold = persist("hold", spender.call, ONE)
            except BudgetExceeded:
                seen["refused"] += 1
            else:
                persist("settle", hold.id, f"{number}/{turn}", ONE)
                seen["settled"] += 1

    with count_statements(engine) as sent, ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    engine.dispose()
    assert (seen["settled"], seen["refused"]) == (20, 40)
    assert spender.read("ai_spend_counters", "spent_picos", "held_picos") == [(20 * DOLLAR, 0)]
    assert verify(world, world.a) == (1, 20, [])
    tries = sum("WITH" in statement for statement in sent)
    assert tries > 60 + 20, "some of them were tried again"


def test_under_read_committed_nobody_has_to_try_again(world):
    spender = Spender(world)
    spender.limit(world.a1, 30)

    def work(number):
        hold = unit(spender, world.engine, "hold", spender.call, Tokens(input=2))
        unit(spender, world.engine, "settle", hold.id, f"{number}", ONE)

    with count_statements(world.engine) as sent, ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(15)))
    assert sum("WITH" in statement for statement in sent) == 30
