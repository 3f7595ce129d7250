"""CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Where a formula may start: at a cell's start, also behind blanks or quotes, and after what another
# spreadsheet splits lines at. The wide signs are read as formulas too, where people type them.
_FORMULA = re.compile(
    r"""(\A|[;\t\r\n])(?=[\s"']*[=+\-@\uff1d\uff0b\uff0d\uff20])|\A(?=[\t\r\n])"""
)


def write_csv(row: Iterable[object]) -> str:
    """Write a row of which no spreadsheet takes a cell, or a part of one, for a formula."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(map(_defuse, row))
    return out.getvalue()


def _defuse(value: object) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return _FORMULA.sub(r"\g<0>'", text)
