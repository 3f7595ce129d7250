"""What a command prints: text, JSON, or CSV."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import click

from govbudget.text import write_csv


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


def print_answer(
    form: str,
    answer: Mapping[str, object] | Iterable[Mapping[str, object]],
    text: Iterable[str] = (),
    columns: Sequence[str] = (),
) -> None:
    """Print the answer of a command: one object, or rows.

    As `text`, the lines given; as `json`, over several lines; rows as `jsonl`, one a line, or as
    `csv`, with these columns. The last value of an object may be an iterator, which is printed row
    by row.
    """
    lines = text
    if form == "json":
        whole = answer if isinstance(answer, Mapping) else list(answer)
        lines = _write_json(whole) if isinstance(whole, Mapping) else [_to_json(whole, indent=2)]
    elif form == "jsonl":
        lines = map(json.dumps, answer)
    elif form == "csv":
        rows: Iterable[Any] = answer
        lines = map(write_csv, chain([columns], ([row[c] for c in columns] for row in rows)))
    for line in lines:
        click.echo(line)


_to_json = partial(json.dumps, default=str)


def _write_json(whole: Mapping[str, Any]) -> Iterator[str]:
    """Write an object over several lines, rows that are its last value as they are read."""
    *_, (name, rows) = whole.items()
    if not isinstance(rows, Iterator):
        yield _to_json(whole, indent=2)
        return
    yield _to_json({**whole, name: []}, indent=2).removesuffix("]\n}")
    for index, row in enumerate(rows):
        yield f"  {', ' if index else '  '}{_to_json(row)}"
    yield "  ]\n}"
