"""What so many users need, worked out from what one call costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import TYPE_CHECKING

from benchmarks.measure import Row, Spread
from benchmarks.table import write_number

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = (1_000, 100_000, 1_000_000)
# Assumed of a user, on every day of the year.
CALLS_A_DAY, MODELS_A_DAY = 100, 3
PEAK = 10  # the busiest second, over the mean one
# Of one server: cores, of which half are busy at the peak; bytes of ledger and holds; and hours in
# which it closes a month.
CORES, BUSY, DISK, CLOSING_HOURS = 16, 0.5, 2e12, 24
# A month is closed 60 days after its end; until then there are that month and two more.
KEPT_DAYS, DAYS, MONTHS = 92, 365, 12
# Bytes of a row with its indexes, of docs/how-to/what-grows.md.
ROLLUP, COUNTER = 320, 240
DAY_SECONDS, HOUR_SECONDS = 86_400, 3600
COMMITS = 2  # of a call, each of which waits for the disk
GIGA, MEGA = 1e9, 1e6


@dataclass(frozen=True, slots=True)
class Costs:
    """What a call costs: seconds of processor, bytes, and the rate at which a month is closed."""

    server_seconds: float
    client_seconds: float
    commit_seconds: float
    wal: float
    stored: float
    closed_a_second: float


@dataclass(frozen=True, slots=True)
class Needs:
    """What so many users need."""

    calls_a_second: float  # at the peak, as all that follows
    server_cores: float  # half busy
    client_cores: float  # wholly busy
    connections: float  # that are in a statement
    wal_megabytes_a_second: float
    wal_gigabytes_a_day: float
    kept_gigabytes: float  # of ledger and holds, where months are closed
    kept_gigabytes_a_year: float  # where none is
    stays_gigabytes_a_year: float  # rollups and counters
    closing_hours: float  # of one month, one after the other
    databases: int


def work_out(users: int, costs: Costs) -> Needs:
    """Work out what so many users need."""
    calls = users * CALLS_A_DAY
    peak = calls / DAY_SECONDS * PEAK
    cores = peak * costs.server_seconds / BUSY
    kept = calls * KEPT_DAYS * costs.stored
    rows = users * ((DAYS + MONTHS) * MODELS_A_DAY * ROLLUP + MONTHS * COUNTER)
    closing = calls * DAYS / MONTHS / costs.closed_a_second / HOUR_SECONDS
    return Needs(
        peak,
        cores,
        peak * costs.client_seconds,
        peak * (costs.server_seconds + COMMITS * costs.commit_seconds),
        peak * costs.wal / MEGA,
        calls * costs.wal / GIGA,
        kept / GIGA,
        calls * DAYS * costs.stored / GIGA,
        rows / GIGA,
        closing,
        ceil(max(cores / CORES, kept / DISK, closing / CLOSING_HOURS)),
    )


def report_needs(costs: Costs) -> Iterator[Row]:
    """Give a row for each number of users."""
    for users in USERS:
        needs = asdict(work_out(users, costs))
        databases = Spread.of([float(needs["databases"])])
        note = ", ".join(f"{k.replace('_', ' ')} {write_number(v)}" for k, v in needs.items())
        yield Row(
            "scale", f"{users:,} users", "need", databases, "databases", note=note, details=needs
        )
