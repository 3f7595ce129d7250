"""Many holds of one member that expire together lock nobody out, however many there are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.spend.test_hold_life import DOLLAR, NOON, Clock, held, verify
from tests.spend.test_store import ONE, Spender
from tests.support import authorize, count_statements, wait_for_waiters

from govbudget.errors import GovBudgetError
from govbudget.spend import store
from govbudget.spend.errors import BudgetExceeded
from govbudget.spend.statements import DUE_AT_ONCE
from govbudget.spend.store import Spend

pytestmark = pytest.mark.slow

MANY = 2 * DUE_AT_ONCE + 1
EXPIRED = """
INSERT INTO govbudget.ai_holds (id, organization_id, user_id, group_id, period, provider, model,
  input_price, cost_picos, is_open, created_at, expires_at)
SELECT gen_random_uuid(), :a, :user, :a1, date_trunc('month', CAST(:now AS timestamptz))::date,
  'acme', :model, 1000000000000, 1000000000000, true, :now, :now - interval '1 s'
FROM generate_series(1, :many)
"""
COUNTED = """
INSERT INTO govbudget.ai_spend_counters (organization_id, user_id, period, spent_picos, held_picos)
SELECT organization_id, user_id, period, 0, sum(cost_picos) FROM govbudget.ai_holds
WHERE organization_id = :a GROUP BY organization_id, user_id, period
"""


@pytest.fixture
def spender(world):
    """A member with a limit of a dollar, whose many holds of a dollar have all expired."""
    spender = Spender(world, clock=Clock())
    spender.limit(world.a1, 1)
    values = {"a": world.a, "a1": world.a1, "user": world.member, "model": spender.model}
    with world.engine.begin() as connection:
        connection.execute(sa.text(EXPIRED), values | {"many": MANY, "now": NOON})
        connection.execute(sa.text(COUNTED), values)
    return spender


def test_an_expired_hold_counts_for_nothing_however_many_there_are(spender):
    """No statement takes all of them out."""
    with count_statements(spender.world.engine) as sent:
        spender("hold", spender.call, ONE)
    assert sum("due AS" in statement for statement in sent) == 3
    assert held(spender) == [(0, DOLLAR)]
    with pytest.raises(BudgetExceeded) as refused:
        spender("hold", spender.call, ONE)
    assert refused.value.held_picos == DOLLAR
    assert verify(spender) == []


def test_a_call_that_fits_at_once_takes_out_a_part_alone(spender):
    with count_statements(spender.world.engine) as sent:
        spender("release", spender("hold", spender.call, ONE, hold_id=uuid4()).id)
        spender("hold", spender.call, ONE)
    assert sum("due AS" in statement for statement in sent) == 4
    assert spender.report()[0].held_picos == DOLLAR
    assert verify(spender) == []


def test_an_expired_hold_is_extended_although_many_others_expired(spender):
    (first, second, *_) = spender.read("ai_holds", "id")
    spender("extend", first.id, ttl_seconds=60)
    assert held(spender) == [(0, DOLLAR)]
    with pytest.raises(BudgetExceeded):
        spender("extend", second.id, ttl_seconds=60)
    assert verify(spender) == []


def test_a_call_that_waited_while_another_took_them_out_is_not_refused_for_them(spender):
    """It has seen them open, and closes none: it asks again."""
    with ThreadPoolExecutor(1) as pool, spender.world.engine.begin() as connection:
        grant = authorize(connection, spender.world.nobody, "create", gov=spender.gov, ledger=True)
        first = Spend.hold(grant, spender.call, ONE)
        Spend.release(grant, first.id)
        waiting = pool.submit(spender, "hold", spender.call, ONE)
        wait_for_waiters(spender.world.engine)
        connection.commit()
        waiting.result()
    assert held(spender) == [(0, DOLLAR)]
    assert verify(spender) == []


def test_a_call_waits_for_others_that_take_them_out_for_some_tries_alone(spender, monkeypatch):
    monkeypatch.setattr(store, "MAX_IDLE", 1)
    with ThreadPoolExecutor(1) as pool, spender.world.engine.begin() as connection:
        grant = authorize(connection, spender.world.nobody, "create", gov=spender.gov, ledger=True)
        Spend.hold(grant, spender.call, ONE)
        waiting = pool.submit(spender, "hold", spender.call, ONE)
        wait_for_waiters(spender.world.engine)
        connection.commit()
        with pytest.raises(GovBudgetError, match="closing the user's expired holds") as refused:
            waiting.result()
    assert refused.value.code == "unavailable"
