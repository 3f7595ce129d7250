"""Close a month: write its calls and holds to a file, prove the file, and take its rows out.

A month that is marked is closed to every writer: what comes for it counts in the open one. Once no
transaction is left that began before that, none of its rows can change, and the file has them all.
Each step may be the last of a process: the next run goes on from what is committed.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from govbudget.db.governed import Governed
from govbudget.db.retries import pause
from govbudget.db.sql import read_time
from govbudget.db.tables import Tables
from govbudget.errors import GovBudgetError, InvalidInput
from govbudget.identity import OPERATOR, Action, Ledger
from govbudget.migrations import head_revision
from govbudget.new_ids import write_new_id
from govbudget.spend.limits import describe_limits
from govbudget.spend.statements import NOW, close_due, find_start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date
    from pathlib import Path

    from govbudget.db.gov import Gov
    from govbudget.db.unit import Grant

BATCH = 1000
WAIT_SECONDS = 60
KEYS = {"ai_usage": ("organization_id", "event_id"), "ai_holds": ("id",)}
NEXT_MONTH = "(m.month + interval '1 month')"
MAY_END = f"{find_start(NEXT_MONTH)} + :days * interval '1 day'"
OF_MONTH = "starts_on >= :since AND starts_on < CAST(:until AS date) + interval '1 month'"
MONTH_OF = "date_trunc('month', {}::timestamp)::date"


def _govern(name: str, text: str) -> Governed[Ledger]:
    return Governed(f"closing.{name}", Action.UPDATE, Ledger, text, parts=describe_limits)


LOOK = _govern(
    "look",
    f"""
SELECT {MAY_END} <= {NOW} AS has_ended, {read_time(MAY_END, "at")}, c.month AS marked, c.file,
       c.closed_at IS NOT NULL AS is_closed, {{s}}.is_closed(m.month) AS is_past,
       least((SELECT min(period) FROM {{s}}.ai_usage WHERE period < m.month),
             (SELECT min(period) FROM {{s}}.ai_holds WHERE period < m.month)) AS earlier,
       (SELECT p.file ->> 'sha256' FROM {{s}}.ai_closings p WHERE p.month < m.month
        ORDER BY p.month DESC LIMIT 1) AS previous
FROM (SELECT CAST(:month AS date) AS month) m
LEFT JOIN {{s}}.ai_closings c ON c.month = m.month
""",
)
MARK = _govern("mark", "INSERT INTO {s}.ai_closings (month) VALUES (:month) ON CONFLICT DO NOTHING")
# What was under way when the month was marked has a snapshot, or a number, from before `boundary`.
LOCK = _govern("lock", "SELECT pg_try_advisory_xact_lock(hashtextextended('{s}.ai_closings', 0))")
BOUNDARY = _govern(
    "boundary", "SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)"
)
OLDER = _govern(
    "older",
    """
SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) < :boundary
         OR count(pid) FILTER (WHERE age(backend_xmin) > b.age AND datname = current_database()) > 0
         AS is_there,
       coalesce(string_agg(pid::text, ', ' ORDER BY pid), 'none') AS processes
FROM (SELECT age(CAST(CAST(:boundary % 4294967296 AS text) AS xid)) AS age) b
LEFT JOIN pg_catalog.pg_stat_activity
  ON pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND (age(backend_xmin) > b.age OR age(backend_xid) > b.age)
""",
)
# Of one member and past month, the first of which some expired; of a closed month all have.
SWEEP = _govern(
    "sweep",
    f"""
WITH asking AS (
  SELECT organization_id, user_id, period, at
  FROM (
    SELECT h.*, CASE WHEN period <= (SELECT max(month) FROM {{s}}.ai_closings) THEN 'infinity'
                     ELSE {NOW} END AS at
    FROM {{s}}.ai_holds h
    WHERE is_open AND period < {MONTH_OF.format(f"timezone({{zone}}, {NOW})")}
  ) AS open
  WHERE expires_at <= at LIMIT 1
), {close_due()}, counter AS (
  INSERT INTO {{s}}.ai_spend_counters AS c
    (organization_id, user_id, period, spent_picos, held_picos)
  SELECT organization_id, user_id, period, 0, 0 FROM asking
  ON CONFLICT (organization_id, user_id, period) DO UPDATE
    SET held_picos = c.held_picos - (SELECT coalesce(sum(cost_picos), 0) FROM expired)
)
SELECT count(*) FROM asking
""",
)


def _read_rows(table: str) -> Governed[Ledger]:
    text = f"SELECT to_json(t)::text AS row FROM {{s}}.{table} t WHERE period = :month"
    return _govern(f"read_{table}", text)


def _delete_rows(table: str) -> Governed[Ledger]:
    """Delete rows that are, to the last column, as the file has them."""
    is_it = " AND ".join(f"t.{key} = f.{key}" for key in KEYS[table])
    return _govern(
        f"delete_{table}",
        f"""
