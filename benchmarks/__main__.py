"""`python -m benchmarks [SECTION ...] [--quick] [--json FILE]`: measure, and print one table."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.database import start_database
from benchmarks.decide import measure_decide
from benchmarks.footprint import measure_footprint
from benchmarks.listing import measure_listing
from benchmarks.load import measure_load, measure_settings
from benchmarks.measure import FULL, QUICK, Row, say
from benchmarks.policies import measure_policies
from benchmarks.prices import measure_prices
from benchmarks.report import measure_report
from benchmarks.requests import measure_requests
from benchmarks.review import measure_review
from benchmarks.scale import measure_scale
from benchmarks.spend import measure_spend
from benchmarks.table import write_json, write_table
from benchmarks.wal import measure_wal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa

    from benchmarks.measure import Effort

# These need no database, or start servers of their own.
ALONE: dict[str, Callable[[Effort], Iterator[Row]]] = {
    "decide": measure_decide,
    "policy": measure_policies,
    "footprint": measure_footprint,
    "review": measure_review,
    "scale": measure_scale,
}
WITH_DATABASE: dict[str, Callable[[Effort, sa.URL], Iterator[Row]]] = {
    "requests": measure_requests,
    "listing": measure_listing,
    "prices": measure_prices,
    "spend": measure_spend,
    "report": measure_report,
    "wal": measure_wal,
    "load": measure_load,
    "settings": measure_settings,
}


def main() -> int:
    """Run the sections that were named, or all; 1 where a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [*ALONE, *WITH_DATABASE]
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="show that all works; a minute or two")
    parser.add_argument("--json", metavar="FILE", help="write everything here too (`-`: instead)")
    arguments = parser.parse_args()
    for name in arguments.sections:
        if name not in names:
            parser.error(f"no section `{name}`; known are: {', '.join(names)}")
    effort = QUICK if arguments.quick else FULL
    rows = list(measure(arguments.sections or names, effort))
    if arguments.json == "-":
        sys.stdout.write(write_json(rows, effort) + "\n")
    else:
        sys.stdout.write(write_table(rows, effort))
    if arguments.json not in (None, "-"):
        Path(arguments.json).write_text(write_json(rows, effort) + "\n", encoding="utf-8")
    return int(any(row.met is False for row in rows))


def measure(sections: list[str], effort: Effort) -> Iterator[Row]:
    """Run sections one after the other; PostgreSQL is started when the first one needs it."""
    with ExitStack() as stack:
        server = None
        for name in sections:
            say(name)
            if name in ALONE:
                yield from ALONE[name](effort)
                continue
            server = server or stack.enter_context(start_database())
            yield from WITH_DATABASE[name](effort, server)


if __name__ == "__main__":
    sys.exit(main())
