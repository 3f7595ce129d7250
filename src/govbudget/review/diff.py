"""`policy diff`: who gains and who loses what between two policies."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePath

from govbudget.authz.evaluator import read_table
from govbudget.authz.files import (
    LINES_FILE,
    MATRIX_FILE,
    MODEL_FILE,
    PolicyFiles,
    read_policy_files,
    read_regular_file,
    show_path,
)
from govbudget.authz.matrix import HEADER, compare_with_matrix
from govbudget.authz.reader import read_rows
from govbudget.authz.table import CELLS, Cell, DecisionTable, Verdict
from govbudget.errors import FieldError, InvalidInput
from govbudget.identity import Action, ObjectType, Scope

FILES = (MODEL_FILE, LINES_FILE, MATRIX_FILE)

# What the mode of an entry in a git tree says.
KINDS = {
    "040000": "a folder",
    "100644": "a file",
    "100755": "a file",
    "120000": "a symbolic link",
    "160000": "a submodule",
}

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
        raise InvalidInput(
            f"`{path}` is not a list of approved gains", errors, code="input-invalid"
        )
    return frozenset(row for _, row in rows[1:])


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two policies, where it was found, and what is to be said of its `matrix.csv`.

    `path` is that of its folder: in the repository where it is of a `revision`, a full one else.
    `within` is its path from the top of the repository.
    """

    table: DecisionTable
    path: str
    revision: str | None
    within: PurePath
    unreviewed: str | None

    def __str__(self) -> str:
        """Say where it was found, and which it is."""
        revision = f"revision {self.revision} of" if self.revision else "folder"
        return f"{revision} {self.path} {self.table.digest}"

    def describe(self) -> dict[str, str | None]:
        """Give the same as fields."""
        return {"path": self.path, "revision": self.revision, "digest": self.table.digest}


def load_side(name: str, other: str, default: Path) -> Side:
    """Load one side of a diff: a folder, or a git revision of one.

    A revision is `REV` (of the other side's folder, else of `default`) or `REV:path/of/folder`, in
    the repository of the working directory. Raises PolicyError with every finding, or InvalidInput
    where the name is neither, or both, or where a link or a submodule is on its path.
    """
    folder = Path(name)
    revision, colon, path = name.partition(":")
    folder_there = Path(path) if colon else Path(other) if Path(other).is_dir() else default
    # An empty name (an unset variable) is not the working folder.
    is_folder = bool(name) and (folder.is_dir() or folder.is_symlink())
    if is_folder and not name.startswith((".", "/")) and _find_commit(revision) is not None:
        raise _refuse(
            f"`{name}` is both a folder and a git revision; write `./{name}` or `{name}:FOLDER`"
        )
    if is_folder:
        _check_folder(folder)
        files, within = read_policy_files(folder), find_in_repository(folder)
        commit = None
    else:
        files, within, commit = _read_revision(revision, folder_there)
    table = read_table(files)
    unreviewed = None
    if files.matrix is None:
        unreviewed = f"nobody has reviewed it: there is no {MATRIX_FILE}"
    elif compare_with_matrix(table, files.matrix):
        unreviewed = f"its {MATRIX_FILE} is of another policy, so a server would not start with it"
    path = show_path(Path(within) if commit else folder.resolve())
    return Side(table, path, commit, within, unreviewed)


def find_in_repository(folder: Path) -> PurePath:
    """Give a folder's path from the top of its repository; outside of one, its own name."""
    real = Path(os.path.realpath(folder))
    top = next((p for p in (real, *real.parents) if (p / ".git").exists()), real.parent)
    return real.relative_to(top)


