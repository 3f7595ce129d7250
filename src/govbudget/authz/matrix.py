"""The reviewed decisions, `matrix.csv`: what the table must agree with before it is used."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from govbudget.authz.files import MATRIX_FILE
from govbudget.authz.reader import Effect, decode, suggest
from govbudget.errors import Finding
from govbudget.identity import Action, ObjectType

if TYPE_CHECKING:
    from govbudget.authz.table import DecisionTable

HEADER = ("role", "object", "action", "decision")


def compare_with_matrix(table: DecisionTable, content: bytes) -> list[Finding]:
    """Find every cell in which the reviewed decisions and the table differ.

    A cell that the file does not list is reviewed as denied. Blank lines and lines that start
    with `#` are passed over; everything else must be a row of the closed sets.
    """
    text, findings = decode(content, MATRIX_FILE)
    if findings:
        return findings
    reviewed: dict[tuple[str, ...], tuple[int, str]] = {}
    header_seen = False
    for number, raw in enumerate(text.split("\n"), start=1):
        content_line = raw.strip(" \t")
        if not content_line or content_line.startswith("#"):
            continue
        fields = tuple(field.strip(" \t") for field in content_line.split(","))
        if not header_seen:
            header_seen = True
            if fields != HEADER:
                sentence = f"the first row must be `{','.join(HEADER)}`"
                findings.append(Finding(MATRIX_FILE, number, "matrix-row", sentence))
            continue
        defects = _check_row(table, number, fields)
        if not defects and fields[:3] in reviewed:
            sentence = f"the cell stands on line {reviewed[fields[:3]][0]} already; keep one"
            defects = [Finding(MATRIX_FILE, number, "matrix-row", sentence)]
        findings += defects
        if not defects:
            reviewed[fields[:3]] = (number, fields[3])
    if not header_seen:
        sentence = "the file is empty; print one with `govbudget policy matrix --format csv`"
        findings.append(Finding(MATRIX_FILE, 0, "matrix-row", sentence))
    return findings or list(_compare(table, reviewed))


def _check_row(table: DecisionTable, number: int, fields: tuple[str, ...]) -> list[Finding]:
    if len(fields) != len(HEADER):
        sentence = f"{len(fields)} fields, expected {len(HEADER)}: {','.join(HEADER)}"
        return [Finding(MATRIX_FILE, number, "matrix-row", sentence)]
    known = (table.scopes, ObjectType, Action, Effect)
    return [
        Finding(
            MATRIX_FILE,
            number,
            "matrix-row",
            f"`{value[:60]}` is no {what}; {suggest(value, options)}",
        )
        for what, value, options in zip(HEADER, fields, known, strict=True)
        if value not in list(options)
    ]


def _compare(
    table: DecisionTable, reviewed: dict[tuple[str, ...], tuple[int, str]]
) -> list[Finding]:
    findings = []
    for role, obj, action, decision in list_decisions(table):
        number, expected = reviewed.get((role, obj, action), (0, str(Effect.DENY)))
        if decision != expected:
            listed = "says" if number else "lists nothing, which means"
            lines = table.decide({role}, obj, action).lines
            why = f" by {', '.join(lines)}" if lines else ", since no line allows it"
            past = {"allow": "allowed", "deny": "denied"}
            sentence = (
                f"{role}, {obj}, {action}: the review {listed} `{expected}`, the policy "
                f"decides `{decision}`; it is {past[decision]}{why}"
            )
            findings.append(Finding(MATRIX_FILE, number, "matrix-differs", sentence))
    return findings


def list_decisions(table: DecisionTable) -> list[tuple[str, str, str, str]]:
    """Give (role, object, action, `allow` or `deny`) for every cell, sorted."""
    return sorted(
        (
            role,
            str(obj),
            str(action),
            str(Effect.ALLOW if table.decide({role}, obj, action).allowed else Effect.DENY),
        )
        for role in table.scopes
        for obj in ObjectType
        for action in Action
    )


def write_matrix(table: DecisionTable) -> str:
    """Write the table in the form of `matrix.csv`."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([HEADER, *list_decisions(table)])
    return out.getvalue()
