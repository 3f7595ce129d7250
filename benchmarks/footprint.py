"""Memory and start: the table, a million decisions, and what an import adds."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING

from benchmarks.measure import Row, Spread, say
from govbudget import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.measure import Effort

# Each of these runs in a process of its own and prints one number.
_GROWTH = """
import sys, os, subprocess
from govbudget import Assignment, Domain, Group, Policy, Scope, Subject
policy = Policy.load()
def resident():
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())],
                              capture_output=True, check=True).stdout)
def decide(first, last):
    for user in range(first, last):
        group = Group(user + 1, user + 2)
        held = (Assignment("org-admin", Domain(Scope.ORGANIZATION, user + 2)),)
        policy.authorize(Subject(user, held), "update", group)
decide(0, 10_000)
before = resident()
decide(10_000, 10_000 + int(sys.argv[1]))
print(resident() - before)
"""
_PEERS = "import flask, sqlalchemy, psycopg"
_HOST = f"{_PEERS}\napp = flask.Flask('host')\nengine = sqlalchemy.create_engine('postgresql+psycopg://')"
_START = """
from time import perf_counter
{before}
started = perf_counter()
{after}
print(perf_counter() - started)
"""
_INSTALL = "import govbudget\ngovbudget.GovBudget(app, engine=engine, identify=lambda: None)"
_STARTS = (
    ("import govbudget", _PEERS, "import govbudget"),
    ("import, then GovBudget(app)", _HOST, _INSTALL),
    # Without a host that made its engine, what SQLAlchemy imports for PostgreSQL counts as well.
    ("engine, import, then GovBudget(app)", _PEERS, f"{_HOST.partition(chr(10))[2]}\n{_INSTALL}"),
    ("from govbudget import Policy, then load", "", "from govbudget import Policy; Policy.load()"),
    ("the others: flask, sqlalchemy, psycopg", "", _PEERS),
)
KIB = 1024
MAX_TABLE_KIB = 100
MAX_START_MS = 100
MAX_GROWTH_KIB = 64  # a page here and there is the allocator's


def measure_footprint(effort: Effort) -> Iterator[Row]:
    """The memory of the table and of decisions, and the time that a start takes."""
    yield _measure_table()
    say(f"footprint: {effort.decisions:,} decisions")
    growth = _run(_GROWTH, str(effort.decisions))
    yield Row(
        "footprint", f"growth over {effort.decisions:,} decisions for as many users", "govbudget",
        Spread.of([growth]), "KiB", target=f"<= {MAX_GROWTH_KIB} KiB",
        met=growth <= MAX_GROWTH_KIB,
    )  # fmt: skip
    say("footprint: starts in fresh processes")
    times: dict[str, list[float]] = {what: [] for what, _, _ in _STARTS}
    for _ in range(effort.processes):
        for what, before, after in _STARTS:
            times[what].append(_run(_START.format(before=before, after=after)) * 1000)
    for what, samples in times.items():
        value = Spread.of(samples)
        bound = what == "import, then GovBudget(app)"
        yield Row(
            "footprint", what, "fresh process", value, "ms",
            target=f"<= {MAX_START_MS} ms" if bound else "",
            met=value.median <= MAX_START_MS if bound else None,
        )  # fmt: skip


def _measure_table() -> Row:
    Policy.load()  # what Casbin and the rest keep for themselves is there beforehand
    gc.collect()
    tracemalloc.start()
    policy = Policy.load()
    gc.collect()
    kept = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(inclusive=True, filename_pattern="*govbudget/*", all_frames=True)]
    )
    tracemalloc.stop()
    size = sum(trace.size for trace in kept.traces) / KIB
    assert policy.table.lines
    return Row(
        "footprint", "table of the shipped policy", "govbudget", Spread.of([size]), "KiB",
        target=f"<= {MAX_TABLE_KIB} KiB", met=size <= MAX_TABLE_KIB,
    )  # fmt: skip


def _run(program: str, *arguments: str) -> float:
    done = subprocess.run(  # noqa: S603 - our own Python and program
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return float(done.stdout)