def _check_folder(folder: Path) -> None:
    """Raise InvalidInput where the path or a file is a link, or the folder is in a submodule.

    A change that moves a link or a submodule changes the policy, and not the folder's own files.
    """
    for path in (*reversed(folder.parents), folder, *(folder / name for name in FILES)):
        if path.is_symlink():
            raise _refuse(
                f"`{show_path(path)}` is a symbolic link, which `policy diff` does not follow; put "
                "the folder or file itself there, or write its own path"
            )
    ask = ("rev-parse", "--show-toplevel", "--show-superproject-working-tree")
    here, there = _run_git(*ask), _run_git("-C", str(folder), *ask)
    if there != here and len((there or b"").splitlines()) > 1:
        raise _refuse(f"`{show_path(folder)}` is in a submodule; run the command in the submodule")


def _read_revision(revision: str, folder: Path) -> tuple[PolicyFiles, PurePath, str]:
    """Read a policy folder of a commit: regular files, as they were committed.

    Goes from tree to tree by the ids of git's objects, so that nothing but the literal path counts:
    no link, submodule, pattern, filter or other letter case.
    """
    commit = _find_commit(revision)
    if commit is None:
        raise _refuse(
            f"`{revision}` is neither a folder nor a git revision in the repository of the working "
            "directory; write a folder, a revision, or REVISION:FOLDER"
        )
    prefix = os.fsdecode(_run_git("rev-parse", "--show-prefix") or b"").rstrip("\n")
    path = Path(os.path.normpath(Path(prefix, os.path.relpath(folder))))
    tree = commit
    for part in [*reversed(path.parents), path][1:]:
        tree = _find_object(tree, commit, part, "a folder") or ""
    found = [_find_object(tree, commit, path / name, "a file") for name in FILES]
    # What git lists and can't read is empty, which is never as it should be.
    model, lines, matrix = (
        None if found_id is None else _run_git("cat-file", "blob", found_id) or b""
        for found_id in found
    )
    return PolicyFiles(model or b"", lines or b"", matrix), path, commit


def _find_object(tree: str, commit: str, path: Path, wanted: str) -> str | None:
    """Give the id that a path's last part has in its tree; raise InvalidInput for another kind.

    None: there is no `matrix.csv`.
    """
    kind = "not there"
    for entry in (_run_git("ls-tree", "-z", "--full-tree", tree) or b"").split(b"\0"):
        about, _, name = entry.partition(b"\t")
        if name == os.fsencode(path.name):
            mode, _, found = about.decode().split()
            kind = KINDS.get(mode, "of an unknown kind")
            if kind == wanted:
                return found
    if kind == "not there" and path.name == MATRIX_FILE:
        return None
    raise _refuse(
        f"`{show_path(path)}` in the revision {commit} is {kind}; write the path of {wanted} in "
        "the repository of the working directory"
    )


def _find_commit(revision: str) -> str | None:
    """Give the id of the commit that a revision names in the working directory's repository."""
    name = f"{revision}^{{commit}}"
    found = _run_git("rev-parse", "--verify", "--end-of-options", name)
    return found.decode().strip() if revision and found else None


def _run_git(*arguments: str) -> bytes | None:
    """Run git in the working directory and give what it prints; None: it fails, or is not there.

    Raises InvalidInput for a name that several refs have: whoever may push a tag could choose.
    """
    # Variables that name another repository, objects or refs don't count; settings do.
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or "CONFIG" in k}
    real = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": os.devnull, "LC_ALL": "C"}
    # The repository's settings go before the variable, and these go before them. An older git knows
    # the variable alone.
    ours = ("-c", "core.useReplaceRefs=false", "-c", "core.warnAmbiguousRefs=true")
    try:
        done = subprocess.run(  # noqa: S603 - git, with arguments that can't be options
            ["git", *ours, *arguments],  # noqa: S607 - as on the user's path
            check=False,
            capture_output=True,
            timeout=30,
            env=kept | real,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if b"is ambiguous" in done.stderr:
        name = arguments[-1].removesuffix("^{commit}")
        raise _refuse(
            f"git knows more than one `{name}`; write which one, such as `refs/heads/main` or "
            "`refs/remotes/origin/main`"
        )
    return None if done.returncode else done.stdout


def _refuse(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, code="input-invalid")
