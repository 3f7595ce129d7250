"""The file of a closed month: written once, proved by what is stored of it, and read to its end."""

from __future__ import annotations

import json
import os
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from govbudget.db.tables import Tables
from govbudget.errors import InvalidInput
from govbudget.migrations import head_revision
from govbudget.spend.closing_statements import KEYS, LIST, READ_HOLDS, READ_USAGE, SPENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date
    from pathlib import Path

    from govbudget.db.unit import Grant
    from govbudget.identity import Ledger

BATCH = 1000


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


class MonthFile:
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
    file = MonthFile(path)
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


def write_file(guard: Grant[Ledger], month: date, path: Path, previous: str | None) -> Closing:
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


def read_month(path: Path) -> str | None:
    """Read of which month a file is."""
    file = MonthFile(path)
    next(file.read(), None)
    return file.header.get("month")
