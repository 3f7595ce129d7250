"""Views of a decision table: text, CSV, Markdown, HTML, and what JSON holds."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from govbudget.authz.matrix import list_cells, write_matrix
from govbudget.identity import Action, ObjectType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from govbudget.authz.table import Cell, DecisionTable

Cells = list[tuple[str, ObjectType, Action]]


def select_cells(
    table: DecisionTable, roles: Sequence[str], objects: Sequence[str], actions: Sequence[str]
) -> Cells:
    """Give the cells of the named roles, objects and actions (none named: all).

    Raises ValueError for a name that the policy does not know.
    """
    named = set(product(roles or table.scopes, objects or ObjectType, actions or Action))
    for role, obj, action in sorted(named):
        table.decide((role,), obj, action)
    return [cell for cell in list_cells(table) if cell in named]


def render_text(table: DecisionTable, cells: Cells) -> str:
    """Write an aligned table, with the scope of each role and the deciding lines."""
    rows = [("role", "held in", "object", "action", "decision", "decided by")]
    for role, obj, action in cells:
        cell = table.cell(role, obj, action)
        lines = ", ".join(cell.decision.lines) or "no line"
        rows.append((role, table.scopes[role], obj, action, cell.verdict, lines))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in aligned)


def describe_cells(table: DecisionTable, cells: Cells) -> dict[str, object]:
    """Give what is printed as JSON: the digest, the roles' scopes and every cell."""
    keys = ("role", "object", "action", "decision", "lines")
    decided = [(table.cell(*key).verdict, table.cell(*key).decision.lines) for key in cells]
    return {
        "policy_digest": table.digest,
        "roles": dict(sorted(table.scopes.items())),
        "cells": [
            dict(zip(keys, (*key, *decision), strict=True))
            for key, decision in zip(cells, decided, strict=True)
        ],
    }


def render_markdown(table: DecisionTable, cells: Cells) -> str:
    """Write a Markdown table: a row a role, a column an object and action."""
    columns, rows = _lay_out(table, cells)
    out = ["| role | held in |" + "".join(f" {obj} {action} |" for obj, action in columns)]
    out.append("|---|---|" + "---|" * len(columns))
    for role, row in rows:
        line = f"| {role} | {table.scopes[role]} |"
        for cell in row:
            lines = f" ({', '.join(cell.decision.lines)})" if cell.decision.lines else ""
            line += f" {cell.verdict}{lines} |"
        out.append(line)
    return "\n".join(out) + "\n"


def render_html(table: DecisionTable, cells: Cells) -> str:
    """Write a page of HTML, laid out as in Markdown."""
    from govbudget.review.page import write_page  # noqa: PLC0415 - Jinja, for this form alone

    columns, rows = _lay_out(table, cells)
    return write_page(table, columns, rows)


def _lay_out(
    table: DecisionTable, cells: Cells
) -> tuple[list[tuple[ObjectType, Action]], list[tuple[str, list[Cell]]]]:
    """Give the columns, each an object and action, and a row of cells for each role."""
    columns = list(dict.fromkeys((obj, action) for _, obj, action in cells))
    roles = dict.fromkeys(role for role, _, _ in cells)
    return columns, [(role, [table.cell(role, *column) for column in columns]) for role in roles]


RENDERERS: dict[str, Callable[[DecisionTable, Cells], str]] = {
    "text": render_text,
    "csv": write_matrix,
    "md": render_markdown,
    "html": render_html,
}
