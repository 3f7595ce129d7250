"""`policy who`: where each person may do something and by which roles, and what a change gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from govbudget.authz.effective import is_holdable
from govbudget.authz.table import DecisionTable, Verdict
from govbudget.identity import Action, Assignment, Domain, Id, ObjectType, Scope, Subject

# Where a right reaches: from the site to an organization of it, and a group or a member of that.
Area = tuple[Domain, ...]
# The roles of somebody by the domain that they are held in.
Held = dict[Domain, list[str]]


@dataclass(frozen=True, slots=True)
class Areas:
    """The area that is asked about, and what the directory has in it, by its own domain."""

    root: Area
    known: Mapping[Domain, Sequence[Area]]

    def find_affected(self, held: Held) -> dict[Area, None]:
        """Find the areas in which roles that are held count, and those around them."""
        ends = [area for domain in held for area in self.known.get(domain, ())]
        size = len(self.root)
        return dict.fromkeys(p[:n] for p in (self.root, *ends) for n in range(size, len(p) + 1))


class Right:
    """One right under one policy: an action on a kind of object, and the roles that decide it."""

    def __init__(self, table: DecisionTable, kind: ObjectType, action: Action) -> None:
        self.kind, self.object, self.action = kind, table.asked_as(kind), action
        self.lines, self.verdicts = {}, {}
        for role, scope in table.scopes.items():
            cell = table.cell(role, self.object, action)
            if cell.verdict is not Verdict.DENY:
                self.lines[role], self.verdicts[role] = cell.decision.lines, (scope, cell.verdict)
        self.own = [role for role, (scope, _) in self.verdicts.items() if scope is Scope.USER]

    def find_held(self, subject: Subject) -> Held:
        """Find the subject's roles that decide: those that are held in a domain of their scope."""
        held: Held = {Domain(Scope.USER, subject.id): self.own} if self.own else {}
        for role, domain in dict.fromkeys(subject.assignments):
            if self.verdicts.get(role, (None,))[0] == domain.scope and is_holdable(domain):
                held.setdefault(domain, []).append(role)
        return held

    def allows(self, held: Held, area: Area) -> bool:
        """Decide about an area: of the roles that count there one allows, and none forbids."""
        roles = (role for domain in area for role in held.get(domain, ()))
        return {self.verdicts[role][1] for role in roles} == {Verdict.ALLOW}


@dataclass(frozen=True, slots=True)
class Reached:
    """Where somebody may do something: in one area and all in it, but for the exceptions.

    `roles` are those that allow it there, each with the lines of the policy that say so.
    """

    user_id: Id | None
    area: Area
    exceptions: tuple[Area, ...]
    roles: tuple[tuple[Assignment, tuple[str, ...]], ...]


def find_reached(
    areas: Areas, subject: Subject, right: Right, less: Right | None = None
) -> Iterator[Reached]:
    """Find where somebody has the right; with `less`, where they have it and not that one."""
    held, held_less = right.find_held(subject), less.find_held(subject) if less else {}
    affected = areas.find_affected(held | held_less) if held else ()
    widest: dict[Area, Area] = {}  # of each area that is reached, the one that is named
    found: dict[Area, tuple[list[Area], dict[Domain, None]]] = {}
    for area in affected:  # what is around it comes first
        around = widest.get(area[:-1])
        if right.allows(held, area) and not (less and less.allows(held_less, area)):
            widest[area] = around or area
            found.setdefault(widest[area], ([], {}))[1].update(dict.fromkeys(area))
        elif around:
            found[around][0].append(area)
    for area, (exceptions, domains) in found.items():
        held_there = (Assignment(role, d) for d in domains for role in held.get(d, ()))
        roles = tuple((one, right.lines[one.role]) for one in held_there)
        yield Reached(subject.id, area, tuple(exceptions), roles)
