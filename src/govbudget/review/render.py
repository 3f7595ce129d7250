"""Views of a decision table: text, CSV, JSON, Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from govbudget.authz.matrix import write_matrix
from govbudget.identity import Action, ObjectType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from govbudget.authz.table import DecisionTable


def select_cells(
    table: DecisionTable, roles: Sequence[str], objects: Sequence[str], actions: Sequence[str]
) -> list[tuple[str, str, str, bool, tuple[str, ...]]]:
    """Give (role, object, action, allowed, deciding lines) of the named cells; empty: all."""
    cells = []
    for role in roles or sorted(table.scopes):
        for obj in objects or sorted(ObjectType):
            for action in actions or sorted(Action):
                decision = table.decide({role}, obj, action)
                cells.append((role, str(obj), str(action), decision.allowed, decision.lines))
    return cells


Cells = list[tuple[str, str, str, bool, tuple[str, ...]]]


def render_text(table: DecisionTable, cells: Cells) -> str:
    """Write an aligned table, with the scope of each role and the deciding lines."""
    rows = [("role", "held in", "object", "action", "decision", "decided by")]
    rows += [
        (role, str(table.scopes[role]), obj, action, _word(allowed), ", ".join(lines) or "no line")
        for role, obj, action, allowed, lines in cells
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in rows
    )


def render_csv(table: DecisionTable, cells: Cells) -> str:
    """Write the form of `matrix.csv`."""
    wanted = {cell[:3] for cell in cells}
    header, *rows = write_matrix(table).splitlines(keepends=True)
    return header + "".join(row for row in rows if tuple(row.split(",")[:3]) in wanted)


def render_json(table: DecisionTable, cells: Cells) -> str:
    """Write one JSON object: the digest, the roles' scopes and every cell."""
    value = {
        "policy_digest": table.digest,
        "roles": {role: str(scope) for role, scope in sorted(table.scopes.items())},
        "cells": [
            {
                "role": role,
                "object": obj,
                "action": action,
                "decision": _word(allowed),
                "lines": list(lines),
            }
            for role, obj, action, allowed, lines in cells
        ],
    }
    return json.dumps(value, indent=2) + "\n"


def render_markdown(table: DecisionTable, cells: Cells) -> str:
    """Write a Markdown table: a row a role, a column an object and action."""
    columns = list(dict.fromkeys((obj, action) for _, obj, action, _, _ in cells))
    found = {(role, obj, action): (allowed, lines) for role, obj, action, allowed, lines in cells}
    out = ["| role | held in |" + "".join(f" {o} {a} |" for o, a in columns)]
    out.append("|---|---|" + "---|" * len(columns))
    for role in dict.fromkeys(cell[0] for cell in cells):
        row = f"| {role} | {table.scopes[role]} |"
        for obj, action in columns:
            allowed, lines = found[role, obj, action]
            row += f" {_word(allowed)}{' (' + ', '.join(lines) + ')' if lines else ''} |"
        out.append(row)
    return "\n".join(out) + "\n"


RENDERERS: dict[str, Callable[[DecisionTable, Cells], str]] = {
    "text": render_text,
    "csv": render_csv,
    "json": render_json,
    "md": render_markdown,
}


def _word(allowed: bool) -> str:  # noqa: FBT001 - the decision itself
    return "allow" if allowed else "deny"
