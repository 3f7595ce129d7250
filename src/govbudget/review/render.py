"""Views of a decision table: text, CSV, Markdown, HTML, and what JSON holds."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from govbudget.authz.matrix import list_cells, write_matrix
from govbudget.identity import Action, ObjectType
from govbudget.review.page import render_html

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from govbudget.authz.table import DecisionTable

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
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in rows
    )


def describe_cells(table: DecisionTable, cells: Cells) -> dict[str, object]:
    """Give what is printed as JSON: the digest, the roles' scopes and every cell."""
    return {
        "policy_digest": table.digest,
        "roles": dict(sorted(table.scopes.items())),
        "cells": [
            {
                "role": role,
                "object": obj,
                "action": action,
                "decision": table.cell(role, obj, action).verdict,
                "lines": table.cell(role, obj, action).decision.lines,
            }
            for role, obj, action in cells
        ],
    }


def render_markdown(table: DecisionTable, cells: Cells) -> str:
    """Write a Markdown table: a row a role, a column an object and action."""
    columns = list(dict.fromkeys((obj, action) for _, obj, action in cells))
    out = ["| role | held in |" + "".join(f" {obj} {action} |" for obj, action in columns)]
    out.append("|---|---|" + "---|" * len(columns))
    for role in dict.fromkeys(role for role, _, _ in cells):
        row = f"| {role} | {table.scopes[role]} |"
        for obj, action in columns:
            cell = table.cell(role, obj, action)
            lines = f" ({', '.join(cell.decision.lines)})" if cell.decision.lines else ""
            row += f" {cell.verdict}{lines} |"
        out.append(row)
    return "\n".join(out) + "\n"


RENDERERS: dict[str, Callable[[DecisionTable, Cells], str]] = {
    "text": render_text,
    "csv": write_matrix,
    "md": render_markdown,
    "html": render_html,
}
