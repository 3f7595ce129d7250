"""The two sides of `policy diff`: a policy in a folder, or in a revision that git knows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from govbudget.authz.evaluator import read_table
from govbudget.authz.files import (
    LINES_FILE,
    MATRIX_FILE,
    MODEL_FILE,
    PolicyFiles,
    read_policy_files,
    show_path,
)
from govbudget.authz.matrix import compare_with_matrix
from govbudget.authz.table import DecisionTable
from govbudget.errors import InvalidInput

FILES = (MODEL_FILE, LINES_FILE, MATRIX_FILE)

# What the mode of an entry in a git tree says.
KINDS = {
    "040000": "a folder",
    "100644": "a file",
    "100755": "a file",
    "120000": "a symbolic link",
    "160000": "a submodule",
}


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


def find_folder(name: str) -> Path | None:
    """Give the folder of a side; None: it is a revision that names none."""
    _, colon, path = name.partition(":")
    return Path(name) if Path(name).is_dir() else Path(path) if colon else None


def load_side(name: str, default: Path, parts_from: str | None = None) -> Side:
    """Load one side of a diff: a folder, or a git revision of one.

    A revision is `REV` (of the folder `default`) or `REV:path/of/folder`, in the repository of the
    working directory. With `parts_from`, the name of the other side, it is read at the commit at
    which the two part; a folder counts as HEAD. Raises PolicyError with every finding, or
    InvalidInput where the name is neither, or both, or where a link or a submodule is on its path.
    """
    folder = Path(name)
    revision = name.partition(":")[0]
    # An empty name (an unset variable) is not the working folder.
    is_folder = bool(name) and (folder.is_dir() or folder.is_symlink())
    if is_folder and not name.startswith((".", "/")) and _find_commit(revision) is not None:
        raise _refuse(
            f"`{name}` is both a folder and a git revision; write `./{name}` or `{name}:FOLDER`"
        )
    if is_folder and parts_from is not None:
        raise _refuse(f"`{name}` is a folder; --merge-base takes a git revision as OLD")
    if is_folder:
        _check_folder(folder)
        files, within = read_policy_files(folder), find_in_repository(folder)
        commit = None
    else:
        files, within, commit = _read_revision(revision, find_folder(name) or default, parts_from)
    table = read_table(files)
    unreviewed = None
    if files.matrix is None:
        unreviewed = f"nobody has reviewed it: there is no {MATRIX_FILE}"
    elif compare_with_matrix(table, files.matrix):
        unreviewed = f"its {MATRIX_FILE} is of another policy, so a server would not start with it"
    path = show_path(Path(within) if commit else folder.resolve())
    return Side(table, path, commit, within, unreviewed)


def read_earlier(side: Side, path: Path) -> bytes:
    """Read what a file of the working tree was in a side's revision: nothing if not there."""
    top, real = _find_top(Path()), Path(os.path.realpath(path))
    if side.revision is None or top is None or not real.is_relative_to(top):
        return b""
    return _run_git("cat-file", "blob", f"{side.revision}:{real.relative_to(top)}") or b""


def _find_top(folder: Path) -> Path | None:
    """Give the top of the repository that a folder is in, without links; None: it is in none.

    Only `.git` makes one. A change can't add that, but it can add what git else takes for a
    repository without a working tree: `HEAD`, `objects` and `refs` beside the policy.
    """
    real = Path(os.path.realpath(folder))
    return next((p for p in (real, *real.parents) if (p / ".git").exists()), None)


def find_in_repository(folder: Path) -> PurePath:
    """Give a folder's path from the top of its repository; outside of one, its own name."""
    real = Path(os.path.realpath(folder))
    return real.relative_to(_find_top(folder) or real.parent)


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
    top, within = _find_top(folder), find_in_repository(folder)
    if top is None:
        return
    ask = ("rev-parse", "--show-superproject-working-tree")
    if top != _find_top(Path()):
        _require_readable(folder)
        if _run_git(*ask, where=folder):
            shown = show_path(folder)
            raise _refuse(f"`{shown}` is in a submodule; run the command in the submodule")
    for part in (*reversed(within.parents), within, *(within / name for name in FILES)):
        if part.name:
            names = [path.name for path in (top / part.parent).iterdir()]
            _refuse_alike(part, names, "in the working tree")


