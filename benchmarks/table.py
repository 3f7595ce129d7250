"""The results as one table for people, or as JSON."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Effort, Row, Spread

HEADER = ("section", "what", "who", "median", "quartiles", "ratio", "quartiles", "of", "target")
_NUMERIC = (3, 4, 5, 6)
PACKAGES = ("govbudget", "flask", "sqlalchemy", "psycopg", "pycasbin", "gunicorn")


def write_table(rows: Sequence[Row], effort: Effort) -> str:
    """Write a Markdown table that also reads well in a terminal, with date and machine above it."""
    cells = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADER))]
    lines = [_write_line(row, widths) for row in cells]
    rule = "|".join("-" * (w + 1) + (":" if i in _NUMERIC else "-") for i, w in enumerate(widths))
    lines.insert(1, f"|{rule}|")
    notes = [f"- {row.section}, {row.what}, {row.who}: {row.note}" for row in rows if row.note]
    return "\n".join([_headline(effort), "", *lines, *([""] if notes else []), *notes]) + "\n"


def write_json(rows: Sequence[Row], effort: Effort) -> str:
    """Write everything, seconds unrounded, with date and machine."""
    return json.dumps({**describe_run(effort), "rows": [asdict(row) for row in rows]}, indent=1)


def describe_run(effort: Effort) -> dict[str, object]:
    """Say when, on what machine, and with which versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "effort": effort.name,
        "python": platform.python_version(),
        "machine": f"{_find_processor()}, {platform.system()}",
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def _headline(effort: Effort) -> str:
    run = describe_run(effort)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    text = f"{run['date']}, {run['machine']}, Python {run['python']}, {versions}."
    if effort.name == "quick":
        text += "\nA quick run: it shows that all works. Figures to quote need `make bench` alone."
    return text


def _find_processor() -> str:
    name = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = next(
            line.partition(":")[2].strip()
            for line in text.splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass
    return f"{cpu_count()} x {name}"


def _cells(row: Row) -> tuple[str, ...]:
    target = row.target
    if row.met is not None:
        target = f"{target}: {'met' if row.met else 'MISSED'}"
    return (
        row.section,
        row.what,
        row.who,
        f"{write_number(row.value.median)} {row.unit}" if row.value else "",
        _write_quartiles(row.value),
        write_number(row.ratio.median) if row.ratio else "",
        _write_quartiles(row.ratio),
        row.ratio_of,
        target,
    )


def _write_quartiles(spread: Spread | None) -> str:
    if spread is None or spread.low == spread.high:
        return ""
    return f"{write_number(spread.low)}..{write_number(spread.high)}"


def write_number(value: float) -> str:
    """Write three digits that matter."""
    if value >= 100:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004


def _write_line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if i in _NUMERIC else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return f"| {' | '.join(cells)} |"
