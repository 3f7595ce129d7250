"""`policy explain`: why a decision is what it is, line by line, and what was lacking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from govbudget.authz.reader import Effect, Line
from govbudget.identity import Action, Assignment, Group, ObjectType, Scope

if TYPE_CHECKING:
    from collections.abc import Collection

    from govbudget.authz.table import Decision, DecisionTable

MAX_NEAREST = 5


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, every line that speaks for or against it, and the nearest lines that do not."""

    decision: Decision
    speaking: tuple[Line, ...]
    nearest: tuple[tuple[Line, str], ...]

    def is_deciding(self, line: Line) -> bool:
        """Whether the decision hangs on this line."""
        return line.name in self.decision.lines


def explain_decision(
    table: DecisionTable, roles: Collection[str], obj: str, action: str
) -> Explanation:
    """Explain what the roles of a standing may do; an unknown name is a ValueError.

    For a default deny, `nearest` holds the allow lines that lack least, each with a sentence about
    what it lacks.
    """
    decision = table.decide(roles, obj, action)
    object_type, act = ObjectType(obj), Action(action)
    cells = [table.cell(role, object_type, act) for role in roles]
    speaking = {line for cell in cells for line in (*cell.allow, *cell.deny)}
    nearest: tuple[tuple[Line, str], ...] = ()
    if not decision.allowed and not decision.lines:
        lacking = [
            (line, missing)
            for line in table.lines
            if line.effect is Effect.ALLOW
            and (missing := _find_missing(line, roles, object_type, act))
        ]
        fewest = min((len(missing) for _, missing in lacking), default=0)
        # A line for this very object and action comes first: it is the one to be given.
        lacking = sorted(
            (item for item in lacking if len(item[1]) == fewest),
            key=lambda item: ((item[0].object, item[0].action) != (object_type, act),),
        )
        nearest = tuple((line, "; ".join(missing)) for line, missing in lacking[:MAX_NEAREST])
    return Explanation(decision, tuple(sorted(speaking, key=lambda x: x.number)), nearest)


def _find_missing(line: Line, roles: Collection[str], obj: ObjectType, action: Action) -> list[str]:
    """Say what a line lacks to allow this."""
    place = "on the site" if line.scope is Scope.SITE else f"in the {line.scope}"
    return [
        sentence
        for differs, sentence in (
            (line.role not in roles, f"would be allowed if `{line.role}` were held {place}"),
            (line.object is not obj, f"is about `{line.object}`, not `{obj}`"),
            (line.action is not action, f"allows `{line.action}`, not `{action}`"),
        )
        if differs
    ]


def explain_assignment(table: DecisionTable, assignment: Assignment, group: Group) -> str:
    """Say whether a role that somebody holds counts toward a group, and why not."""
    role, domain = assignment
    scope = table.scopes.get(role)
    if scope is None:
        return "counts for nothing: the policy declares no such role"
    if scope is not domain.scope:
        return f"counts for nothing: its scope is `{scope}`, and it is held in `{domain.scope}`"
    if domain == group.domain(scope):
        return "counts"
    if scope is Scope.ORGANIZATION:
        return f"does not count: the group is in organization:{group.organization_id}"
    return f"does not count: this is group:{group.id}"
