"""What a command prints: JSON, or CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

# Where a formula may start: at a cell's start, also behind blanks or quotes, and after what another
# spreadsheet splits lines at. The wide signs are read as formulas too, where people type them.
_FORMULA = re.compile(
    r"""(\A|[;\t\r\n])(?=[\s"']*[=+\-@\uff1d\uff0b\uff0d\uff20])|\A(?=[\t\r\n])"""
)


def format_option(*forms: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the option `--format`; the first form is the default."""
    safe = " CSV is safe to open in a spreadsheet." if "csv" in forms else ""
    return click.option(
        "--format",
        "form",
        type=click.Choice(forms),
        default=forms[0],
        help=f"How it is printed.{safe}",
    )


def print_json(value: object) -> None:
    """Print a value as JSON, over several lines."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_rows(form: str, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Print rows as `csv` under a header, as `jsonl`, one a line, or as `json`, one array."""
    if form == "json":
        print_json(list(rows))
        return
    if form == "csv":
        click.echo(write_csv(columns), nl=False)
    for row in rows:
        line = json.dumps(row) + "\n" if form == "jsonl" else write_csv(row[c] for c in columns)
        click.echo(line, nl=False)


def write_csv(row: Iterable[object]) -> str:
    """Write a row of which no spreadsheet takes a cell, or a part of one, for a formula."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(map(_defuse, row))
    return out.getvalue()


def _defuse(value: object) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return _FORMULA.sub(r"\g<0>'", text)
