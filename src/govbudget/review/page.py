"""The matrix as one HTML page that stands alone: no scripts, no network, made to be printed."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment

from govbudget.review.meaning import INVARIANTS, find_idle_lines

if TYPE_CHECKING:
    from govbudget.authz.table import Cell, DecisionTable
    from govbudget.identity import Action, ObjectType


def write_page(
    table: DecisionTable, roles: list[str], rows: list[tuple[tuple[ObjectType, Action], list[Cell]]]
) -> str:
    """Write the page: the matrix, laid out in roles and rights; invariants and idle lines."""
    environment = Environment(autoescape=True, keep_trailing_newline=True)
    environment.filters["digest"] = _digest
    template = environment.from_string(Path(__file__).with_name("page.html").read_text("utf-8"))
    broken = [(i.statement, [example for _, example in i.find(table)]) for i in INVARIANTS]
    idle = list(map(str, find_idle_lines(table)))
    return template.render(table=table, roles=roles, rows=rows, invariants=broken, idle=idle)


def _digest(style: str) -> str:
    """Name a style as a content security policy does."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
