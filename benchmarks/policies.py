"""Policies of many lines: what reading, checking and printing them takes."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from itertools import cycle, islice, product
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.measure import Row, Spread, measure_pairs, say
from govbudget import Policy, Scope
from govbudget.authz.files import packaged_policy_dir
from govbudget.authz.matrix import write_matrix
from govbudget.identity import Action, ObjectType
from govbudget.review.check import check_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.measure import Effort

# The shipped roles come first, so that what the shipped policy decides can be asked here too.
SHIPPED = {
    "owner": Scope.SITE,
    "org-admin": Scope.ORGANIZATION,
    "user-admin": Scope.ORGANIZATION,
    "group-member": Scope.GROUP,
}


def measure_policies(effort: Effort) -> Iterator[Row]:
    """Load, check and matrix at several sizes, and what twice the lines cost."""
    cases = [
        (10, 10, "", 0.0),
        (100, 10, "", 0.0),
        (200, 12, "<= 2 s together", 2.0),
        (1000, 10, "<= 3 s together", 3.0),
        (256, 64, "", 0.0),  # the most roles that a policy may have, and no line repeated
    ]
    if effort.name == "quick":
        cases = cases[:2]
    for lines, roles, target, seconds in cases:
        what = f"{lines:,} lines, {roles} roles"
        say(f"policy: {what}")
        with write_policy(lines, roles) as folder:
            yield from _measure_stages(folder, what, effort, target, seconds)
    say("policy: twice the lines")
    lines = 1000 if effort.name == "full" else 100
    with write_policy(lines // 2, 10) as half, write_policy(lines, 10) as whole:
        pairs = measure_pairs(lambda: _do_all(half), lambda: _do_all(whole), effort)
    ratio = pairs.theirs_to_ours
    yield Row(
        "policy", "load + check + matrix", f"{lines:,} lines", Spread.of(pairs.theirs), "s",
        ratio, f"{lines:,} / {lines // 2} lines", "about <= 2", ratio.median <= 2.2,  # noqa: PLR2004
    )  # fmt: skip


@contextmanager
def write_policy(lines: int, roles: int) -> Iterator[Path]:
    """Write a policy of so many lines into a folder of its own.

    Distinct allow lines first, a line of each role in turn (an own role is allowed everything, a
    shipped one what it is as shipped). The lines that are left repeat these, since a closed domain
    has no others but denials.
    """
    folder = Path(tempfile.mkdtemp(prefix="govbudget-bench-"))
    try:
        packaged = packaged_policy_dir()
        shutil.copy(packaged / "model.conf", folder)
        table = Policy.load(packaged).table
        distinct = [line.fields for line in table.lines]
        own = [f"role-{number}" for number in range(roles - len(table.scopes))]
        scopes = cycle(Scope)
        held = {role: next(scopes) for role in own}
        distinct += [
            [role, str(held[role]), str(obj), str(action), "allow"]
            for obj, action, role in product(ObjectType, Action, own)
            if obj is not ObjectType.GROUP_AI_BUDGET  # or budgets would be judged as that
        ]
        rows = islice(cycle(_spread_over_roles(distinct)), lines)
        text = "".join(f"p, {', '.join(fields)}\n" for fields in rows)
        (folder / "policy.csv").write_text(text, encoding="ascii")
        yield folder
    finally:
        shutil.rmtree(folder)


def _spread_over_roles(lines: list[list[str]]) -> list[list[str]]:
    """Put the first line of every role first, then the second of every role, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for fields in lines:
        turns.append((seen[fields[0]], fields))
        seen[fields[0]] += 1
    return [fields for _, fields in sorted(turns, key=lambda turn: turn[0])]


def _measure_stages(
    folder: Path, what: str, effort: Effort, target: str, seconds: float
) -> Iterator[Row]:
    rounds = max(1, effort.rounds // 4)
    times: dict[str, list[float]] = {"load": [], "check": [], "matrix": []}
    for _ in range(rounds):
        times["load"].append(_time(lambda: Policy.load(folder)))
        times["check"].append(_time(lambda: check_policy(folder)))
        times["matrix"].append(_time(lambda: write_matrix(Policy.load(folder).table)))
    for stage, samples in times.items():
        yield Row("policy", stage, what, Spread.of([s * 1000 for s in samples]), "ms")
    together = Spread.of([sum(one) for one in zip(*times.values(), strict=True)])
    yield Row(
        "policy", "load + check + matrix", what, together, "s", target=target,
        met=together.median <= seconds if target else None,
    )  # fmt: skip


def _do_all(folder: Path) -> None:
    Policy.load(folder)
    check_policy(folder)
    write_matrix(Policy.load(folder).table)


def _time(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started
