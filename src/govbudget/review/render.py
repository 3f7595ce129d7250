"""Views of a decision table: text, CSV, Markdown, HTML, and what JSON holds."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from itertools import groupby, product
from pathlib import Path

from govbudget.authz.matrix import list_cells, write_matrix
from govbudget.authz.table import CELLS, Cell, DecisionTable
from govbudget.identity import Action, ObjectType, Scope
from govbudget.review.meaning import INVARIANTS, find_idle_lines

Cells = list[tuple[str, ObjectType, Action]]
Names = tuple[str, ...]

SCREEN = 80  # columns
_LEGEND = """\
allow: a line allows it. -: no line does; another role may allow it.
forbid: a line denies it, whatever else the caller holds.
The numbers are the deciding lines of policy.csv.
A budget is decided as `{}`.
"""


def select_cells(
    table: DecisionTable, role: Names, obj: Names, action: Names, *, everything: bool = False
) -> Cells:
    """Give the cells that are asked about, of the named roles, objects and actions (none: all).

    `everything`: also those that nothing asks about. Raises ValueError for a name that the policy
    does not know, and where nothing is left.
    """
    named = set(product(role or table.scopes, obj or ObjectType, action or Action))
    for one, *right in sorted(named):
        table.decide((one,), *right)
    cells = list_cells(table, CELLS if everything else table.asked)
    if found := [cell for cell in cells if cell in named]:
        return found
    raise ValueError("nothing asks about these under this policy; `--all` shows them")


def render_text(table: DecisionTable, cells: Cells) -> str:
    """Write the grid; where it is wider than a screen, in several, one below the other."""
    roles, rows = lay_out(table, cells)
    lines = [("", *roles), ("held in", *(str(table.scopes[role]) for role in roles))]
    for obj, rights in groupby(rows, key=lambda row: row[0][0]):
        lines.append((obj, *([""] * len(roles))))
        lines += [(f"  {action}", *map(_show, row)) for (_, action), row in rights]
    labels, *columns = zip(*lines, strict=True)
    # The name of an object stands alone on its line, so it may be wider than its column.
    grids: list[list[list[str]]] = []
    width = SCREEN
    for column in columns:
        needed = 2 + max(map(len, column))
        if width + needed > SCREEN:
            grids.append([[label.ljust(len("  update")) for label in labels]])
            width = len("  update")
        grids[-1].append([f"  {entry.ljust(needed - 2)}" for entry in column])
        width += needed
    out = ("".join(line).rstrip() for grid in grids for line in (*zip(*grid, strict=True), ""))
    return "".join(f"{line}\n" for line in out) + _LEGEND.format(table.budget_object)


def _show(cell: Cell) -> str:
    numbers = ",".join(line.rpartition(":")[2] for line in cell.decision.lines)
    return f"{cell.verdict} {numbers}" if numbers else "-"


def describe_cells(table: DecisionTable, cells: Cells) -> dict[str, object]:
    """Give what is printed as JSON: the digest, the roles' scopes and every cell."""
    keys = ("role", "object", "action", "decision", "lines")
    return {
        "policy_digest": table.digest,
        "roles": dict(sorted(table.scopes.items())),
        "cells": [
            dict(zip(keys, (*key, cell.verdict, cell.decision.lines), strict=True))
            for key in cells
            for cell in [table.cell(*key)]
        ],
    }


def render_markdown(table: DecisionTable, cells: Cells) -> str:
    """Write the grid as a Markdown table."""
    roles, rows = lay_out(table, cells)
    out = ["| object | action |" + "".join(f" {r} ({table.scopes[r]}) |" for r in roles)]
    out.append("|---|---|" + "---|" * len(roles))
    for (obj, action), row in rows:
        line = f"| {obj} | {action} |"
        for cell in row:
            lines = f" ({', '.join(cell.decision.lines)})" if cell.decision.lines else ""
            line += f" {cell.verdict}{lines} |"
        out.append(line)
    return "\n".join(out) + "\n"


def render_html(table: DecisionTable, cells: Cells) -> str:
    """Write a page that stands alone, without scripts: the grid, invariants and idle lines."""
    from jinja2 import Environment  # noqa: PLC0415 - for this form alone

    environment = Environment(autoescape=True, keep_trailing_newline=True)
    environment.filters["digest"] = _digest
    template = environment.from_string(Path(__file__).with_name("page.html").read_text("utf-8"))
    roles, rows = lay_out(table, cells)
    broken = [(i.statement, [example for _, example in i.find(table)]) for i in INVARIANTS]
    idle = list(map(str, find_idle_lines(table)))
    return template.render(table=table, roles=roles, rows=rows, invariants=broken, idle=idle)


def _digest(style: str) -> str:
    """Name a style as a content security policy does."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def lay_out(
    table: DecisionTable, cells: Cells
) -> tuple[list[str], list[tuple[tuple[ObjectType, Action], list[Cell]]]]:
    """Lay out a grid: the roles across, from the widest scope to the narrowest; rights down."""
    scopes = list(Scope)
    named = {role for role, _, _ in cells}
    roles = [role for role in table.scopes if role in named]
    roles.sort(key=lambda role: scopes.index(table.scopes[role]))
    rights = {(obj, action) for _, obj, action in cells}
    return roles, [
        (right, [table.cell(role, *right) for role in roles]) for right in CELLS if right in rights
    ]


RENDERERS: dict[str, Callable[[DecisionTable, Cells], str]] = {
    "text": render_text,
    "csv": write_matrix,
    "md": render_markdown,
    "html": render_html,
}