DELETE FROM {{s}}.{table} t
USING jsonb_populate_recordset(CAST(NULL AS {{s}}.{table}), CAST(:batch AS jsonb)) f
WHERE {is_it} AND t = f
""",
    )


READ_USAGE, READ_HOLDS = map(_read_rows, KEYS)
DELETE_USAGE, DELETE_HOLDS = map(_delete_rows, KEYS)
ROLLUPS = f"""
SELECT organization_id, group_id, user_id, provider, model, grain, starts_on, cost_picos AS cost,
       calls, unpriced_calls AS unpriced
FROM {{s}}.ai_spend_rollups WHERE {OF_MONTH}"""
# The sums of a month and organization, and a digest of every sum of a member, in any order.
SUMS = _govern(
    "sums",
    f"""
SELECT month, organization_id, jsonb_build_object(
  'cost_picos', sum(cost)::text, 'calls', sum(calls), 'unpriced_calls', sum(unpriced),
  'digest', sum(CAST(CAST('x' || left(md5(line), 15) AS bit(60)) AS bigint))::text) AS sums
FROM (
  SELECT {MONTH_OF.format("starts_on")} AS month, organization_id,
         CASE grain WHEN 'month' THEN cost ELSE 0 END AS cost,
         CASE grain WHEN 'month' THEN calls ELSE 0 END AS calls,
         CASE grain WHEN 'month' THEN unpriced ELSE 0 END AS unpriced,
         jsonb_build_array(grain, starts_on - date '2000-01-01', group_id, user_id, provider,
                           model, cost, calls, unpriced)::text AS line
  FROM ({ROLLUPS}) AS r
  UNION ALL
  SELECT period, organization_id, 0, 0, 0, concat_ws('/', user_id, spent_picos, held_picos)
  FROM {{s}}.ai_spend_counters WHERE period BETWEEN :since AND :until
) AS lines GROUP BY month, organization_id
""",
)
SPENT = _govern(
    "spent",
    f"""
SELECT organization_id, group_id, user_id, grain, sum(cost) AS cost, sum(calls) AS calls,
       sum(unpriced) AS unpriced
FROM ({ROLLUPS}) AS r GROUP BY organization_id, group_id, user_id, grain
""",
)
STORE = _govern(
    "store",
    f"""
WITH stored AS (
  UPDATE {{s}}.ai_closings SET file = :facts, sums = :sums
  WHERE month = :month AND file IS NULL RETURNING month
)
INSERT INTO {{s}}.audit_log (id, object_type, object_id, after, receipt)
SELECT {write_new_id()}, 'ai_closing', to_char(month, 'YYYY-MM'), :facts, :receipt FROM stored
""",
)
END = _govern(
    "end",
    """
UPDATE {s}.ai_closings SET closed_at = coalesce(closed_at, now())
WHERE month = :month AND NOT EXISTS (SELECT FROM {s}.ai_usage WHERE period = :month)
  AND NOT EXISTS (SELECT FROM {s}.ai_holds WHERE period = :month)
RETURNING month
""",
)
LIST = _govern(
    "list",
    """
SELECT month, file, sums, EXISTS (
  SELECT FROM {s}.audit_log l WHERE l.organization_id IS NULL AND l.object_type = 'ai_closing'
  AND l.object_id = to_char(month, 'YYYY-MM') AND l.after = c.file) AS is_in_trail
