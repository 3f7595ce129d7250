"""Everybody of a directory, where they may reach, and which of their assignments count nowhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from govbudget.authz.effective import find_fault
from govbudget.authz.table import DecisionTable
from govbudget.directory.protocol import Directory
from govbudget.directory.sql import GROUP_MEMBER
from govbudget.errors import NotFound, SettingsError
from govbudget.identity import SITE, Domain, Id, ObjectType, Organization, Scope, Subject
from govbudget.review.people import Area, Areas


def find_root(connection: Connection, directory: Directory, named: Mapping[str, Id]) -> Area:
    """Load the area that ids name: an organization, a group or a member of it; none: the site.

    Raises NotFound where the directory does not have it.
    """
    if not named:
        return (SITE,)
    noun = "member" if "user" in named else next(iter(named))
    _, found = getattr(directory, f"load_{noun}")(connection, None, *named.values())
    if found is None:
        raise NotFound(noun)
    if isinstance(found, Organization):
        return (SITE, Domain(Scope.ORGANIZATION, found.id))
    return tuple(domain for scope in Scope if (domain := found.domain(scope)) is not None)


def read_areas(connection: Connection, directory: Directory, root: Area, kind: ObjectType) -> Areas:
    """Read which organizations and groups are in an area; for `ai_member_spend`, members too."""
    known: dict[Domain, list[Area]] = defaultdict(list)
    sources = [(directory.groups, "id", Scope.GROUP)]
    if kind is ObjectType.AI_MEMBER_SPEND:
        sources.append((directory.organization_members, "user_id", Scope.USER))
    is_around = root[-1].scope in {Scope.SITE, Scope.ORGANIZATION}
    for source, key, scope in sources if is_around else ():
        statement = sa.select(source.c.organization_id, source.c[key])
        if len(root) > 1:
            statement = statement.where(source.c.organization_id == root[1].id)
        for organization_id, inner_id in connection.execute(statement):
            around, inner = Domain(Scope.ORGANIZATION, organization_id), Domain(scope, inner_id)
            if scope is Scope.GROUP:
                known[around] = [(SITE, around)]  # an organization is there while it has a group
            known[inner] += [(*area, inner) for area in known.get(around, ())]
    return Areas(root, known)


def list_people(connection: Connection, directory: Directory, *asked: Areas) -> Iterator[Subject]:
    """List everyone who holds a role, and then the other members of what is asked about."""
    domains = (domain for areas in asked for domain in (*areas.root, *areas.known))
    others = dict.fromkeys(domain.id for domain in domains if domain.scope is Scope.USER)
    for subject in directory.list_subjects(connection):
        others.pop(subject.id, None)
        yield subject
    yield from map(Subject, others)


def require_list(directory: Directory) -> Directory:
    """Give the directory; raise SettingsError where it can't list people."""
    if hasattr(directory, "list_subjects"):
        return directory
    raise SettingsError(
        f"the directory, a `{type(directory).__name__}`, can't list people: it has no method "
        "`list_subjects(connection)`; write one that yields a `Subject` for each person who holds "
        "a role anywhere, with all roles of theirs (see docs/how-to/your-own-tables.md)"
    )


@dataclass(frozen=True, slots=True)
class Idle:
    """Something that is stored about somebody and counts for nothing: what, where, and why."""

    user_id: Id | None
    what: str
    domain: str
    why: str

    def __str__(self) -> str:
        """Give one line."""
        return f"{self.what} of {self.user_id} in {self.domain}: {self.why}"


def find_idle(connection: Connection, directory: Directory, table: DecisionTable) -> Iterator[Idle]:
    """Find the roles that count nowhere, and the members of groups outside their organization.

    The role of a group's members may be unknown to the policy: their limits count all the same.
    """
    known = read_areas(connection, directory, (SITE,), ObjectType.AI_MEMBER_SPEND).known
    member_role = getattr(directory, "member_role", GROUP_MEMBER)
    for subject in directory.list_subjects(connection):
        around = {area[1] for area in known.get(Domain(Scope.USER, subject.id), ())}
        for role, domain in subject.assignments:
            is_member = domain.scope == Scope.GROUP and role == member_role
            why = None if is_member else find_fault(role, domain, table.scopes)
            area = (known.get(domain) or [()])[0]
            if domain.scope == Scope.USER:
                why = "everyone holds it toward themselves, by no assignment"
            elif why is None and domain != SITE and not area:
                why = f"the directory has no such {domain.scope}"
            elif is_member and area[1] not in around:
                why = f"the user is not in {area[1]}"
            if why is not None:
                what = "membership" if is_member else f"role `{role}`"
                yield Idle(subject.id, what, str(domain), why)
