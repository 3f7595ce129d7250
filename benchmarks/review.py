"""The reviewer's commands, each in a fresh process: the import, the check and the answer."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.measure import Row, Spread, say
from govbudget.authz.files import packaged_policy_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.measure import Effort

_SHIPPED = str(packaged_policy_dir())
_COMMANDS = {
    "policy check": ("check", _SHIPPED),
    "policy matrix": ("matrix", _SHIPPED),
    "policy explain": ("explain", _SHIPPED, "--role", "org-admin", "--action", "update"),
    "policy diff": ("diff", _SHIPPED, f"{_SHIPPED}/dedicated"),
}
MAX_SECONDS = 0.5


def measure_review(effort: Effort) -> Iterator[Row]:
    """How long each command takes; in pairs with a Python that does nothing, the floor of all."""
    for what, arguments in _COMMANDS.items():
        say(f"review: {what}")
        pairs = [
            (_time("-m", "govbudget", "policy", *arguments), _time("-c", "pass"))
            for _ in range(effort.processes)
        ]
        ours, floor = (Spread.of(side) for side in zip(*pairs, strict=True))
        yield Row(
            "review", what, "fresh process", ours, "s", target=f"<= {MAX_SECONDS} s",
            met=ours.median <= MAX_SECONDS, note=f"python -c pass: {floor.median:.3f} s",
        )  # fmt: skip


def _time(*arguments: str) -> float:
    started = perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)  # noqa: S603 - our own Python
    return perf_counter() - started