def _refuse_alike(path: PurePath, names: Iterable[str], where: str) -> None:
    """Raise InvalidInput where several names are one to a file system that ignores letter case.

    A checkout has the last of them there. So it has of a name that is in a tree twice, or with
    a slash in it, which git does not write and still reads.
    """
    alike = [n for n in names if n.partition("/")[0].casefold() == path.name.casefold()]
    if len(alike) > 1:
        shown = ", ".join(f"`{show_path(Path(name))}`" for name in sorted(alike))
        raise _refuse(
            f"`{show_path(Path(path))}` {where} is there several times, as {shown}; a checkout may "
            "have any of them; keep one"
        )


def _read_revision(
    revision: str, folder: Path, parts_from: str | None
) -> tuple[PolicyFiles, PurePath, str]:
    """Read a policy folder of a commit: regular files, as they were committed.

    Goes from tree to tree by the ids of git's objects, so that nothing but the literal path counts:
    no link, submodule, pattern, filter or other letter case.
    """
    commit = _require_commit(revision)
    if parts_from is not None:
        other = "HEAD" if Path(parts_from).is_dir() else parts_from.partition(":")[0]
        commit = _find_parting(commit, other)
    path = Path(os.path.relpath(folder, _find_top(Path())))
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
    listed = os.fsdecode(_run_git("ls-tree", "-z", "--full-tree", tree) or b"").split("\0")
    entries = [(name, about) for about, _, name in (entry.partition("\t") for entry in listed)]
    _refuse_alike(path, [name for name, _ in entries], f"in the revision {commit}")
    for name, about in entries:
        if name == path.name:
            mode, _, found = about.split()
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


def _require_commit(revision: str) -> str:
    commit = _find_commit(revision)
    if commit is None:
        _require_readable(Path())
        raise _refuse(
            f"`{revision}` is neither a folder nor a git revision in the repository of the working "
            "directory; write a folder, a revision, or REVISION:FOLDER"
        )
    return commit


def _find_parting(commit: str, other: str) -> str:
    """Give the commit at which two part."""
    found = (_run_git("merge-base", "--all", commit, _require_commit(other)) or b"").split()
    if len(found) == 1:
        return found[0].decode()
    if found:
        raise _refuse(
            f"{commit} and `{other}` part at several commits; write one of them: "
            f"{b', '.join(found).decode()}"
        )
    raise _refuse(f"{commit} and `{other}` have no commit in common here; fetch their history")


def _require_readable(folder: Path) -> None:
    """Raise InvalidInput where git can't read the folder's repository at all, in git's words."""
    if _find_top(folder) is None:
        return
    done = _call_git("rev-parse", "--git-dir", where=folder)
    if done is None:
        raise _refuse("git does not run; install it, or name two folders")
    if done.returncode:
        reason = os.fsdecode(done.stderr).partition("\n")[0].removeprefix("fatal: ")
        raise _refuse(
            f"git can't read the repository of `{show_path(folder.resolve())}`: {reason}; "
            "`git status` there says what to do"
        )


def _run_git(*arguments: str, where: Path = Path()) -> bytes | None:
    """Give what git prints; None: it fails, or does not run."""
    done = _call_git(*arguments, where=where)
    return None if done is None or done.returncode else done.stdout


def _call_git(*arguments: str, where: Path) -> subprocess.CompletedProcess[bytes] | None:
    """Run git in the folder's repository; None: it does not run.

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
            cwd=_find_top(where),
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
    return done


def _refuse(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, code="input-invalid")
