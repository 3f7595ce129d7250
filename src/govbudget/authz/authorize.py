"""One decision about one caller and one object: `Allowed`, or Forbidden, or NotFound."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from govbudget.authz.effective import find_effective_roles, is_holdable
from govbudget.errors import Forbidden, NotFound
from govbudget.identity import SITE, Action, Domain, Member, Object, ObjectType, Organization, Scope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from govbudget.authz.table import DecisionTable
    from govbudget.identity import Id, Subject

ObjectT = TypeVar("ObjectT", bound=Object | Organization)

# A look-up takes a fifth of the time of `Action(action)`.
_ACTIONS: dict[str, Action] = {action: action for action in Action}


@dataclass(frozen=True, slots=True)
class Reach:
    """Which groups, or members, of an organization an action is allowed on.

    It is allowed on each where `elsewhere` is true, except on those in `exceptions`, for which the
    opposite holds: groups in which the caller holds a role that changes the answer, or the caller.
    """

    elsewhere: bool
    exceptions: tuple[Id, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it is allowed on none."""
        return not self.elsewhere and not self.exceptions


@dataclass(frozen=True, slots=True)
class Allowed(Generic[ObjectT]):
    """An allowed decision: who may do what to which object, by which roles and policy lines.

    It opens nothing; `Unit.authorize` makes a grant of it. `reach` says, of an organization, which
    of its groups the action is allowed on.
    """

    subject: Subject
    action: Action
    object: ObjectT
    roles: tuple[str, ...]
    lines: tuple[str, ...]
    policy_digest: str
    reach: Reach | None = None


def authorize(
    table: DecisionTable, subject: Subject, action: str, obj: ObjectT
) -> Allowed[ObjectT]:
    """Decide whether the subject may do this to the object; raise where it may not.

    Raises Forbidden where the caller may do something else with the object (with a budget or its
    group), or the object is site-wide; NotFound, by the object's own noun, where the caller may do
    nothing with it; ValueError for an unknown action. Of an organization, `read` asks what is there
    to read: whoever holds an effective role in it or in one of its groups is allowed.
    """
    if isinstance(obj, Organization):
        return _authorize_organization(table, subject, action, obj)
    asked = table.asked_as(obj.type)
    roles = find_effective_roles(subject, obj, table.scopes)
    decision = table.decide(roles, asked, action)
    act = _ACTIONS[action]
    if decision.allowed:
        return Allowed(subject, act, obj, roles, decision.lines, decision.policy_digest)
    would_allow = table.would_allow(asked, act)
    site_wide = obj.domain(Scope.ORGANIZATION) is None
    if site_wide or any(
        table.decide(roles, known, other).allowed
        for known, other in table.asked
        if known in {asked, obj.type}
    ):
        raise Forbidden(act, decision.lines, would_allow)
    raise NotFound("group" if obj.type is ObjectType.GROUP else "member", would_allow)


def _authorize_organization(
    table: DecisionTable, subject: Subject, action: str, organization: ObjectT
) -> Allowed[ObjectT]:
    """Decide for all groups of the organization at once."""
    asked = table.asked_as(ObjectType.GROUP)
    here = (SITE, Domain(Scope.ORGANIZATION, organization.id))
    everywhere: list[str] = []
    in_groups: dict[Id, list[str]] = {}
    for role, domain in dict.fromkeys(subject.assignments):
        if table.scopes.get(role) == domain.scope and is_holdable(domain):
            if domain.scope == Scope.GROUP and domain.id is not None:
                in_groups.setdefault(domain.id, []).append(role)
            elif domain in here:
                everywhere.append(role)
    reach, lines = _find_reach(table, asked, action, everywhere, in_groups)
    act = _ACTIONS[action]
    would_allow = table.would_allow(asked, act)
    if not everywhere and not in_groups:
        raise NotFound("organization", would_allow)
    if act is not Action.READ and reach.is_empty:
        raise Forbidden(act, lines, would_allow)
    roles = tuple(dict.fromkeys(chain(everywhere, *in_groups.values())))
    return Allowed(subject, act, organization, roles, lines, table.digest, reach)


def reach_members(table: DecisionTable, allowed: Allowed[ObjectT]) -> Reach:
    """Say on whose spend in the allowed object's organization the same action is allowed.

    `exceptions` holds the caller's own id, where being oneself changes the answer. Raises Forbidden
    where it is allowed on nobody's.
    """
    subject, action, obj = allowed.subject, allowed.action, allowed.object
    organization_id = obj.id if isinstance(obj, Organization) else obj.organization_id  # type: ignore[union-attr]
    kind = ObjectType.AI_MEMBER_SPEND
    caller = cast("Id", subject.id)  # an operator has no id, and no role toward itself
    roles = find_effective_roles(subject, Member(organization_id, caller), table.scopes)
    own = [role for role in roles if table.scopes[role] is Scope.USER]
    everywhere = [role for role in roles if role not in own]
    reach, _ = _find_reach(table, kind, action, everywhere, {caller: own})
    if reach.is_empty:
        lines = table.decide(roles, kind, action).lines
        raise Forbidden(action, lines, table.would_allow(kind, action))
    return reach


def _find_reach(
    table: DecisionTable,
    asked: ObjectType,
    action: str,
    everywhere: Sequence[str],
    more: Mapping[Id, Sequence[str]],
) -> tuple[Reach, tuple[str, ...]]:
    """Decide for the roles held everywhere; those with more roles that change it are exceptions."""
    elsewhere = table.decide(everywhere, asked, action)
    exceptions: list[Id] = []
    lines = dict.fromkeys(elsewhere.lines)
    for its_id, roles in more.items():
        decision = table.decide([*everywhere, *roles], asked, action)
        if decision.allowed is not elsewhere.allowed:
            exceptions.append(its_id)
            lines |= dict.fromkeys(decision.lines)
    return Reach(elsewhere.allowed, tuple(exceptions)), tuple(lines)
