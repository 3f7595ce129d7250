"""A year of one organization by model and day, and a million rows of its ledger exported.

Once with a call a day of each user and model, once with a thousand: the same sums to read.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import ExitStack
from datetime import date, timedelta
from time import perf_counter
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks.database import fill_database, make_database
from benchmarks.handwritten import make_govbudget_app
from benchmarks.measure import Row, Spread, measure_pairs, say
from benchmarks.wsgi import Wsgi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.measure import Effort

USERS, MODELS, DAYS = 9, 3, 365
MILLISECONDS, MIB = 1000, 1024
AT_MOST, MOST_MILLISECONDS, MOST_MIB = 1.5, 100, 100
MANY = {"full": 1000, "quick": 3}
EXPORTED_DAYS = {"full": 37, "quick": 31}  # of 27,000 calls each, a million

# Indexes are made when the rows are there: that takes a minute, and filling them row by row seven.
BEFORE = """
SET maintenance_work_mem = '512MB';
ALTER TABLE govbudget.ai_usage
  DROP CONSTRAINT ai_usage_pkey, DROP CONSTRAINT ai_usage_hold_id_key
"""
AFTER = """
ALTER TABLE govbudget.ai_usage
  ADD CONSTRAINT ai_usage_pkey PRIMARY KEY (organization_id, event_id),
  ADD CONSTRAINT ai_usage_hold_id_key UNIQUE (hold_id)
"""
LEDGER = """
INSERT INTO govbudget.ai_usage
  (organization_id, event_id, user_id, group_id, period, day, provider, model, input_price,
   input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_picos, recorded_at)
SELECT :organization, md5(concat_ws('/', u.id, m, day, call)), u.id, :organization,
       date_trunc('month', day)::date, day::date, 'acme', 'model ' || m, 1000, call, 0, 0, 0,
       1000 * call, day
FROM (SELECT id FROM govbudget.users ORDER BY id LIMIT :users) u, generate_series(1, :models) m,
     generate_series(timestamp '2025-01-01', '2025-12-31', interval '1 day') day,
     generate_series(1, :calls) call
"""
ROLLUPS = """
WITH days AS (
  SELECT organization_id, day, period, group_id, user_id, provider, model, sum(cost_picos) AS cost,
         count(*) AS calls
  FROM govbudget.ai_usage GROUP BY 1, 2, 3, 4, 5, 6, 7
)
INSERT INTO govbudget.ai_spend_rollups
SELECT organization_id, grain, starts_on, group_id, user_id, provider, model, sum(cost), sum(calls),
       0
FROM days, LATERAL (VALUES ('day', day), ('month', period)) g (grain, starts_on)
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""


def measure_report(effort: Effort, server: sa.URL) -> Iterator[Row]:
    """The report over HTTP with few and with many calls; then the export of the many."""
    asked = []
    with ExitStack() as stack:
        for calls in (1, MANY[effort.name]):
            number = calls * USERS * MODELS * DAYS
            say(f"report: filling {number:,} calls")
            url = stack.enter_context(make_database(server))
            world = fill_database(url, groups=10, users=USERS)
            values = {"organization": world.organization, "users": USERS, "models": MODELS}
            engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
            stack.callback(engine.dispose)
            start = perf_counter()
            with engine.connect() as connection:
                connection.exec_driver_sql(BEFORE)
                connection.execute(sa.text(LEDGER), {**values, "calls": calls})
                connection.exec_driver_sql(AFTER)
                connection.execute(sa.text(ROLLUPS))
                connection.exec_driver_sql("VACUUM ANALYZE")
            filled = Spread.of([perf_counter() - start])
            path = f"/api/v2/organizations/{world.organization}/ai/spend"
            query = "from=2025-01-01&to=2026-01-01&group_by=model,day&format=csv"
            request = Wsgi(make_govbudget_app(engine), "GET", path, world.owner, query=query)
            assert len(request().splitlines()) == 1 + MODELS * DAYS
            asked.append(request)
        yield Row("report", "filling", f"{number:,} calls", filled, "s")
        pairs = measure_pairs(asked[0], asked[1], effort)
        ratio, spread = pairs.theirs_to_ours, Spread.of([s * MILLISECONDS for s in pairs.theirs])
        yield Row(
            "report", "a year by model and day", f"{number:,} calls", spread, "ms", ratio,
            "it / a call a day", f"<= {AT_MOST}, {MOST_MILLISECONDS} ms",
            ratio.median <= AT_MOST and spread.median <= MOST_MILLISECONDS,
        )  # fmt: skip
        yield from _export(url, str(world.organization), EXPORTED_DAYS[effort.name], calls)


def _export(url: sa.URL, organization: str, days: int, calls: int) -> Iterator[Row]:
    """Export so many days of the ledger, of so many calls of each user and model."""
    until = str(date(2025, 1, 1) + timedelta(days=days))
    say("report: exporting the ledger")
    command = [sys.executable, "-m", "govbudget", "spend", "export", "--organization", organization]
    command += ["--from", "2025-01-01", "--to", until, "--format", "csv"]
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    start, rows = perf_counter(), -1
    with subprocess.Popen(  # noqa: S603 - our own program
        command, env=os.environ | {"GOVBUDGET_DATABASE_URL": text}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        rows += sum(1 for _ in process.stdout)
    seconds = perf_counter() - start
    assert process.returncode == 0
    assert rows == days * USERS * MODELS * calls
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / MIB
    what = f"{rows:,} rows"
    yield Row("report", "spend export", what, Spread.of([seconds]), "s")
    yield Row(
        "report", "spend export, memory", what, Spread.of([peak]), "MiB", None, "",
        f"<= {MOST_MIB} MiB", peak <= MOST_MIB,
    )  # fmt: skip
