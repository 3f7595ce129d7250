"""Many writers at once: each threshold is noticed once, and a sweep beside them misses nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from tests.spend.test_limits import join, override
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


def leave(watcher):
    """End the membership in the group with the higher limit."""
    members = TABLES.group_members.c
    with watcher.world.engine.begin() as connection:
        gone = sa.delete(TABLES.group_members).where(members.group_id == watcher.world.a2)
        connection.execute(gone)


def end_override(watcher):
    """Let the override end in a moment, by the clock."""
    overrides = TABLES.member_ai_overrides
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    change = sa.update(overrides).where(overrides.c.organization_id == watcher.world.a)
    with watcher.world.engine.begin() as connection:
        connection.execute(change.values(expires_at=soon))
    time.sleep(0.5)


@pytest.mark.parametrize("end", [leave, end_override], ids=["membership", "override"])
def test_a_higher_limit_that_ends_beside_settlements_misses_and_doubles_nothing(world, end):
    """Who was at 30 of 1,000 is over 75 and 90 % of 100: whoever sees it first, once."""
    watcher = Watcher(world)
    watcher.limit(world.a1, 100)
    if end is leave:
        join(world, world.a2)
        watcher.limit(world.a2, 1000)
    else:
        override(world, world.a1, 1000)
    watcher.use(30)
    with ThreadPoolExecutor(WRITERS + 3) as pool:
        spending = [pool.submit(watcher.use, 1, "settle") for _ in range(65)]
        ending = pool.submit(end, watcher)
        sweeping = [pool.submit(watcher.sweep) for _ in range(20)]
        for done in (*spending, ending):
            done.result()
    swept = [notice for sweep in sweeping for notice in sweep.result()] + watcher.sweep()
    assert watcher.crossed() == [(75, 100), (90, 100)]
    ids = [notice.id for notice in swept]
    assert len(ids) == len(set(ids))
    assert watcher.sweep() == []
