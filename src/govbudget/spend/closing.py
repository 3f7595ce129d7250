"""Close a month: write its calls and holds to a file, prove the file, and take its rows out.

A month that is marked is closed to every writer: what comes for it counts in the open one. Once no
transaction is left that began before that, none of its rows can change, and the file has them all.
Each step may be the last of a process: the next run goes on from what is committed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from govbudget.db.gov import Gov
from govbudget.db.retries import pause
from govbudget.db.unit import Grant
from govbudget.errors import GovBudgetError, InvalidInput
from govbudget.identity import OPERATOR, Ledger
from govbudget.spend import closing_statements as statements
from govbudget.spend.closing_file import (
    BATCH,
    Closing,
    MonthFile,
    open_file,
    prove_file,
    write_rows,
)

WAIT_SECONDS = 60


def close_month(gov: Gov, month: date, path: Path, days: int) -> Closing:
    """Close the month, or go on with a closing; commits each step, on connections of its own.

    Raises InvalidInput where the month has not ended `days` days ago, an earlier one has rows, the
    file is another one, or its rows don't add up; `unavailable` where another closing runs, or
    older transactions don't end in a minute.
    """
    with gov.unit(OPERATOR) as unit:
        grant = unit.authorize("update", ledger=True)
        with gov.unit(OPERATOR, atomic=True) as guarded:
            guard = guarded.authorize("update", ledger=True)
            if not guard.run(statements.LOCK).scalar_one():
                raise GovBudgetError("unavailable", "another closing runs; wait for its end")
            seen = grant.run(statements.LOOK, month=month, days=days).one()
            if seen.marked is None:
                _refuse_early(month, seen)
            if seen.file is None:
                _write(grant, guard, month, path, seen)
        if seen.file is not None:
            _refuse_wrong(grant, path, month, seen.file["sha256"])
        if not seen.is_closed:
            _delete(grant, month, path)
        grant.run(statements.FORGET, month=month)
        return Closing(**grant.run(statements.LOOK, month=month, days=days).one().file)


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


def _refuse_wrong(grant: Grant[Ledger], path: Path, month: date, digest: str) -> None:
    """Refuse another file than the one that the month went to."""
    findings = prove_file(grant, path, month) if path.exists() else iter([f"{path} is not there"])
    if finding := next(findings, None):
        raise InvalidInput(
            f"{finding}; {month:%Y-%m} went to the file whose sha256 is {digest}: give that one"
        )


def _write(
    grant: Grant[Ledger],
    guard: Grant[Ledger],
    month: date,
    path: Path,
    seen: Any,  # noqa: ANN401 - a row
) -> None:
    """Mark the month and write its file; `guard` keeps other closings away while it does."""
    _refuse_other(path, month, seen)
    with open_file(path) as file:  # first: a month is not marked for a file that can't be
        grant.run(statements.MARK, month=month)
        _wait_for_older(grant)
        while grant.run(statements.SWEEP).scalar_one():
            pass
        facts = write_rows(guard, month, file, seen.previous)._asdict()
    if findings := list(prove_file(grant, path, month, facts)):
        raise InvalidInput(
            f"the rows of {month:%Y-%m} don't add up to its rollups, so none is deleted:"
            f" {findings[0]}; find the cause with `govbudget spend verify`"
        )
    rows = grant.run(statements.SUMS, since=month, until=month)
    sums = {str(row.organization_id): row.sums for row in rows}
    grant.run(statements.STORE, month=month, facts=facts, sums=sums)


def _refuse_other(path: Path, month: date, seen: Any) -> None:  # noqa: ANN401 - a row
    """Refuse to write over anything but what an interrupted closing of the month has written."""
    if not path.exists():
        return
    if not path.is_file() or MonthFile(path).read_month() != month:
        raise InvalidInput(f"{path} is there already, and is not of {month:%Y-%m}; name another")
    if seen.marked is None:
        raise InvalidInput(
            f"{path} is there already, and may be the only record of its calls: no closing of"
            f" {month:%Y-%m} was interrupted in this database; name another"
        )


def _wait_for_older(grant: Grant[Ledger]) -> None:
    """Wait until no transaction is left that may not have seen that the month is marked."""
    boundary, end = grant.run(statements.BOUNDARY).scalar_one(), time.monotonic() + WAIT_SECONDS
    while (older := grant.run(statements.OLDER, boundary=boundary).one()).is_there:
        if time.monotonic() > end:
            raise GovBudgetError(
                "unavailable",
                f"transactions that are older than the closing still run after {WAIT_SECONDS} s"
                f" (processes: {older.processes}; see pg_stat_activity and pg_prepared_xacts);"
                " end them, or wait, and run this again",
            )
        pause(100, 100)


def _delete(grant: Grant[Ledger], month: date, path: Path) -> None:
    """Delete the rows that the file has, some at a time; every other row stays, and is an error."""
    rows = MonthFile(path).read()
    while batch := list(islice(rows, BATCH)):
        for table, delete in zip(
            statements.KEYS, (statements.DELETE_USAGE, statements.DELETE_HOLDS), strict=True
        ):
            found = [row for name, row in batch if name == table]
            if found:
                grant.run(delete, batch=json.dumps(found))
    if grant.run(statements.END, month=month).one_or_none() is None:
        raise InvalidInput(
            f"{month:%Y-%m} has rows that are not in {path}, or are other there: they were changed"
            " behind the closing's back, and stay; all others are deleted"
        )


def verify_closings(grant: Grant[Ledger], organization_id: object = None) -> Iterator[str]:
    """Say in what closed months differ from what was stored when they were closed.

    Their rollups and counters, the chain of the files' digests, and the audit trail. Needs a grant
    to `update` the ledger.
    """
    closings = grant.run(statements.LIST).all()
    if not closings:
        return
    found: dict[Any, dict[str, Any]] = {closing.month: {} for closing in closings}
    span = {"since": closings[0].month, "until": closings[-1].month}
    for row in grant.run(statements.SUMS, **span):
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
