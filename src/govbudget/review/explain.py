"""`policy explain`: why a decision is what it is, line by line, and what was lacking."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from govbudget.authz.effective import find_effective_roles, find_fault
from govbudget.authz.reader import Line
from govbudget.authz.table import Decision, DecisionTable, Verdict
from govbudget.identity import Action, Assignment, Id, Object, ObjectType, Scope, Subject
from govbudget.review.meaning import describe_dead_line

MAX_NEAREST = 5

HELD = {
    Scope.SITE: "on the site",
    Scope.ORGANIZATION: "in the organization",
    Scope.GROUP: "in the group",
    Scope.USER: "by the user, as all hold it toward themselves",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, every line that matches it, and the nearest lines that do not.

    `dead` are lines of the roles that name this object and action and can't apply; `left_out` is
    how many lines are as near as `nearest` and not in it. `own`: whether it is allowed toward
    oneself, where the roles of the scope `user` are held, too.
    """

    decision: Decision
    matching: tuple[Line, ...]
    dead: tuple[tuple[Line, str], ...]
    nearest: tuple[tuple[Line, str], ...]
    left_out: int
    own: bool


def require_asked(table: DecisionTable, obj: str, action: str) -> None:
    """Raise ValueError where nothing asks this policy about it, or a name is unknown."""
    table.decide((), obj, action)
    if (obj, action) not in table.asked:
        asked = ", ".join(f"`{known}` on `{kind}`" for kind, known in table.asked)
        raise ValueError(
            f"nothing asks for `{action}` on `{obj}`, so it is neither allowed nor denied; budgets "
            f"are decided as `{table.budget_object}` by this policy, and asked are {asked}"
        )


def explain_decision(
    table: DecisionTable, roles: Collection[str], obj: str, action: str
) -> Explanation:
    """Explain what a set of roles may do; an unknown name is a ValueError.

    For a default deny, `nearest` holds the allow lines that lack least, each with a sentence about
    what it lacks. A line that would not help (it never applies, or another denies the same) is
    passed over.
    """
    decision = table.decide(roles, obj, action)
    object_type, act = ObjectType(obj), Action(action)
    cells = [table.cell(role, object_type, act) for role in roles]
    matching = {line for cell in cells for line in cell.allow + cell.deny}
    dead = tuple(
        (line, describe_dead_line(line))
        for line in table.lines
        if (line.object, line.action) == (object_type, act)
        and line.role in roles
        and line not in matching
    )
    nearest = []
    if not decision.allowed and not decision.lines:
        nearest = _find_nearest(table, roles, object_type, act)
    in_order = tuple(sorted(matching, key=lambda line: line.number))
    left_out = max(0, len(nearest) - MAX_NEAREST)
    own = {*roles, *(role for role, scope in table.scopes.items() if scope is Scope.USER)}
    shown = tuple(nearest[:MAX_NEAREST])
    toward_oneself = table.decide(own, obj, action).allowed
    return Explanation(decision, in_order, dead, shown, left_out, toward_oneself)


def _find_nearest(
    table: DecisionTable, roles: Collection[str], obj: ObjectType, action: Action
) -> list[tuple[Line, str]]:
    """Give the lines that lack least, each with what it lacks."""
    lacking = [
        (line, missing)
        for line in {tuple(line.fields): line for line in table.lines}.values()
        if table.cell(line.role, line.object, line.action).verdict is Verdict.ALLOW
        and (missing := _find_missing(line, roles, obj, action))
    ]
    fewest = min((len(missing) for _, missing in lacking), default=0)
    # A line for this very object and action comes first: it is the one to be given.
    lacking = sorted(
        (item for item in lacking if len(item[1]) == fewest),
        key=lambda item: (item[0].object, item[0].action) != (obj, action),
    )
    return [(line, "; ".join(missing)) for line, missing in lacking]


def _find_missing(line: Line, roles: Collection[str], obj: ObjectType, action: Action) -> list[str]:
    """Say what a line lacks to allow this."""
    held = HELD[line.scope]
    elsewhere = []
    if line.object is not obj:
        elsewhere.append(f"is about `{line.object}`, not `{obj}`")
    if line.action is not action:
        elsewhere.append(f"allows `{line.action}`, not `{action}`")
    if line.role in roles:
        return elsewhere
    verb = "asks for `{}`, held {}" if elsewhere else "would be allowed if `{}` were held {}"
    return [verb.format(line.role, held), *elsewhere]


def find_reason_against(
    table: DecisionTable, user: Id, assignment: Assignment, obj: Object
) -> str | None:
    """Say why a role that a user holds does not count toward an object; None: it counts."""
    if fault := find_fault(*assignment, table.scopes):
        return fault
    scope = table.scopes[assignment.role]
    if assignment.role in find_effective_roles(Subject(user, (assignment,)), obj, table.scopes):
        return None
    own = obj.domain(scope)
    if own is None:
        return f"a `{obj.type}` has no {scope}"
    noun = "member" if obj.type is ObjectType.AI_MEMBER_SPEND else "group"
    return f"the {noun} {'is in' if scope is Scope.ORGANIZATION else 'asked about is'} {own}"
