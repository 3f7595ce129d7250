"""The file of a closed month: written once, proved by what is stored of it, and read to its end."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, NamedTuple

from govbudget.db.revisions import head_revision
from govbudget.db.tables import Tables
from govbudget.db.unit import Grant
from govbudget.errors import InvalidInput
from govbudget.identity import Ledger
from govbudget.spend.closing_statements import KEYS, LIST, READ_HOLDS, READ_USAGE, SPENT

BATCH = 1000
# A line is far shorter. What has none of ours is not read whole.
MAX_LINE = 1 << 20


class Closing(NamedTuple):
    """What the table of closings and the audit trail keep of the file of a closed month."""

    sha256: str
    previous_sha256: str | None
    ai_usage: int
    ai_holds: int


class MonthFile:
    """A file as it is read once, to its end: its digest, its rows, and what they add up to."""

    def __init__(self, path: Path) -> None:
        self.path, self.digest = path, sha256()
        self.month: date | None = None
        self.rows, self.sums = Counter[str](), dict[tuple[str, ...], list[int]]()
        self._unpriced = dict[tuple[str, str], list[int]]()
        self._corrected = set[tuple[str, str]]()

    def read(self) -> Iterator[tuple[str, Any]]:
        """Give the table and the row of each line; InvalidInput: it is not a closed month's."""
        with self.path.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE), b""), 1):
                self.digest.update(line)
                try:
                    ((table, row),) = json.loads(line).items()
                    self._take(table, row)
                except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
                    raise self._refuse(number) from None
                if number > 1:
                    yield table, row
        if self.month is None:
            raise self._refuse(1)
        for event in self._unpriced.keys() & self._corrected:
            self._unpriced[event][2] -= 1

    def read_month(self) -> date | None:
        """Read of which month it is; None where it is not a closed month's."""
        with suppress(InvalidInput):
            next(self.read(), None)
        return self.month

    def _refuse(self, number: int) -> InvalidInput:
        return InvalidInput(
            f"{self.path}, line {number}, is not of a closed month; give the file that `spend"
            " close` wrote, whole and unpacked"
        )

    def _take(self, table: str, row: Any) -> None:  # noqa: ANN401 - JSON
        if self.month is None:
            self.month = date.fromisoformat(f"{row['month'] if table == 'govbudget' else ''}-01")
            return
        if table not in KEYS:
            raise LookupError(table)
        self.rows[table] += 1
        if table == "ai_usage":
            self._add(row)

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


def prove_file(
    grant: Grant[Ledger], path: Path, month: date | None = None, kept: dict[str, Any] | None = None
) -> Iterator[str]:
    """Say in what a file differs from what is stored of its month: a sentence each.

    Its digest and the numbers of its rows are those that were stored when the month was closed, or
    else `kept`, and its rows add up to the rollups. It is of `month`, where one is given. Needs a
    grant to `update` the ledger.
    """
    file = MonthFile(path)
    for _ in file.read():
        pass
    kept = kept or {c.month: c.file for c in grant.run(LIST)}.get(file.month)
    name, since = f"{file.month:%Y-%m}", file.month
    if since != (month or since) or kept is None:
        yield f"{path} is of {name}" + ("" if kept else ", which is not closed in this database")
        return
    facts = {"sha256": file.digest.hexdigest(), **{table: file.rows[table] for table in KEYS}}
    for fact, value in facts.items():
        if kept[fact] != value:
            yield f"{path}: its {fact} is {value}; of {name} was stored {kept[fact]}"
    stored: dict[str, dict[tuple[str, ...], list[int]]] = {"day": {}, "month": {}}
    for o, g, u, grain, *sums in grant.run(SPENT, since=since, until=since):
        stored[grain][str(o), str(g), str(u)] = list(map(int, sums))
    for grain, rollups in stored.items():
        for whose in sorted(rollups.keys() | file.sums.keys()):
            was, now = (sums.get(whose, [0, 0, 0]) for sums in (file.sums, rollups))
            if was != now:
                yield (
                    f"organization {whose[0]}, group {whose[1]}, user {whose[2]}: the {grain}"
                    f" rollups of {name} have {now[0]} picos of {now[1]} calls ({now[2]}"
                    f" unpriced), {path} {was[0]} of {was[1]} ({was[2]})"
                )


@contextmanager
def open_file(path: Path) -> Iterator[IO[bytes]]:
    """Open the file under another name, and give it its own once it is on the disk.

    Raises InvalidInput where it can't be written; nothing of it is left then.
    """
    path = Path(os.path.realpath(path))
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            reason = (error.strerror or str(error)).lower()
            raise InvalidInput(
                f"{path} can't be written: {reason}; nothing was deleted; make room, or name"
                " another file, and run this again"
            ) from error
        raise


def write_rows(guard: Grant[Ledger], month: date, file: IO[bytes], previous: str | None) -> Closing:
    """Write the month's rows to the file, and a first line that describes them."""
    gov, digest, counts = guard.unit.gov, sha256(), Counter[str]()
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

    def write(table: str, row: str) -> None:
        line = f'{{"{table}":{row}}}\n'.encode()
        digest.update(line)
        file.write(line)

    write("govbudget", json.dumps(header))
    for table, read in zip(KEYS, (READ_USAGE, READ_HOLDS), strict=True):
        with guard.run(read, month=month) as rows:
            for (row,) in rows:
                write(table, row)
                counts[table] += 1
    return Closing(digest.hexdigest(), previous, *(counts[table] for table in KEYS))
