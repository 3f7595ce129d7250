"""The policy: loaded from its files, asked for decisions, reloaded without a gap."""

from __future__ import annotations

import threading
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self

from govbudget.authz.files import LINES_FILE, PolicyFiles, packaged_policy_dir, read_policy_files
from govbudget.authz.grant import Grant, ListGrant, mint_grant
from govbudget.authz.judge import ensure_one_casbin, read_table
from govbudget.authz.matrix import compare_with_matrix
from govbudget.authz.standing import find_standing, is_holdable
from govbudget.authz.table import Decision
from govbudget.errors import Finding, Forbidden, NotFound, PolicyError
from govbudget.identity import (
    SITE,
    Action,
    CommandOperator,
    Domain,
    Ledger,
    Member,
    Object,
    ObjectType,
    Organization,
    Scope,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from os import PathLike

    from govbudget.authz.table import DecisionTable
    from govbudget.identity import Id, Subject


# A look-up takes a fifth of the time of `Action(action)`.
_ACTIONS: dict[str, Action] = {action: action for action in Action}


def load_table(files: PolicyFiles) -> DecisionTable:
    """Make the table of a policy's files: strict reader, Casbin, the reviewed matrix if any.

    Raises PolicyError with every finding.
    """
    table = read_table(files)
    if files.matrix is not None and (findings := compare_with_matrix(table, files.matrix)):
        raise PolicyError(findings)
    return table


class Policy:
    """A policy in force: a folder, and the decision table made from it.

    Safe to share between threads: the table is immutable, and a reload swaps one reference.
    """

    __slots__ = ("_pinned_digest", "_reloading", "_table", "folder")

    def __init__(self, folder: Path, table: DecisionTable, pinned_digest: str | None) -> None:
        """Take a table that was made from the folder. Use `Policy.load`."""
        self.folder = folder
        self._table = table
        self._pinned_digest = pinned_digest
        self._reloading = threading.Lock()

    @classmethod
    def load(cls, folder: str | PathLike[str] | None = None, *, digest: str | None = None) -> Self:
        """Load a policy folder (the packaged policy by default).

        `digest`, where given, is demanded of the files. Raises PolicyError with every finding.
        """
        path = packaged_policy_dir() if folder is None else Path(folder)
        return cls(path, _load(path, digest), digest)

    def reload(self) -> None:
        """Read the folder anew; on any finding raise PolicyError and keep the table in force."""
        # INVARIANT: a reload that raises keeps the table in force
        # One at a time: the reload that read the older files must not be the last to swap.
        with self._reloading:
            table = _load(self.folder, self._pinned_digest)
            # The host goes on asking about the object that it was started with.
            if table.budget_object is not self._table.budget_object:
                sentence = (
                    f"the lines judge budgets as `{table.budget_object}` now, and this process was "
                    f"started with `{self._table.budget_object}`; restart it with the setting "
                    "GOVBUDGET_BUDGET_OBJECT changed"
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
        """Decide what the roles of a standing may do; an unknown name is a ValueError."""
        return self._table.decide(roles, obj, action)

    def authorize(self, subject: Subject, action: str, obj: Object) -> Grant:
        """Give a grant for this action on this object.

        Raises Forbidden where the caller may do something else with the object (with a budget or
        its group), or the object is site-wide; NotFound, by the object's own noun, where the caller
        may do nothing with it; ValueError for an unknown action.
        """
        table = self._table
        roles = find_standing(subject, obj, table.scopes)
        decision = table.decide(roles, obj.type, action)
        act = _ACTIONS[action]
        if decision.allowed:
            return mint_grant(subject, roles, act, obj, decision)
        would_allow = table.would_allow(obj.type, act)
        site_wide = obj.domain(Scope.ORGANIZATION) is None
        in_group = obj.domain(Scope.GROUP) is not None
        if site_wide or any(
            table.decide(roles, known, other).allowed
            for known in ((obj.type, ObjectType.GROUP) if in_group else (obj.type,))
            for other in Action
        ):
            raise Forbidden(act, decision.lines, would_allow)
        raise NotFound("group" if in_group else "member", would_allow)

    def authorize_list(
        self,
        subject: Subject,
        action: str,
        organization: Organization,
        object_type: ObjectType = ObjectType.GROUP,
    ) -> ListGrant:
        """Give a list grant: which of the organization's groups this action is allowed on.

        `subject` comes from `Directory.load_organization`. Raises NotFound where the caller has no
        standing in the organization or one of its groups.
        """
        table = self._table
        here = (SITE, Domain(Scope.ORGANIZATION, organization.id))
        everywhere: list[str] = []
        in_groups: dict[Id, list[str]] = {}
        for role, domain in dict.fromkeys(subject.assignments):
            if table.scopes.get(role) is domain.scope and is_holdable(domain):
                if domain.scope is Scope.GROUP and domain.id is not None:
                    in_groups.setdefault(domain.id, []).append(role)
                elif domain in here:
                    everywhere.append(role)
        if not everywhere and not in_groups:
            raise NotFound("organization", table.would_allow(object_type, Action(action)))
        return _grant_list(
            table, subject, action, object_type, organization, everywhere=everywhere, more=in_groups
        )

    def authorize_members(
        self, subject: Subject, action: str, organization: Organization
    ) -> ListGrant:
        """Give a list grant: whose spend in the organization this action is allowed on.

        `exceptions` holds the caller's own id, where being oneself changes the answer. `subject`
        comes from `Directory.load_organization`, or from `load_group` of one of its groups. Raises
        Forbidden where nothing at all is allowed.
        """
        table, kind = self._table, ObjectType.AI_MEMBER_SPEND
        if isinstance(subject.id, CommandOperator):  # who holds roles of the site, and is no user
            roles, own = find_standing(subject, Ledger(), table.scopes), {}
        else:
            roles = find_standing(subject, Member(organization.id, subject.id), table.scopes)
            own = {subject.id: [role for role in roles if table.scopes[role] is Scope.USER]}
        everywhere = [role for role in roles if table.scopes[role] is not Scope.USER]
        grant = _grant_list(
            table, subject, action, kind, organization, everywhere=everywhere, more=own
        )
        if not grant.decision.allowed:
            lines = table.decide(roles, kind, action).lines
            raise Forbidden(grant.action, lines, table.would_allow(kind, grant.action))
        return grant


def _grant_list(
    table: DecisionTable,
    subject: Subject,
    action: str,
    object_type: ObjectType,
    organization: Organization,
    *,
    everywhere: list[str],
    more: dict[Id, list[str]],
) -> ListGrant:
    """Decide for the roles held everywhere; those with more roles that change it are exceptions."""
    elsewhere = table.decide(everywhere, object_type, action)
    exceptions: list[Id] = []
    lines = dict.fromkeys(elsewhere.lines)
    for its_id, roles in more.items():
        decision = table.decide([*everywhere, *roles], object_type, action)
        if decision.allowed is not elsewhere.allowed:
            exceptions.append(its_id)
            lines |= dict.fromkeys(decision.lines)
    grant = object.__new__(ListGrant)  # minted here and nowhere else
    ListGrant.__init__(
        grant,
        subject,
        tuple(dict.fromkeys(chain(everywhere, *more.values()))),
        Action(action),
        Decision(elsewhere.allowed or bool(exceptions), tuple(lines), table.digest),
        object_type,
        organization,
        elsewhere.allowed,
        tuple(exceptions),
    )
    return grant


def _load(folder: Path, pinned_digest: str | None) -> DecisionTable:
    ensure_one_casbin()
    files = read_policy_files(folder)
    if findings := files.compare_digest(pinned_digest, folder):
        raise PolicyError(findings)
    return load_table(files)
