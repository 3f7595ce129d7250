"""How things are measured: interleaved pairs, medians and quartiles."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. `QUICK` shows that all works; figures to quote come from `FULL`."""

    name: Literal["quick", "full"]
    rounds: int  # samples of each side of a pair
    sample_seconds: float  # a sample repeats its work for about this long
    load_seconds: float  # one turn of the load generator
    load_rounds: int
    soak_seconds: float
    processes: int  # fresh processes, where imports are timed
    decisions: int  # for the growth of a process


QUICK = Effort("quick", 2, 0.002, 0.05, 1, 0.3, 1, 2000)
FULL = Effort("full", 41, 0.04, 5.0, 3, 60.0, 21, 1_000_000)


@dataclass(frozen=True, slots=True)
class Spread:
    """Samples of one figure: the median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Summarize samples."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    `ratio` is of `ratio_of` ("pycasbin / govbudget"), and comes from pairs that ran in turn. Where
    issue or documents ask for something, `target` says it and `met` whether it was so.
    """

    section: str
    what: str
    who: str
    value: Spread | None = None
    unit: str = ""
    ratio: Spread | None = None
    ratio_of: str = ""
    target: str = ""
    met: bool | None = None
    note: str = ""
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds per operation of two pieces of work that ran in turn, A B A B ..."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def theirs_to_ours(self) -> Spread:
        """How many times as long theirs takes."""
        return Spread.of([b / a for a, b in zip(self.ours, self.theirs, strict=True)])

    @property
    def ours_to_theirs(self) -> Spread:
        """How many times as long ours takes."""
        return Spread.of([a / b for a, b in zip(self.ours, self.theirs, strict=True)])


def measure_pairs(ours: Work, theirs: Work, effort: Effort, *, operations: int = 1) -> Pairs:
    """Time two pieces of work in turn; each call of either does so many `operations`."""
    sides = [(work, find_repeats(work, effort)) for work in (ours, theirs)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(effort.rounds):
        for samples, (work, repeats) in zip(seconds, sides, strict=True):
            samples.append(time_calls(work, repeats) / operations)
    return Pairs(tuple(seconds[0]), tuple(seconds[1]))


def measure_alone(work: Work, effort: Effort, *, operations: int = 1) -> list[float]:
    """Time one piece of work."""
    repeats = find_repeats(work, effort)
    return [time_calls(work, repeats) / operations for _ in range(effort.rounds)]


def find_repeats(work: Work, effort: Effort) -> int:
    """Find how often to call so that a sample is long enough; warms the work up as well."""
    repeats = 1
    while True:
        per_call = time_calls(work, repeats)
        if per_call * repeats >= effort.sample_seconds / 4:
            return max(1, round(effort.sample_seconds / per_call))
        repeats *= 4


def time_calls(work: Work, repeats: int) -> float:
    """Give the seconds that one of so many calls took."""
    calls = range(repeats)
    started = perf_counter()
    for _ in calls:
        work()
    return (perf_counter() - started) / repeats


def say(text: str) -> None:
    """Tell how far it is; the table goes to standard output alone."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
