"""Ids and times as JSON has them, and CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from govbudget.identity import Id

# What is not seen: blanks, controls, and characters that are only there for the shape of others.
_UNSEEN = (
    r"\x00-\x20\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680"
    r"\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Where a formula may start: at a cell's start, also behind quotes and what is not seen, and after
# what another spreadsheet splits lines at. Wide and small signs are read as formulas too, where
# people type them.
_FORMULA = re.compile(
    rf"""(\A|[;\t\r\n])(?=[{_UNSEEN}"']*[=+\-@\u2212\ufe62\ufe63\ufe66\ufe6b\uff1d\uff0b\uff0d\uff20])"""
    r"|\A(?=[\t\r\n])"
)

# What most cells are. In these no formula can start, which this sees in half the time.
_PLAIN = re.compile(r"[0-9A-Za-z][^;\t\r\n]*|")

# Not `date | UUID` where it is used: Python would make that type anew for each value.
_TEXTS = (date, UUID)


def write_id(value: Id) -> int | str:
    """Write an id as JSON has it."""
    return value if isinstance(value, int) else str(value)


def write_time(time: datetime) -> str:
    """Write a time as RFC 3339 has it, in UTC."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def write_value(value: Any) -> Any:  # noqa: ANN401 - of any column
    """Write a time, a day or an id as JSON has it; the rest stays as it is."""
    if isinstance(value, datetime):
        return write_time(value)
    return str(value) if isinstance(value, _TEXTS) else value


def write_csv(row: Iterable[object]) -> str:
    """Write a row in which a spreadsheet takes no cell, or part of one, for a formula."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(map(_defuse, row))
    return out.getvalue()


def _defuse(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int):  # below 0 too, it is a number and stays one
        return str(value) if type(value) is int else json.dumps(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return text if _PLAIN.fullmatch(text) else _FORMULA.sub(r"\g<0>'", text)
