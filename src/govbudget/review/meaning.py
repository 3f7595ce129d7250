"""What the lines of a policy mean beyond being well formed: idle lines, and the invariants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from govbudget.authz.evaluator import list_reached_elsewhere
from govbudget.authz.files import LINES_FILE
from govbudget.authz.reader import Effect, Line
from govbudget.authz.table import CELLS, DecisionTable, Verdict
from govbudget.errors import Finding
from govbudget.identity import Action, ObjectType, Scope


def find_idle_lines(table: DecisionTable) -> Iterator[Finding]:
    """Find lines whose removal changes no answer to any set of roles, and idle roles.

    A line about a cell that nothing asks about is idle, whatever it says.
    A set of roles is allowed by an `allow` of one and no `forbid` of any (see `Verdict`). So an
    allow line counts unless its cell is forbidden or another line says the same; a deny line counts
    where its own role or one beside it would have been allowed. A role is idle where all its lines
    together change nothing.
    """
    first: dict[str, Line] = {}
    for line in table.lines:
        earlier = first.setdefault(line.text, line)
        cell = table.cell(line.role, line.object, line.action)
        if earlier is not line:
            sentence = f"says the same as line {earlier.number}; keep one"
            yield Finding(LINES_FILE, line.number, "duplicate-line", sentence)
        elif (line.object, line.action) not in table.asked:
            sentence = (
                f"nothing asks for `{line.action}` on `{line.object}`, so the line counts for "
                "nothing; remove the line"
            )
            yield Finding(LINES_FILE, line.number, "unasked-right", sentence)
        elif line not in (*cell.allow, *cell.deny):
            sentence = f"{describe_dead_line(line)}; remove the line"
            yield Finding(LINES_FILE, line.number, "dead-line", sentence)
        elif line.effect is Effect.ALLOW and cell.deny:
            sentence = f"changes nothing: line {cell.deny[0].number} denies the same; keep one"
            yield Finding(LINES_FILE, line.number, "dead-line", sentence)
        elif line.effect is Effect.DENY and not (
            cell.allow or table.is_allowed_to_some(line.object, line.action)
        ):
            sentence = "denies what no line allows to anybody; remove the line"
            yield Finding(LINES_FILE, line.number, "idle-deny", sentence)
    yield from _find_idle_roles(table)


def _find_idle_roles(table: DecisionTable) -> Iterator[Finding]:
    for number, role in _list_declared(table):
        # A cell matters to sets of roles: it allows, or denies what some role is allowed.
        if not any(
            table.cell(role, *cell).verdict is not Verdict.DENY and table.is_allowed_to_some(*cell)
            for cell in table.asked
        ):
            sentence = (
                f"role `{role}` can do nothing and changes nothing; remove its lines or fix them"
            )
            yield Finding(LINES_FILE, number, "powerless-role", sentence)


def describe_dead_line(line: Line) -> str:
    """Say why a line never applies: its object lacks its scope."""
    return f"never applies: a `{line.object}` has no {line.scope}"


Broken = Iterator[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Invariant:
    """What must hold of every policy, and how to find where one breaks it (line, sentence)."""

    code: str
    statement: str
    find: Callable[[DecisionTable], Broken]


def find_broken_invariants(table: DecisionTable) -> Iterator[Finding]:
    """Find each invariant that the policy breaks, with a counter-example."""
    for invariant in INVARIANTS:
        for number, example in invariant.find(table):
            advice = "fix or remove the line" if number else "report it to us"
            sentence = f"{invariant.statement}, but {example}; {advice}"
            yield Finding(LINES_FILE, number, invariant.code, sentence)


@partial(Invariant, "no-role-no-right", "nobody without a role can do anything")
def _no_role_no_right(table: DecisionTable) -> Broken:
    for obj, action in CELLS:
        if table.decide((), obj, action).allowed:
            yield 0, f"without any role, `{action}` on `{obj}` is allowed"


@partial(
    Invariant,
    "organizations-apart",
    "only site roles reach more than one organization, group or user",
)
def _organizations_apart(table: DecisionTable) -> Broken:
    for role, reached in list_reached_elsewhere(table.lines).items():
        if table.scopes[role] is not Scope.SITE:
            for obj, action in reached:
                yield 0, f"{role} may `{action}` a `{obj}` outside the domain it is held in"


@partial(Invariant, "members-read-only", "neither membership of a group nor being oneself writes")
def _members_read_only(table: DecisionTable) -> Broken:
    for role, scope in table.scopes.items():
        for obj, action in CELLS:
            cell = table.cell(role, obj, action)
            unassigned = scope in {Scope.GROUP, Scope.USER}
            if unassigned and action is not Action.READ and cell.decision.allowed:
                yield cell.allow[0].number, f"{role} may `{action}` a `{obj}`"


@partial(
    Invariant, "ranks", "owner can do all that org-admin can, org-admin all that user-admin can"
)
def _ranks(table: DecisionTable) -> Broken:
    for higher, lower in (("owner", "org-admin"), ("org-admin", "user-admin")):
        if higher not in table.scopes or lower not in table.scopes:
            continue
        for obj, action in CELLS:
            mine, theirs = (table.cell(role, obj, action) for role in (higher, lower))
            if theirs.decision.allowed and not mine.decision.allowed:
                example = f"{lower} may `{action}` a `{obj}` and {higher} may not"
                yield theirs.allow[0].number, example


@partial(Invariant, "deny-wins", "deny wins")
def _deny_wins(table: DecisionTable) -> Broken:
    for obj, action in CELLS:
        allowed = [r for r in table.scopes if table.cell(r, obj, action).decision.allowed]
        for role in table.scopes:
            denies = table.cell(role, obj, action).deny
            if denies and table.decide((role, *allowed), obj, action).allowed:
                yield denies[0].number, f"{role} with {', '.join(allowed)} may `{action}` a `{obj}`"


@partial(
    Invariant,
    "separate-duties",
    "where budgets are a resource of their own, who sets them does not administer groups",
)
def _separate_duties(table: DecisionTable) -> Broken:
    for role, scope in table.scopes.items():
        group, budget = (
            table.cell(role, obj, Action.UPDATE)
            for obj in (ObjectType.GROUP, ObjectType.GROUP_AI_BUDGET)
        )
        if scope is not Scope.SITE and group.decision.allowed and budget.decision.allowed:
            yield budget.allow[0].number, f"{role} may update both"


@partial(Invariant, "update-without-read", "who may update something may read it")
def _update_reads(table: DecisionTable) -> Broken:
    for role in table.scopes:
        for obj, action in table.asked:
            cell = table.cell(role, obj, action)
            # Of the ledger nobody is asked for `read`: what was spent is read by group and member.
            is_read = (obj, Action.READ) in table.asked
            reads = table.cell(role, obj, Action.READ).decision.allowed
            if action is Action.UPDATE and cell.decision.allowed and is_read and not reads:
                yield cell.allow[0].number, f"{role} may `update` a `{obj}` and not `read` it"


@partial(Invariant, "scope-by-name", "`self` is held by a user, and `group-member` in a group")
def _scopes_by_name(table: DecisionTable) -> Broken:
    meant = {"self": Scope.USER, "group-member": Scope.GROUP}
    for number, role in _list_declared(table):
        scope = table.scopes[role]
        if meant.get(role, scope) is not scope:
            yield number, f"`{role}` has the scope `{scope}` here"


@partial(Invariant, "near-name", "no role is called nearly as another")
def _names_apart(table: DecisionTable) -> Broken:
    earlier: list[str] = []
    for number, role in _list_declared(table):
        near = [other for other in earlier if _is_near(role, other)]
        if near:
            yield number, f"`{role}` looks like `{near[0]}`"
        earlier.append(role)


def _list_declared(table: DecisionTable) -> list[tuple[int, str]]:
    """Give each role with its first line, in order."""
    first = {line.role: line.number for line in reversed(table.lines)}
    return sorted((number, role) for role, number in first.items())


_LOOK_ALIKES = str.maketrans("01i25689", "ollzsbbg", "-")


def _is_near(one: str, other: str) -> bool:
    """Whether two names are one edit apart (neighbours swapped, too), or can be misread."""

    def fold(name: str) -> str:
        folded = name.replace("rn", "m").replace("vv", "w").replace("cl", "d")
        return folded.translate(_LOOK_ALIKES)

    short, long = sorted((one, other), key=len)
    edits = {short[:i] + long[i] + short[i + n :] for i in range(len(long)) for n in (0, 1)}
    swaps = {short[:i] + short[i : i + 2][::-1] + short[i + 2 :] for i in range(len(short))}
    return fold(one) == fold(other) or long in edits | swaps


# Those above, in their order.
INVARIANTS = tuple(found for found in [*globals().values()] if isinstance(found, Invariant))
