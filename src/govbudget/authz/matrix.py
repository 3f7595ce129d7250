"""The reviewed decisions, `matrix.csv`: what the table must agree with before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from govbudget.authz.files import MATRIX_FILE
from govbudget.authz.reader import Row, read_rows, suggest
from govbudget.authz.table import CELLS, DecisionTable, Verdict
from govbudget.errors import Finding
from govbudget.identity import Action, ObjectType, Scope

HEADER = ("role", "object", "action", "decision", "scope")
REQUIRED = HEADER[:-1]

_CLOSED_SETS = tuple(frozenset[str](known) for known in (ObjectType, Action, Verdict, Scope))
_ADVICE = "fix the policy, or review the row anew"
_ADD = "fix the policy, or review this and add `{}`"


def compare_with_matrix(table: DecisionTable, content: bytes) -> list[Finding]:
    """Find every cell in which the reviewed decisions and the table differ.

    A decision is `allow`, `deny` or `forbid` (see `Verdict`), which together say what every set of
    roles may do. A cell that the file does not list is reviewed as `deny`. The last column, the
    scope that the role is held in, may be left out; it is not reviewed then. Blank lines and lines
    that start with `#` are passed over; everything else must be a row of the closed sets.
    """
    reviewed, findings = read_matrix(table, content)
    differing = (
        finding for cell in list_cells(table) for finding in compare_cell(table, cell, reviewed)
    )
    return sorted(findings or differing, key=lambda finding: finding.line)


def read_matrix(
    table: DecisionTable, content: bytes, file: str = MATRIX_FILE, *, has_notes: bool = False
) -> tuple[dict[tuple[str, ...], Row], list[Finding]]:
    """Read rows of decisions by their cells, and find what is not such a row.

    With notes, any columns may follow those that are required; they are not read.
    """
    rows, findings = read_rows(content, file)
    header = rows[0][1] if rows else ()
    if has_notes and header[: len(REQUIRED)] == REQUIRED:
        width = len(REQUIRED)
        rows = [(n, row[:width] if len(row) == len(header) else row) for n, row in rows]
    reviewed: dict[tuple[str, ...], Row] = {}
    if not rows:
        sentence = "the file is empty; print one with `govbudget policy matrix --format csv`"
        findings.append(Finding(file, 0, "matrix-row", sentence))
    for number, fields in rows[:1]:
        if fields not in (HEADER, REQUIRED):
            sentence = f"the first row must be `{','.join(HEADER)}`, or that without the scope"
            findings.append(Finding(file, number, "matrix-row", sentence))
    for number, fields in rows[1:]:
        earlier, _ = reviewed.setdefault(fields[:3], (number, fields[3:]))
        for sentence in _check_row(table, fields, None if earlier == number else earlier):
            findings.append(Finding(file, number, "matrix-row", sentence))
    return reviewed, findings


def find_unreviewed(
    table: DecisionTable, content: bytes | None, *, required: bool = False
) -> list[Finding]:
    """Find in what a policy differs from its reviewed decisions; None: there are none.

    They are required, too, of a policy that makes budgets a resource of their own: one stray line
    would else change what every budget is decided as.
    """
    if content is not None:
        return compare_with_matrix(table, content)
    if not required and table.budget_object is ObjectType.GROUP:
        return []
    sentence = (
        f"nobody has reviewed this policy, which decides budgets as `{table.budget_object}`: "
        f"restore {MATRIX_FILE}, or read `govbudget policy matrix` and keep its `--format csv`"
    )
    return [Finding(MATRIX_FILE, 0, "not-reviewed", sentence)]


def _check_row(table: DecisionTable, fields: tuple[str, ...], earlier: int | None) -> Iterator[str]:
    if len(fields) not in (len(HEADER), len(REQUIRED)):
        yield f"{len(fields)} fields; write these {len(HEADER)}: {','.join(HEADER)}"
        return
    for what, value, options in zip(HEADER, fields, (table.scopes, *_CLOSED_SETS), strict=False):
        if value not in options:
            yield f"`{value[:60]}` is not a known {what}; {suggest(value, options)}"
    if earlier is not None:
        yield f"the cell is on line {earlier} already; keep one"


def compare_cell(
    table: DecisionTable,
    cell: tuple[str, ObjectType, Action],
    reviewed: Mapping[tuple[str, ...], Row],
) -> Iterator[Finding]:
    """Find in what the decision of one cell, and the scope of its role, are not as reviewed."""
    verdict, scope = table.cell(*cell).verdict, table.scopes[cell[0]]
    number, (expected, *scopes) = reviewed.get(cell, (0, (Verdict.DENY,)))
    if verdict != expected:
        listed = "says" if number else "lists nothing, which means"
        lines = ", ".join(table.cell(*cell).decision.lines)
        why = f"by {lines}" if lines else "since no line matches"
        advice = _ADVICE if number else _ADD.format(",".join((*cell, verdict, scope)))
        sentence = (
            f"{', '.join(cell)}: the review {listed} `{expected}`, the policy decides "
            f"`{verdict}`, {why}; {advice}"
        )
        yield Finding(MATRIX_FILE, number, "matrix-differs", sentence)
    if scopes and scopes != [scope]:
        sentence = (
            f"{cell[0]}: the review says held in scope `{scopes[0]}`, the policy `{scope}`; "
            f"{_ADVICE}"
        )
        yield Finding(MATRIX_FILE, number, "matrix-differs", sentence)


def list_cells(
    table: DecisionTable, cells: Iterable[tuple[ObjectType, Action]] = CELLS
) -> list[tuple[str, ObjectType, Action]]:
    """Give every (role, object, action) of the closed domain, or of the given cells, sorted."""
    return sorted((role, *cell) for role in table.scopes for cell in cells)


def write_matrix(
    table: DecisionTable, cells: Iterable[tuple[str, ObjectType, Action]] | None = None
) -> str:
    """Write cells (those that are asked about by default) in the form of `matrix.csv`."""
    rows = (
        (*cell, table.cell(*cell).verdict, table.scopes[cell[0]])
        for cell in (list_cells(table, table.asked) if cells is None else cells)
    )
    return "".join(f"{','.join(row)}\n" for row in (HEADER, *rows))
