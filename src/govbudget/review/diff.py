"""`policy diff`: who gains and who loses what between two policies, and what was approved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from govbudget.authz.files import read_regular_file
from govbudget.authz.matrix import HEADER
from govbudget.authz.reader import read_rows
from govbudget.authz.table import CELLS, Cell, DecisionTable, Verdict
from govbudget.errors import FieldError, InvalidInput
from govbudget.identity import Action, ObjectType, Scope
from govbudget.review.check import find_hidden_text
from govbudget.review.sides import Side, read_earlier

# A row of `matrix.csv`.
Right = tuple[str, ...]

RANK = {verdict: rank for rank, verdict in enumerate(Verdict)}


@dataclass(frozen=True, slots=True)
class Change:
    """One role, held in one scope, that gains or loses one right, and the lines responsible."""

    role: str
    scope: Scope
    object: ObjectType
    action: Action
    before: Verdict
    after: Verdict
    lines: tuple[str, ...]

    @property
    def is_gain(self) -> bool:
        """Whether somebody may do more: the role itself, or whoever holds it beside another."""
        return RANK[self.after] > RANK[self.before]

    @property
    def right(self) -> Right:
        """The row of the new `matrix.csv`, which is also how the gain is approved."""
        return (self.role, self.object, self.action, self.after, self.scope)

    def __str__(self) -> str:
        """Say what is gained or lost, and by which lines."""
        lines = ", ".join(self.lines) or "no line"
        verb, right = "gains" if self.is_gain else "loses", f"{self.object} {self.action}"
        return f"{verb} {right}: {self.before} -> {self.after} ({lines})"


def diff_roles(
    old: DecisionTable, new: DecisionTable
) -> tuple[list[tuple[str, Scope]], list[tuple[str, Scope]]]:
    """Give the roles that are new and those that went, each with its scope.

    Who holds any role there is answered by a list, even where the role has no right.
    """
    before, after = set(old.scopes.items()), set(new.scopes.items())
    return sorted(after - before), sorted(before - after)


def diff_tables(old: DecisionTable, new: DecisionTable) -> list[Change]:
    """Find every right that differs for some set of roles; nothing for comments and order.

    A deny that comes or goes is a loss or a gain where somebody is allowed the same beside it.
    A role whose scope changed has lost everything in the old scope and gained it in the new one.
    Where one of the two policies has no lines on budgets of their own, it decides them as
    groups, and is compared so.
    """
    changes = []
    budget_objects = (old.budget_object, new.budget_object)
    held = sorted({*old.scopes.items(), *new.scopes.items()})
    for role, scope in held:
        for obj, action in CELLS:
            asked = (obj, obj)
            if obj is ObjectType.GROUP_AI_BUDGET and obj in budget_objects:
                asked = budget_objects
            was = _look_up(old, role, scope, (asked[0], action))
            now = _look_up(new, role, scope, (asked[1], action))
            before, after = (cell.verdict if cell else Verdict.DENY for cell in (was, now))
            if before is after:
                continue
            sides = (("old", was), ("new", now))
            lines = tuple(
                f"{w} {line}" for w, cell in sides if cell for line in cell.decision.lines
            )
            change = Change(role, scope, obj, action, before, after, lines)
            table, kind = (new, asked[1]) if change.is_gain else (old, asked[0])
            if Verdict.ALLOW in {before, after} or table.is_allowed_to_some(kind, action):
                changes.append(change)
    return changes


def _look_up(
    table: DecisionTable, role: str, scope: Scope, right: tuple[ObjectType, Action]
) -> Cell | None:
    return table.cell(role, *right) if table.scopes.get(role) is scope else None


@dataclass(frozen=True, slots=True)
class Approvals:
    """Gains that are approved by rows that the change adds, which count, and by older rows."""

    added: frozenset[Right] = frozenset()
    earlier: frozenset[Right] = frozenset()


def read_approvals(path: Path | None, old: Side) -> Approvals:
    """Read approved gains: rows as in the `matrix.csv` that has the gain, under its header.

    A row approves one change. One that the file had on the old side could else approve that a right
    is lost and gained again, unseen.
    """
    if path is None:
        return Approvals()
    content = read_regular_file(path)
    rows, findings = read_rows(content, str(path))
    findings += find_hidden_text(str(path), content)
    errors = [FieldError(f"line {f.line}", f.sentence) for f in findings]
    for number, row in rows:
        if len(row) != len(HEADER):
            errors.append(FieldError(f"line {number}", f"expected the fields {','.join(HEADER)}"))
    if not rows or rows[0][1] != HEADER:
        errors.append(FieldError("line 1", f"the first row must be `{','.join(HEADER)}`"))
    if errors:
        raise InvalidInput(
            f"`{path}` is not a list of approved gains", errors, code="input-invalid"
        )
    listed = Counter(row for _, row in rows[1:])
    added = listed - Counter(row for _, row in read_rows(read_earlier(old, path), str(path))[0])
    return Approvals(frozenset(added), frozenset(listed - added))
