"""`policy diff`: who gains and who loses what between two policies."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from govbudget.authz.files import (
    LINES_FILE,
    MATRIX_FILE,
    MODEL_FILE,
    PolicyFiles,
    read_policy_files,
    read_regular_file,
    show_path,
)
from govbudget.authz.judge import CELLS, read_table
from govbudget.authz.matrix import HEADER, compare_with_matrix
from govbudget.authz.reader import read_rows
from govbudget.authz.table import DecisionTable, Verdict
from govbudget.errors import FieldError, InvalidInput
from govbudget.identity import ObjectType

if TYPE_CHECKING:
    from govbudget.identity import Action, Scope

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
    def right(self) -> tuple[str, ...]:
        """The row of the new `matrix.csv`, which is also how the gain is approved."""
        return (self.role, self.object, self.action, self.after, self.scope)


def diff_roles(
    old: DecisionTable, new: DecisionTable
) -> tuple[list[tuple[str, Scope]], list[tuple[str, Scope]]]:
    """Give the roles that are new and those that went, each with its scope.

    Holding a role is standing, even one that has no right: a list answers, with nothing in it.
    """
    before, after = set(old.scopes.items()), set(new.scopes.items())
    return sorted(after - before), sorted(before - after)


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


def read_approvals(path: Path) -> frozenset[tuple[str, ...]]:
    """Read approved gains: rows as in the `matrix.csv` that has the gain, under its header."""
    rows, findings = read_rows(read_regular_file(path), str(path))
    errors = [FieldError(f"line {f.line}", f.sentence) for f in findings]
    for number, row in rows:
        if len(row) != len(HEADER):
            errors.append(FieldError(f"line {number}", f"expected the fields {','.join(HEADER)}"))
    if not rows or rows[0][1] != HEADER:
        errors.append(FieldError("line 1", f"the first row must be `{','.join(HEADER)}`"))
    if errors:
        raise InvalidInput(f"`{path}` is no list of approved gains", errors, code="input-invalid")
    return frozenset(row for _, row in rows[1:])


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two policies, where it was found, and what is to be said of its `matrix.csv`."""

    table: DecisionTable
    origin: str
    unreviewed: str | None


def load_side(name: str, other: str, default: Path) -> Side:
    """Load one side of a diff: a folder, or a git revision of one.

    A revision is `REV` (of the other side's folder, else of `default`) or `REV:path/of/folder`.
    Raises PolicyError with every finding, or InvalidInput where the name is neither, or both.
    """
    folder = Path(name)
    revision, colon, path = name.partition(":")
    place = Path(path) if colon else Path(other) if Path(other).is_dir() else default
    # An empty name (an unset variable) is not the working folder.
    is_folder = bool(name) and folder.is_dir()
    if is_folder and not name.startswith((".", "/")) and _find_commit(revision, place) is not None:
        raise InvalidInput(
            f"`{name}` is both a folder and a git revision; write `./{name}` or `{name}:FOLDER`",
            code="input-invalid",
        )
    if is_folder:
        files, origin = read_policy_files(folder), f"folder {show_path(folder.resolve())}"
    else:
        files, origin = _read_revision(revision, place)
    table = read_table(files)
    unreviewed = None
    if files.matrix is None:
        unreviewed = f"nobody has reviewed it: there is no {MATRIX_FILE}"
    elif compare_with_matrix(table, files.matrix):
        unreviewed = f"its {MATRIX_FILE} is of another policy, so a server would not start with it"
    return Side(table, origin, unreviewed)


def _read_revision(revision: str, folder: Path) -> tuple[PolicyFiles, str]:
    """Read a policy folder as it was in a git revision: regular files, as they were committed."""
    commit = _find_commit(revision, folder)
    start, prefix = _split(folder)
    contents: list[bytes | None] = []
    for name in (MODEL_FILE, LINES_FILE, MATRIX_FILE):
        path = f"./{prefix}{name}"
        listed = None if commit is None else _run_git(start, "ls-tree", commit, "--", path)
        if name == MATRIX_FILE and commit is not None and not listed:
            contents.append(None)
            continue
        # A link's committed content is its target's name, and not what a server would read.
        content = _run_git(start, "show", f"{commit}:{path}") if listed else None
        if content is None or not (listed or b"").startswith((b"100644 blob", b"100755 blob")):
            raise InvalidInput(
                f"`{revision}` is neither a folder nor a git revision that has a policy (regular "
                f"files) in `{folder}`; write a folder, a revision, or REVISION:FOLDER",
                code="input-invalid",
            )
        contents.append(content)
    model, lines, matrix = contents
    files = PolicyFiles(model or b"", lines or b"", matrix)
    return files, f"revision {commit} of {show_path(folder.resolve())}"


def _find_commit(revision: str, folder: Path) -> str | None:
    """Give the id of the commit that a revision names in the repository of a folder."""
    start, _ = _split(folder)
    name = f"{revision}^{{commit}}"
    found = _run_git(start, "rev-parse", "--verify", "--quiet", "--end-of-options", name)
    return found.decode().strip() if revision and found else None


def _split(folder: Path) -> tuple[Path, str]:
    """Split a path into the part that is there as a folder, and the rest."""
    start = folder.resolve()
    while not start.is_dir():
        start = start.parent
    rest = folder.resolve().relative_to(start).as_posix()
    return start, "" if rest == "." else f"{rest}/"


def _run_git(start: Path, *arguments: str) -> bytes | None:
    """Run git and give what it prints; None where it fails, or there is no git."""
    try:
        return subprocess.run(  # noqa: S603 - git, with arguments that can't be options
            ["git", "-C", str(start), *arguments],  # noqa: S607 - as on the user's path
            check=True,
            capture_output=True,
            timeout=30,
        ).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def check_approvals(
    changes: list[Change], approved: frozenset[tuple[str, ...]]
) -> tuple[list[Change], list[tuple[str, ...]]]:
    """Give the gains that nobody approved, and the approvals that no gain uses."""
    gains = {change.right for change in changes if change.is_gain}
    unapproved = [c for c in changes if c.is_gain and c.right not in approved]
    return unapproved, sorted(approved - gains)
