"""What a command prints: text, JSON, or CSV."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import click

from govbudget.cli.each_database import find_turn
from govbudget.text import write_csv

T = TypeVar("T")

# How many lines are written at once: a write costs more than most lines.
AT_ONCE = 500


def format_option(*forms: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the option `--format`; the first form is the default."""
    safe = " CSV is safe to open in a spreadsheet." if "csv" in forms else ""
    how = f"How it is printed.{safe}"
    return click.option("--format", "form", type=click.Choice(forms), default=forms[0], help=how)


def reading(read: Callable[[str], T]) -> Callable[[str], T]:
    """Give the type of an option; a text that can't be read is wrong usage."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Let a ValueError of the block be wrong usage."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def print_answer(
    form: str,
    answer: Mapping[str, object] | Iterable[Mapping[str, object]],
    text: Iterable[str] = (),
    columns: Sequence[str] = (),
) -> None:
    """Print the answer of a command: one object, or rows.

    As `text`, the lines given; as `json`, over several lines; rows as `jsonl`, one a line, or as
    `csv`, with these columns. The last value of an object may be an iterator, which is printed row
    by row. Where the command works on several databases in turn, JSON has the answer of each by its
    slots, and a row has them in the column `database`.
    """
    lines, turn = text, find_turn()
    opened = None if turn is None else turn.opened
    if form == "json":
        whole = answer if isinstance(answer, Mapping) else list(answer)
        lines = _write_json(whole) if isinstance(whole, Mapping) else [_to_json(whole, indent=2)]
        if turn is not None and opened is not None:
            lines = _write_value(turn.slots, lines, opened)
    elif form in {"jsonl", "csv"}:
        rows: Iterable[Any] = answer
        header = [] if opened else [columns]
        if turn is not None and opened is not None:
            slots, header = turn.slots, [["database", *line] for line in header]
            rows, columns = ({"database": slots, **row} for row in rows), ("database", *columns)
            opened.append(slots)
        lines = map(json.dumps, rows)
        if form == "csv":
            lines = map(write_csv, chain(header, ([row[c] for c in columns] for row in rows)))
    _print(lines)


def _print(lines: Iterable[str]) -> None:
    """Print lines, many in one write. Where reading them fails, those before it are printed."""
    block: list[str] = []
    try:
        for line in lines:
            block.append(line)
            if len(block) == AT_ONCE:
                full, block = block, []  # first, so that none is printed twice where a write fails
                click.echo("\n".join(full))
    finally:
        if block:
            click.echo("\n".join(block))


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


def _write_value(slots: str, lines: Iterable[str], opened: list[str]) -> Iterator[str]:
    """Write JSON as a value of an object that `each_database` ends."""
    start = f'{"," if opened else "{"}"{slots}": '
    for line in lines:
        if start:
            opened.append(slots)
        yield start + line
        start = ""
