"""The decision table: every answer that a policy can give, looked up and never worked out again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from govbudget.authz.reader import Effect, Line, suggest
from govbudget.identity import Action, ObjectType, Scope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed or not, the lines that decided (none for a default deny), and the policy's digest."""

    allowed: bool
    lines: tuple[str, ...]
    policy_digest: str


@dataclass(frozen=True, slots=True)
class Cell:
    """What one role alone may do: the decision, and all lines that speak for and against."""

    decision: Decision
    allow: tuple[Line, ...]
    deny: tuple[Line, ...]


class DecisionTable:
    """An immutable table: role x object x action.

    A set of roles is decided as the policy effect says: some line allows and no line denies. That
    is exact because the reader admits that effect and the pinned matcher only. Deciding costs one
    look-up a role.
    """

    __slots__ = ("_cells", "_would_allow", "digest", "lines", "scopes")

    digest: str
    lines: tuple[Line, ...]
    scopes: Mapping[str, Scope]
    _cells: dict[tuple[str, str], dict[str, Cell]]
    _would_allow: dict[tuple[str, str], tuple[str, ...]]

    def __init__(
        self,
        digest: str,
        lines: tuple[Line, ...],
        speaking: Mapping[tuple[str, ObjectType, Action], Sequence[Line]],
    ) -> None:
        """Build from the lines that speak about each cell, which Casbin was asked for."""
        scopes = {line.role: line.scope for line in lines}
        cells: dict[tuple[str, str], dict[str, Cell]] = {}
        would_allow: dict[tuple[str, str], tuple[str, ...]] = {}
        for obj in ObjectType:
            for action in Action:
                row = {}
                for role in scopes:
                    spoken = speaking.get((role, obj, action), ())
                    allow = tuple(line for line in spoken if line.effect is Effect.ALLOW)
                    deny = tuple(line for line in spoken if line.effect is Effect.DENY)
                    row[role] = Cell(_decide(allow, deny, digest), allow, deny)
                cells[obj, action] = row
                would_allow[obj, action] = tuple(
                    f"{line.name} ({line.role} in its {line.scope})"
                    for line in sorted(
                        {line for cell in row.values() for line in cell.allow},
                        key=lambda line: line.number,
                    )
                )
        put = object.__setattr__
        put(self, "digest", digest)
        put(self, "lines", lines)
        put(self, "scopes", scopes)
        put(self, "_cells", cells)
        put(self, "_would_allow", would_allow)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a table is immutable."""
        message = f"a decision table is immutable: can't set `{name}`"
        raise AttributeError(message)

    def decide(self, roles: Collection[str], obj: str, action: str) -> Decision:
        """Decide for the roles of a standing; no role at all is a default deny.

        Raises ValueError for a role, object type or action that the policy does not know.
        """
        row = self._cells.get((obj, action))
        if row is None:
            raise self._unknown(roles, obj, action)
        try:
            if len(roles) == 1:
                for role in roles:
                    return row[role].decision
            cells = [row[role] for role in roles]
        except KeyError:
            raise self._unknown(roles, obj, action) from None
        return _decide(
            tuple(line for cell in cells for line in cell.allow),
            tuple(line for cell in cells for line in cell.deny),
            self.digest,
        )

    def cell(self, role: str, obj: ObjectType, action: Action) -> Cell:
        """Give what one role alone may do, with every line that speaks about it."""
        return self._cells[obj, action][role]

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
                return ValueError(f"`{value}` is no {what} of this policy; {suggest(value, known)}")
        return ValueError("the roles are not a collection of role names")


def _decide(allow: tuple[Line, ...], deny: tuple[Line, ...], digest: str) -> Decision:
    """Apply the policy effect: some line allows, and no line denies."""
    deciding = sorted(deny or allow, key=lambda line: line.number)
    return Decision(
        bool(allow) and not deny, tuple(dict.fromkeys(line.name for line in deciding)), digest
    )
