"""A batch of thousands is quick in a session whose plans were made for a few."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from tests.prices.test_store import make
from tests.support import authorize

from govbudget.prices.store import Prices

COUNT = 5000


def change_all(engine, world, provider, run, *, before=()):
    """Change thousands of prices in a session of its own; give the seconds that it took.

    `before` are the sizes of batches that the session has changed first.
    """
    with engine.connect() as connection:
        for size in (*before, None):
            batch = [make(provider, f"model {n}", [run] * 4) for n in range(size or COUNT)]
            run += 1
            with connection.begin():
                grant = authorize(connection, world.owner, "update", prices=True)
                start = time.perf_counter()
                result = Prices.upsert(grant, batch)
                took = time.perf_counter() - start
            assert result.changed == len(batch)
    return took


@pytest.mark.long
def test_a_plan_kept_from_few_rows_does_not_slow_down_many(database_url, world):
    """`record_price_updates` joins the two sides of a batch by FULL JOIN, and has to.

    plpgsql plans that statement with the first batches of a session and keeps the plan. For an
    inner join of few rows it keeps nested loops, which take seconds over thousands; a full join on
    equal keys can only be hashed or merged.
    """
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    change_all(engine, world, "acme", 0)
    fresh = min(change_all(engine, world, "acme", run) for run in (100, 200))
    used = min(change_all(engine, world, "acme", run, before=[2] * 8) for run in (300, 400))
    assert used < 3 * fresh, (used, fresh)
