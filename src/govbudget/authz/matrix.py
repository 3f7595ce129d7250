"""The reviewed decisions, `matrix.csv`: what the table must agree with before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.authz.files import MATRIX_FILE
from govbudget.authz.reader import NOT_ASCII, decode, suggest
from govbudget.authz.table import Verdict
from govbudget.errors import Finding
from govbudget.identity import Action, ObjectType, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from govbudget.authz.table import DecisionTable

HEADER = ("role", "object", "action", "decision", "scope")
REQUIRED = HEADER[:-1]

_MEND = "mend the policy, or review the row anew"


def compare_with_matrix(table: DecisionTable, content: bytes) -> list[Finding]:
    """Find every cell in which the reviewed decisions and the table differ.

    A decision is `allow`, `deny` or `forbid` (see `Verdict`), which together say what every set of
    roles may do. A cell that the file does not list is reviewed as `deny`. The last column, the
    scope that the role is held in, may be left out; it is not reviewed then. Blank lines and lines
    that start with `#` are passed over; everything else must be a row of the closed sets.
    """
    text, findings = decode(content, MATRIX_FILE)
    unreadable = {finding.line for finding in findings if finding.code == NOT_ASCII}
    reviewed: dict[tuple[str, ...], tuple[int, tuple[str, ...]]] = {}
    header_seen = False
    for number, raw in enumerate(text.split("\n"), start=1):
        content_line = raw.strip(" \t")
        if number in unreadable or not content_line or content_line.startswith("#"):
            continue
        fields = tuple(field.strip(" \t") for field in content_line.split(","))
        if not header_seen:
            header_seen = True
            if fields not in (HEADER, REQUIRED):
                sentence = f"the first row must be `{','.join(HEADER)}`, or that without the scope"
                findings.append(Finding(MATRIX_FILE, number, "matrix-row", sentence))
            continue
        defects = _check_row(table, number, fields)
        if not defects and fields[:3] in reviewed:
            sentence = f"the cell stands on line {reviewed[fields[:3]][0]} already; keep one"
            defects = [Finding(MATRIX_FILE, number, "matrix-row", sentence)]
        findings += defects
        if not defects:
            reviewed[fields[:3]] = (number, fields[3:])
    if not header_seen:
        sentence = "the file is empty; print one with `govbudget policy matrix --format csv`"
        findings.append(Finding(MATRIX_FILE, 0, "matrix-row", sentence))
    return sorted(findings or _compare(table, reviewed), key=lambda finding: finding.line)


def _check_row(table: DecisionTable, number: int, fields: tuple[str, ...]) -> list[Finding]:
    if len(fields) not in (len(HEADER), len(REQUIRED)):
        sentence = f"{len(fields)} fields; write these {len(HEADER)}: {','.join(HEADER)}"
        return [Finding(MATRIX_FILE, number, "matrix-row", sentence)]
    known: tuple[Iterable[str], ...] = (table.scopes, ObjectType, Action, Verdict, Scope)
    return [
        Finding(
            MATRIX_FILE,
            number,
            "matrix-row",
            f"`{value[:60]}` is no {what}; {suggest(value, options)}",
        )
        for what, value, options in zip(HEADER, fields, known, strict=False)
        if value not in list(options)
    ]


def _compare(
    table: DecisionTable, reviewed: dict[tuple[str, ...], tuple[int, tuple[str, ...]]]
) -> Iterator[Finding]:
    for role, obj, action in list_cells(table):
        cell = table.cell(role, obj, action)
        number, (expected, *scopes) = reviewed.get((role, obj, action), (0, (Verdict.DENY,)))
        if cell.verdict != expected:
            listed = "says" if number else "lists nothing, which means"
            lines = cell.decision.lines
            why = f"by {', '.join(lines)}" if lines else "since no line allows it"
            sentence = (
                f"{role}, {obj}, {action}: the review {listed} `{expected}`, the policy decides "
                f"`{cell.verdict}`, {why}; {_MEND}"
            )
            yield Finding(MATRIX_FILE, number, "matrix-differs", sentence)
        for scope in scopes:
            if scope != table.scopes[role]:
                sentence = (
                    f"{role}: the review says held in scope `{scope}`, the policy "
                    f"`{table.scopes[role]}`; {_MEND}"
                )
                yield Finding(MATRIX_FILE, number, "matrix-differs", sentence)


def list_cells(table: DecisionTable) -> list[tuple[str, ObjectType, Action]]:
    """Give every (role, object, action) of the closed domain, sorted."""
    return sorted(
        (role, obj, action) for role in table.scopes for obj in ObjectType for action in Action
    )


def write_matrix(
    table: DecisionTable, cells: Iterable[tuple[str, ObjectType, Action]] | None = None
) -> str:
    """Write cells (all of them by default) in the form of `matrix.csv`."""
    rows = (
        (*cell, table.cell(*cell).verdict, table.scopes[cell[0]])
        for cell in (list_cells(table) if cells is None else cells)
    )
    return "".join(f"{','.join(row)}\n" for row in (HEADER, *rows))
