"""The decision table: every answer that a policy can give, looked up and never worked out again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from types import MappingProxyType

from govbudget.authz.reader import Effect, Line, suggest
from govbudget.identity import Action, ObjectType, Scope

# Every question about one role.
CELLS = tuple(product(ObjectType, Action))
# INVARIANT: the policy is asked what some governed statement needs, and nothing else
# But for itself: to show it takes no statement.
# Of a group, its budget is asked about where that is a resource of its own.
ASKED = {
    *product((ObjectType.GROUP, ObjectType.AI_MODEL_PRICE), (Action.READ, Action.UPDATE)),
    *product((ObjectType.AI_USAGE,), (Action.CREATE, Action.UPDATE)),
    (ObjectType.AI_MEMBER_SPEND, Action.READ),
    (ObjectType.POLICY, Action.READ),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed or not, the lines that decided (none for a default deny), and the policy's digest."""

    allowed: bool
    lines: tuple[str, ...]
    policy_digest: str


class Verdict(StrEnum):
    """What one role brings into a set of roles, from the worst to the best.

    `forbid`: a line denies, for whoever holds the role, whatever else they hold. `deny`: no line
    matches, so another role may allow it. `allow`: a line allows and none denies.
    """

    FORBID = "forbid"
    DENY = "deny"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Cell:
    """What one role may do: one action on one kind of object, with every line that matches."""

    decision: Decision
    allow: tuple[Line, ...]
    deny: tuple[Line, ...]

    @property
    def verdict(self) -> Verdict:
        """The role's part in any set of roles: the set is allowed by an `allow` and no `forbid`."""
        if self.deny:
            return Verdict.FORBID
        return Verdict.ALLOW if self.allow else Verdict.DENY


@dataclass(slots=True, init=False, eq=False, repr=False)
class DecisionTable:
    """An immutable table: role x object x action.

    A set of roles is decided as the policy effect says: some line allows and no line denies. That
    is exact because the reader admits that effect and the pinned matcher only. Deciding costs one
    look-up a role.
    """

    # What budgets are decided as: a resource of their own where a line names it, else the group.
    budget_object: ObjectType
    # The cells that are ever asked about, in order. A group is asked about beside its budget, to
    # say whether a caller who is refused may know of it.
    asked: tuple[tuple[ObjectType, Action], ...]

    digest: str
    lines: tuple[Line, ...]
    scopes: Mapping[str, Scope]
    _cells: dict[tuple[str, str], dict[str, Cell]]
    _default: Decision
    _would_allow: dict[tuple[str, str], tuple[str, ...]]

    def __init__(self, digest: str, lines: tuple[Line, ...], matching: Iterable[Line]) -> None:
        """Build from the lines that match their cell, which Casbin was asked for."""
        by_cell: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
        for line in matching:
            by_cell[line.role, line.object, line.action].append(line)
        scopes = {line.role: line.scope for line in lines}
        cells: dict[tuple[str, str], dict[str, Cell]] = {}
        would_allow: dict[tuple[str, str], tuple[str, ...]] = {}
        made = {key: _make_cell(found, digest) for key, found in by_cell.items()}
        empty = _make_cell((), digest)
        for obj, action in CELLS:
            row = {role: made.get((role, obj, action), empty) for role in scopes}
            cells[obj, action] = row
            would_allow[obj, action] = tuple(
                f"{line.name} ({line.role} in its {line.scope})"
                for line in _in_order(line for cell in row.values() for line in cell.allow)
            )
        put = object.__setattr__
        own = any(line.object is ObjectType.GROUP_AI_BUDGET for line in lines)
        put(self, "budget_object", ObjectType.GROUP_AI_BUDGET if own else ObjectType.GROUP)
        budgets = {(self.budget_object, a) for obj, a in ASKED if obj is ObjectType.GROUP}
        put(self, "asked", tuple(cell for cell in CELLS if cell in ASKED | budgets))
        put(self, "digest", digest)
        put(self, "lines", lines)
        put(self, "scopes", MappingProxyType(scopes))
        put(self, "_cells", cells)
        put(self, "_default", empty.decision)
        put(self, "_would_allow", would_allow)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a table is immutable."""
        raise AttributeError(f"a decision table is immutable: can't set `{name}`")

    def decide(self, roles: Collection[str], obj: str, action: str) -> Decision:
        """Decide for a set of roles; no role at all is a default deny.

        Raises ValueError for a role, object type or action that the policy does not know.
        """
        if isinstance(roles, str):
            raise self._unknown(roles, obj, action)
        try:
            row = self._cells[obj, action]
            matching = [cell for role in roles if (cell := row[role]).decision.lines]
        except KeyError:
            raise self._unknown(roles, obj, action) from None
        if not matching:
            return self._default
        if len(matching) == 1:
            return matching[0].decision
        allow = [line for cell in matching for line in cell.allow]
        deny = [line for cell in matching for line in cell.deny]
        return _decide(allow, deny, self.digest)

    def asked_as(self, kind: ObjectType) -> ObjectType:
        """Give what the policy is asked about an object of this kind: of a group, its budget."""
        return self.budget_object if kind is ObjectType.GROUP else kind

    def cell(self, role: str, obj: ObjectType, action: Action) -> Cell:
        """Give what one role may do, with every line that matches."""
        return self._cells[obj, action][role]

    def is_allowed_to_some(self, obj: ObjectType, action: Action) -> bool:
        """Whether some role is allowed this, by itself."""
        return any(cell.verdict is Verdict.ALLOW for cell in self._cells[obj, action].values())

    def would_allow(self, obj: ObjectType, action: Action) -> tuple[str, ...]:
        """Name every line that allows this to somebody, with the role and scope it asks for."""
        return self._would_allow[obj, action]

    def _unknown(self, roles: Collection[str], obj: str, action: str) -> ValueError:
        if isinstance(roles, str):
            return ValueError(f"`roles` is a set of roles; write {{{roles!r}}}")
        for what, value, known in (
            *(("role", role, self.scopes) for role in roles),
            ("object type", obj, ObjectType),
            ("action", action, Action),
        ):
            if value not in list(known):
                known_names = suggest(str(value), known)
                return ValueError(f"`{value}` is not a known {what}; {known_names}")
        return ValueError("the roles are not a collection of role names")


def _make_cell(lines: Sequence[Line], digest: str) -> Cell:
    allow = tuple(line for line in lines if line.effect is Effect.ALLOW)
    deny = tuple(line for line in lines if line.effect is Effect.DENY)
    return Cell(_decide(allow, deny, digest), allow, deny)


def _decide(allow: Sequence[Line], deny: Sequence[Line], digest: str) -> Decision:
    """Apply the policy effect: some line allows, and no line denies."""
    # INVARIANT: a deny line wins over every allow line
    deciding = tuple(line.name for line in _in_order(deny or allow))
    return Decision(bool(allow) and not deny, deciding, digest)


def _in_order(lines: Iterable[Line]) -> list[Line]:
    """Give each line once, in the order of the file."""
    numbered = {line.number: line for line in lines}
    return [numbered[number] for number in sorted(numbered)]