FROM {s}.ai_closings c WHERE file IS NOT NULL ORDER BY month
""",
)


class Closing(NamedTuple):
    """A closed month: what the table of closings and the audit trail keep of its file."""

    month: date
    sha256: str
    previous_sha256: str | None
    ai_usage: int
    ai_holds: int

    @property
    def facts(self) -> dict[str, Any]:
        """What is kept of the file."""
        return {name: value for name, value in self._asdict().items() if name != "month"}


class _File:
    """A file as it is read once, to its end: its digest, its rows, and what they add up to."""

    def __init__(self, path: Path) -> None:
        self.path, self.digest = path, sha256()
        self.header: dict[str, Any] = {}
        self.rows, self.sums = Counter[str](), dict[tuple[str, ...], list[int]]()
        self._unpriced = dict[tuple[str, str], list[int]]()
        self._corrected = set[tuple[str, str]]()

    def read(self) -> Iterator[tuple[str, Any]]:
        """Give the table and the row of each line."""
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines):
                self.digest.update(line)
                try:
                    ((table, row),) = json.loads(line).items()
                    known = table in (KEYS if number else ("govbudget",))
                except (ValueError, AttributeError):
                    known = False
                if not known:
                    raise InvalidInput(f"{self.path}, line {number + 1}, is not of a closed month")
                if number == 0:
                    self.header = row
                    continue
                self.rows[table] += 1
                if table == "ai_usage":
                    self._add(row)
                yield table, row
        for event in self._unpriced.keys() & self._corrected:
            self._unpriced[event][2] -= 1

    def _add(self, row: Any) -> None:  # noqa: ANN401 - JSON
        names = ("organization_id", "group_id", "user_id")
        sums = self.sums.setdefault(tuple(str(row[name]) for name in names), [0, 0, 0])
        sums[0] += row["cost_picos"] or 0
        sums[1] += row["corrects"] is None
        if row["cost_picos"] is None or row["unpriced"] is not None:
            sums[2] += 1
            self._unpriced[str(row["organization_id"]), row["event_id"]] = sums
        if row["corrects"] is not None:
            self._corrected.add((str(row["organization_id"]), row["corrects"]))


def prove_file(grant: Grant[Ledger], path: Path) -> Iterator[str]:
    """Say in what a file differs from what is stored of its month: a sentence each.

    Its rows add up to the rollups; where the month is closed, its digest and the numbers of its
    rows are those that were stored. Needs a grant to `update` the ledger.
    """
    file = _File(path)
    for _ in file.read():
        pass
    month = str(file.header.get("month"))
    kept = {f"{c.month:%Y-%m}": c.file for c in grant.run(LIST)}.get(month)
    facts = {"sha256": file.digest.hexdigest(), **{table: file.rows[table] for table in KEYS}}
    for name, value in facts.items():
        if kept is not None and kept[name] != value:
            yield f"{path}: its {name} is {value}; of {month} was stored {kept[name]}"
    stored: dict[str, dict[tuple[str, ...], list[int]]] = {"day": {}, "month": {}}
    since = f"{month}-01"
    for o, g, u, grain, *sums in grant.run(SPENT, since=since, until=since):
        stored[grain][str(o), str(g), str(u)] = list(map(int, sums))
    for grain, rollups in stored.items():
        for whose in sorted(rollups.keys() | file.sums.keys()):
            was, now = (sums.get(whose, [0, 0, 0]) for sums in (file.sums, rollups))
            if was != now:
                yield (
                    f"organization {whose[0]}, group {whose[1]}, user {whose[2]}: the {grain}"
                    f" rollups of {month} have {now[0]} picos of {now[1]} calls ({now[2]}"
                    f" unpriced), {path} {was[0]} of {was[1]} ({was[2]})"
                )


def verify_closings(grant: Grant[Ledger], organization_id: object = None) -> Iterator[str]:
    """Say in what closed months differ from what was stored when they were closed.

    Their rollups and counters, the chain of the files' digests, and the audit trail. Needs a grant
    to `update` the ledger.
    """
    closings = grant.run(LIST).all()
    if not closings:
        return
    found: dict[Any, dict[str, Any]] = {closing.month: {} for closing in closings}
    span = {"since": closings[0].month, "until": closings[-1].month}
    for row in grant.run(SUMS, **span):
        found.setdefault(row.month, {})[str(row.organization_id)] = row.sums
    previous = None
    for closing in closings:
        name = f"the closed month {closing.month:%Y-%m}"
        if closing.file["previous_sha256"] != previous or not closing.is_in_trail:
            yield f"{name}: its file's digest is not in the chain, or not in the audit trail"
        previous = closing.file["sha256"]
        now = found[closing.month]
        for whose in sorted(now.keys() | closing.sums.keys()):
            then_and_now = closing.sums.get(whose), now.get(whose)
            if then_and_now[0] != then_and_now[1] and str(organization_id or whose) == whose:
                yield (
                    f"organization {whose}: {name} had {then_and_now[0]}, and has {then_and_now[1]}"
                )


def close_month(gov: Gov, month: date, path: Path, days: int) -> Closing:
    """Close the month, or go on with a closing; commits each step, on connections of its own.

    Raises InvalidInput where the month has not ended `days` days ago, an earlier one has rows, the
    file is another one, or its rows don't add up; `unavailable` where another closing runs, or
    older transactions don't end in a minute.
    """
    with gov.unit(OPERATOR) as unit:
        grant = unit.authorize("update", ledger=True)
        seen = grant.run(LOOK, month=month, days=days).one()
        if seen.marked is None:
            _refuse_early(month, seen)
        if seen.file is None:
            with gov.unit(OPERATOR, atomic=True) as guard:
                _write(grant, guard.authorize("update", ledger=True), month, path, seen.previous)
        elif not seen.is_closed and (findings := list(prove_file(grant, path))):
            raise InvalidInput(f"{findings[0]}; give the file that {month:%Y-%m} went to")
        if not seen.is_closed:
            _delete(grant, month, path)
        return Closing(month, **grant.run(LOOK, month=month, days=days).one().file)


def _refuse_early(month: date, seen: Any) -> None:  # noqa: ANN401 - a row
    """Refuse to mark a month too early, or before or after others."""
    reason = None
    if not seen.has_ended:
        reason = f"can be closed from {seen.at:%Y-%m-%d %H:%M} UTC on, so that late calls find it"
    elif seen.is_past:
        reason = "is before a month that is closed, and had no rows then"
    elif seen.earlier is not None:
        reason = f"comes after {seen.earlier:%Y-%m}, which has rows; close that first"
    if reason is not None:
        raise InvalidInput(f"{month:%Y-%m} {reason}")


def _write(
    grant: Grant[Ledger], guard: Grant[Ledger], month: date, path: Path, previous: str | None
) -> None:
    """Mark the month and write its file; `guard` keeps other closings away while it does."""
    if not guard.run(LOCK).scalar_one():
        raise GovBudgetError("unavailable", "another closing runs; wait for its end")
    if path.exists() and _read_month(path) != f"{month:%Y-%m}":
        raise InvalidInput(f"{path} is there already, and is not of {month:%Y-%m}; name another")
    grant.run(MARK, month=month)
    _wait_for_older(grant)
    while grant.run(SWEEP).scalar_one():
        pass
    closing = _export(guard, month, path, previous)
    if findings := list(prove_file(grant, path)):
        raise InvalidInput(
            f"the rows of {month:%Y-%m} don't add up to its rollups, so none is deleted:"
            f" {findings[0]}; find the cause with `govbudget spend verify`"
        )
    rows = grant.run(SUMS, since=month, until=month)
    sums = {str(row.organization_id): row.sums for row in rows}
    grant.run(STORE, month=month, facts=closing.facts, sums=sums)


def _wait_for_older(grant: Grant[Ledger]) -> None:
    """Wait until no transaction is left that may not have seen that the month is marked."""
    boundary, end = grant.run(BOUNDARY).scalar_one(), time.monotonic() + WAIT_SECONDS
    while (older := grant.run(OLDER, boundary=boundary).one()).is_there:
        if time.monotonic() > end:
            raise GovBudgetError(
                "unavailable",
                f"transactions that are older than the closing still run after {WAIT_SECONDS} s"
                f" (processes: {older.processes}; see pg_stat_activity and pg_prepared_xacts);"
                " end them, or wait, and run this again",
            )
        pause(100, 100)


def _export(guard: Grant[Ledger], month: date, path: Path, previous: str | None) -> Closing:
    """Write the file under another name, and give it its own once it is on the disk."""
    gov, partial = guard.unit.gov, path.with_name(f"{path.name}.partial")
    digest, counts = sha256(), Counter[str]()
    tables = Tables(gov.settings.layout)
    header = {
        "month": f"{month:%Y-%m}",
        "organizations": "all",
        "time_zone": gov.settings.time_zone,
        "schema_revision": head_revision(),
        "previous_sha256": previous,
        "columns": {table: getattr(tables, table).c.keys() for table in KEYS},
    }
    guard.unit.connection.execution_options(stream_results=True, yield_per=BATCH)
    with partial.open("wb") as file:

        def write(table: str, row: str) -> None:
            line = f'{{"{table}":{row}}}\n'.encode()
            digest.update(line)
            file.write(line)

        write("govbudget", json.dumps(header))
        for table, read in zip(KEYS, (READ_USAGE, READ_HOLDS), strict=True):
            for (row,) in guard.run(read, month=month):
                write(table, row)
                counts[table] += 1
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return Closing(month, digest.hexdigest(), previous, *(counts[table] for table in KEYS))


def _delete(grant: Grant[Ledger], month: date, path: Path) -> None:
    """Delete the rows that the file has, some at a time; every other row stays, and is an error."""
    rows = _File(path).read()
    while batch := list(islice(rows, BATCH)):
        for table, delete in zip(KEYS, (DELETE_USAGE, DELETE_HOLDS), strict=True):
            found = [row for name, row in batch if name == table]
            if found:
                grant.run(delete, batch=json.dumps(found))
    if grant.run(END, month=month).one_or_none() is None:
        raise InvalidInput(
            f"{month:%Y-%m} has rows that are not in {path}, or are other there: they were changed"
            " behind the closing's back, and stay; all others are deleted"
        )


def _read_month(path: Path) -> str | None:
    """Read of which month a file is."""
    file = _File(path)
    next(file.read(), None)
    return file.header.get("month")
