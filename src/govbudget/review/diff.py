"""`policy diff`: who gains and who loses what between two policies."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from govbudget.authz.files import LINES_FILE, MODEL_FILE, PolicyFiles, read_policy_files
from govbudget.authz.judge import CELLS, build_table
from govbudget.authz.reader import decode, read_policy
from govbudget.authz.table import DecisionTable, Verdict
from govbudget.errors import FieldError, InvalidInput, PolicyError
from govbudget.identity import ObjectType

if TYPE_CHECKING:
    from govbudget.identity import Action, Scope

RANK = {verdict: rank for rank, verdict in enumerate(Verdict)}
GAIN_FIELDS = ("role", "scope", "object", "action")


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
    def right(self) -> tuple[str, str, str, str]:
        """The four fields that an approval names."""
        return (self.role, self.scope, self.object, self.action)


def diff_tables(old: DecisionTable, new: DecisionTable) -> list[Change]:
    """Find every right that differs; nothing for comments, order and duplicates.

    A role whose scope changed has lost everything in the old scope and gained it in the new one.
    Where one of the two policies has no lines on budgets of their own, it judges them as groups,
    and is compared so.
    """
    changes = []
    budget_objects = (old.budget_object, new.budget_object)
    held = sorted({*old.scopes.items(), *new.scopes.items()})
    for role, scope in held:
        for obj, action in CELLS:
            asked = (obj, obj)
            if obj is ObjectType.GROUP_AI_BUDGET and obj in budget_objects:
                asked = budget_objects
            before, old_lines = _look_up(old, "old", role, scope, (asked[0], action))
            after, new_lines = _look_up(new, "new", role, scope, (asked[1], action))
            if before is not after:
                lines = (*old_lines, *new_lines)
                changes.append(Change(role, scope, obj, action, before, after, lines))
    return changes


def _look_up(
    table: DecisionTable, which: str, role: str, scope: Scope, right: tuple[ObjectType, Action]
) -> tuple[Verdict, tuple[str, ...]]:
    if table.scopes.get(role) is not scope:
        return Verdict.DENY, ()
    cell = table.cell(role, *right)
    return cell.verdict, tuple(f"{which} {line}" for line in cell.decision.lines)


def read_approvals(content: bytes, file: str) -> frozenset[tuple[str, ...]]:
    """Read approved gains: rows of `role,scope,object,action` under that header."""
    text, findings = decode(content, file)
    errors = [FieldError(f"line {f.line}", f.sentence) for f in findings]
    rows = []
    for number, raw in enumerate(text.split("\n"), start=1):
        row = tuple(field.strip(" \t") for field in raw.split(","))
        if raw.strip(" \t") and not raw.lstrip(" \t").startswith("#"):
            rows.append(row)
            if len(row) != len(GAIN_FIELDS):
                sentence = f"expected the fields {','.join(GAIN_FIELDS)}"
                errors.append(FieldError(f"line {number}", sentence))
    if rows[:1] != [GAIN_FIELDS]:
        errors.append(FieldError("line 1", f"the first row must be `{','.join(GAIN_FIELDS)}`"))
    if errors:
        raise InvalidInput(f"`{file}` is no list of approved gains", errors, code="input-invalid")
    return frozenset(rows[1:])


def load_side(name: str, other: str, default: Path) -> DecisionTable:
    """Load one side of a diff: a folder, or a git revision of one.

    A revision is `REV` (of the other side's folder, else of `default`) or `REV:path/of/folder`.
    Raises PolicyError with every finding, or InvalidInput where the name is neither.
    """
    folder = Path(name)
    if name and folder.is_dir():  # an empty name (an unset variable) is not the working folder
        files = read_policy_files(folder)
    else:
        revision, colon, path = name.partition(":")
        place = Path(path) if colon else Path(other) if Path(other).is_dir() else default
        files = _read_revision(revision, place)
    lines, findings = read_policy(files)
    if findings:
        raise PolicyError(findings)
    return build_table(files, lines)


def _read_revision(revision: str, folder: Path) -> PolicyFiles:
    """Read a policy folder as it was in a git revision."""
    start = folder.resolve()
    while not start.is_dir():
        start = start.parent
    prefix = folder.resolve().relative_to(start)

    def git(*arguments: str) -> bytes:
        try:
            return subprocess.run(  # noqa: S603 - git, with arguments that can't be options
                ["git", "-C", str(start), *arguments],  # noqa: S607 - as on the user's path
                check=True,
                capture_output=True,
                timeout=30,
            ).stdout
        except (OSError, subprocess.SubprocessError):
            raise InvalidInput(
                f"`{revision}` is neither a folder nor a git revision that has a policy in "
                f"`{folder}`; write a folder, a revision, or REVISION:FOLDER",
                code="input-invalid",
            ) from None

    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    where = f"{commit.decode().strip()}:./{prefix.as_posix()}/"
    model, lines = (git("show", where + name) for name in (MODEL_FILE, LINES_FILE))
    return PolicyFiles(model, lines, None)


def check_approvals(
    changes: list[Change], approved: frozenset[tuple[str, ...]]
) -> tuple[list[Change], list[tuple[str, ...]]]:
    """Give the gains that nobody approved, and the approvals that no gain uses."""
    gains = {change.right for change in changes if change.is_gain}
    unapproved = [c for c in changes if c.is_gain and c.right not in approved]
    return unapproved, sorted(approved - gains)
