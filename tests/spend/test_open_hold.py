"""`with govbudget.hold(...)`: what becomes of the money, however the block ends."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from flask import Flask
from tests.spend.test_store import Spender
from tests.support import TABLES

from govbudget import BudgetExceeded, Forbidden, GovBudget, NotAMember, Tokens
from govbudget.spend.usage import Call

ONE, TWO = Tokens(input=1), Tokens(input=2)
DOLLAR = 10**12


class Meter:
    """A host that makes calls for the member of a world, whose limit is three dollars."""

    def __init__(self, world):
        self.world, self.spender = world, Spender(world)
        self.spender.limit(world.a1, 3)
        self.call = self.spender.call
        self.app = Flask(__name__)
        self.govbudget = GovBudget(self.app, engine=world.engine, identify=lambda: None)

    def hold(self, tokens=TWO, gateway=None, call=None, **options):
        gateway = gateway or self.world.gateway
        return self.govbudget.hold(gateway, call or self.call, tokens, **options)

    @property
    def spent_and_held(self):
        rows = self.spender.read("ai_spend_counters", "spent_picos", "held_picos")
        return tuple(int(value) // DOLLAR for value in rows[0]) if rows else (0, 0)


@pytest.fixture
def meter(world):
    meter = Meter(world)
    with meter.app.app_context():
        yield meter


def test_a_block_settles_what_the_call_took_and_frees_the_rest(meter):
    with meter.hold() as hold:
        assert meter.spent_and_held == (0, 2)
        usage = hold.settle(ONE)
    assert meter.spent_and_held == (1, 0)
    assert (usage.event_id, usage.cost_picos) == (str(hold.hold.id), DOLLAR)


def test_settling_again_after_a_lost_answer_books_once(meter):
    with meter.hold() as hold:
        assert hold.settle(ONE) == hold.settle(ONE)
    assert meter.spent_and_held == (1, 0)


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize(
    ("on_error", "counted", "left"),
    [("release", True, (0, 0)), ("settle", True, (2, 0)), ("settle", False, (0, 0))],
)
def test_a_block_that_raises_releases_or_settles_what_it_counted(
    meter, ending, on_error, counted, left
):
    with pytest.raises(ending), meter.hold(on_error=on_error) as hold:
        for _ in range(2 * counted):
            hold.count(ONE)
        raise ending
    assert meter.spent_and_held == left


def test_what_was_settled_stays_settled_when_the_block_raises_afterwards(meter):
    with pytest.raises(ValueError, match="late"), meter.hold() as hold:
        hold.settle(TWO)
        raise ValueError("late")
    assert meter.spent_and_held == (2, 0)


def test_what_was_counted_is_settled_at_the_end(meter):
    with meter.hold() as hold:
        hold.count(ONE)
        hold.count(ONE)
    assert hold.usage.tokens == TWO
    assert meter.spent_and_held == (2, 0)


def test_a_block_can_release_and_must_not_forget(meter):
    with meter.hold() as hold:
        hold.release()
    assert meter.spent_and_held == (0, 0)
    forgot = pytest.raises(RuntimeError, match=r"without settle\(\), count\(\) or release\(\)")
    with forgot, meter.hold():
        pass
    assert meter.spent_and_held == (0, 2)


def test_a_refused_call_never_enters_its_block(meter):
    stranger = Call(meter.world.a, meter.world.outsider, "acme", meter.spender.model)
    for error, options in (
        (BudgetExceeded, {"tokens": Tokens(input=4)}),
        (NotAMember, {"call": stranger}),
        (Forbidden, {"gateway": meter.world.owner}),
    ):
        with pytest.raises(error), meter.hold(**options):
            pytest.fail("the block was entered")
    assert meter.spent_and_held == (0, 0)


def test_a_role_taken_away_within_the_block_books_nothing(meter):
    """Each step asks the policy anew; the hold expires by itself."""
    with pytest.raises(Forbidden), meter.hold() as hold:
        roles = TABLES.role_assignments
        with meter.world.engine.begin() as connection:
            connection.execute(sa.delete(roles).where(roles.c.user_id == meter.world.gateway))
        hold.settle(ONE)
    assert meter.spent_and_held == (0, 2)


@pytest.mark.parametrize("on_error", ["", "ignore"])
def test_another_way_to_end_is_refused_before_anything_is_held(meter, on_error):
    with pytest.raises(ValueError, match="OnError"):
        meter.hold(on_error=on_error)
    assert meter.spent_and_held == (0, 0)


@contextmanager
def failing(meter, table):
    """Let every statement on a table fail for the length of the block."""
    with meter.world.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE govbudget.{table} RENAME TO gone")
    try:
        yield
    finally:
        with meter.world.engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE govbudget.gone RENAME TO {table}")


@pytest.mark.parametrize("on_error", ["release", "settle"])
def test_what_was_told_is_settled_at_the_end_where_the_database_had_failed(meter, on_error):
    """The call was made: its hold is never released."""
    with (
        pytest.raises(sa.exc.DBAPIError),
        meter.hold(on_error=on_error) as hold,
        failing(meter, "ai_usage"),
    ):
        hold.settle(ONE)
    assert meter.spent_and_held == (1, 0)


def test_what_cannot_be_settled_at_all_is_left_to_expire(meter, caplog):
    with failing(meter, "ai_usage"), pytest.raises(sa.exc.DBAPIError), meter.hold() as hold:
        hold.settle(ONE)
    assert meter.spent_and_held == (0, 2)
    assert "left to expire" in caplog.text
