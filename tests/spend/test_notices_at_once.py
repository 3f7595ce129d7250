"""Many writers at once: each threshold is noticed once, and a sweep beside them misses nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from tests.spend.test_notices import Watcher
from tests.support import TABLES

from govbudget.spend.tokens import Tokens

pytestmark = pytest.mark.long
WRITERS = 16


def test_each_crossing_is_noticed_once_by_sixteen_writers(world):
    watcher = Watcher(world, thresholds=(*range(1, 101),))
    watcher.limit(world.a1, 160)
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda _: watcher.use(1, "settle"), range(160)))
    found = watcher.list()
    assert [one.threshold for one in sorted(found, key=lambda one: one.threshold)] == [
        *range(1, 101)
    ]
    for one in found:  # by the call that reached it, which cost a dollar
        reached = one.limit_micros * 10**4 * one.threshold
        assert reached <= one.spent_picos < reached + 10**12
    assert watcher.sweep() == []


def test_a_limit_that_is_lowered_beside_settlements_misses_nothing_after_a_sweep(world):
    watcher = Watcher(world)
    watcher.limit(world.a1, 1000)
    watcher("record", "first", watcher.call, Tokens(input=1))
    with ThreadPoolExecutor(WRITERS + 2) as pool:
        spending = [pool.submit(watcher.use, 1) for _ in range(99)]
        lowering = [pool.submit(watcher.set_limit, world.a1, 1000 - 9 * n) for n in range(100)]
        sweeping = [pool.submit(watcher.sweep) for _ in range(9)]
        for done in (*spending, *lowering, *sweeping):
            done.result()
    watcher.set_limit(world.a1, 109)
    watcher.sweep()
    key = sa.select(TABLES.ai_notices.c.threshold).where(
        TABLES.ai_notices.c.organization_id == world.a,
        TABLES.ai_notices.c.spend_limit_micros == 109 * 10**6,
    )
    with world.engine.connect() as connection:
        assert sorted(connection.scalars(key)) == [75, 90]
    assert watcher.sweep() == []
