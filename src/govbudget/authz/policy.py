"""The policy: loaded from its files, asked for decisions, reloaded without a gap."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Self

from govbudget.authz.authorize import Allowed, ObjectT, authorize
from govbudget.authz.effective import find_mistake
from govbudget.authz.evaluator import ensure_one_casbin, read_table
from govbudget.authz.files import LINES_FILE, PolicyFiles, packaged_policy_dir, read_policy_files
from govbudget.authz.matrix import find_unreviewed
from govbudget.authz.table import Decision, DecisionTable
from govbudget.errors import Finding, PolicyError
from govbudget.identity import Subject


def load_table(files: PolicyFiles, *, require_matrix: bool = False) -> DecisionTable:
    """Make the table of a policy's files: strict reader, Casbin, the reviewed matrix if any.

    Raises PolicyError with every finding; one, where the matrix is required, is that there is none.
    """
    table = read_table(files)
    if findings := find_unreviewed(table, files.matrix, required=require_matrix):
        raise PolicyError(findings)
    return table


@dataclass(slots=True, eq=False, repr=False)
class Policy:
    """A policy in force: a folder, and the decision table made from it.

    Safe to share between threads: the table is immutable, and a reload swaps one reference.
    `Policy.load` makes it.
    """

    folder: Path
    _table: DecisionTable
    _pinned_digest: str | None
    requires_matrix: bool = field(default=False, kw_only=True)
    _reloading: threading.Lock = field(init=False, default_factory=threading.Lock)

    @classmethod
    def load(
        cls,
        folder: str | PathLike[str] | None = None,
        *,
        digest: str | None = None,
        require_matrix: bool = False,
    ) -> Self:
        """Load a policy folder (the packaged policy by default).

        `digest`, where given, is demanded of the files, and with `require_matrix` the reviewed
        decisions are, by a reload as well. Raises PolicyError with every finding.
        """
        path = packaged_policy_dir() if folder is None else Path(folder)
        table = _load(path, digest, require_matrix=require_matrix)
        return cls(path, table, digest, requires_matrix=require_matrix)

    def reload(self) -> None:
        """Read the folder anew; on any finding raise PolicyError and keep the table in force."""
        # INVARIANT: a reload that raises keeps the table in force
        # One at a time: the reload that read the older files must not be the last to swap.
        with self._reloading:
            required = self.requires_matrix
            table = _load(self.folder, self._pinned_digest, require_matrix=required)
            if table.budget_object is not self._table.budget_object:
                sentence = (
                    f"the lines decide budgets as `{table.budget_object}` now, and this process "
                    f"was started with `{self._table.budget_object}`; restart it"
                )
                raise PolicyError([Finding(LINES_FILE, 0, "needs-restart", sentence)])
            self._table = table

    @property
    def table(self) -> DecisionTable:
        """The table in force."""
        return self._table

    @property
    def digest(self) -> str:
        """The digest of the files that the table in force was made from (`sha256:<hex>`)."""
        return self._table.digest

    def decide(self, roles: Collection[str], obj: str, action: str) -> Decision:
        """Decide what a set of roles may do; an unknown name is a ValueError."""
        return self._table.decide(roles, obj, action)

    def authorize(self, subject: Subject, action: str, obj: ObjectT) -> Allowed[ObjectT]:
        """Decide whether the subject may do this to the object, for tests without a database.

        Raises Forbidden and NotFound as `govbudget.authz.authorize.authorize` does; ValueError for
        an unknown action, for a role that the policy does not declare or has at another scope, and
        for ids of different types. What it gives opens nothing.
        """
        if mistake := find_mistake(subject, obj, self._table.scopes):
            raise ValueError(mistake)
        return authorize(self._table, subject, action, obj)


def _load(folder: Path, pinned_digest: str | None, *, require_matrix: bool) -> DecisionTable:
    ensure_one_casbin()
    files = read_policy_files(folder)
    if findings := files.compare_digest(pinned_digest, folder):
        raise PolicyError(findings)
    return load_table(files, require_matrix=require_matrix)
