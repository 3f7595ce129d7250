"""A conformance suite for anyone's Directory, against the database that it reads."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from govbudget.db.tables import find_modules
from govbudget.identity import SITE, Assignment, Domain, Group, Member, Organization, Scope, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, FromClause

    from govbudget.directory.protocol import Directory
    from govbudget.identity import Id

# All but those of the directory.
FORBIDDEN_TABLES = [describe.__name__ for module in find_modules() for describe in module.OTHERS]


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """What the database holds, as far as the suite asks about it.

    - `member` is in `organization` and in `group`, a group of it; in no other group, but for
      `everyone`.
    - `other_organization` has `other_group`, and knows nothing of `member` and `administrator`.
    - `administrator` holds `administrator_role` in `organization`, and no other role.
    - `site_holder` holds `site_role` on the site, and no other role.
    - `missing` is the id of nothing and nobody.
    - `everyone`, where there is one, is the group that all members of `organization` belong to.
    """

    member: Id
    group: Id
    organization: Id
    other_group: Id
    other_organization: Id
    administrator: Id
    administrator_role: str
    site_holder: Id
    site_role: str
    missing: Id
    member_role: str = "group-member"
    everyone: Id | None = None


def check_directory(directory: Directory, connection: Connection, facts: KnownFacts) -> list[str]:
    """Check a Directory and give a sentence for everything that is wrong; empty: it is right.

    Asks on behalf of each person in `facts`, and of None, the operator of a command.
    Sends the directory's statements on the connection; never commits.
    """
    wrong: list[str] = []
    try:
        for call in _list_calls(facts):
            wrong += _check_call(directory, connection, call)
        wrong += _check_selectables(directory, connection, facts)
        wrong += _check_list(directory, connection, facts)
    except _Stopped as stopped:
        wrong.append(str(stopped))
    return wrong


class _Stopped(Exception):
    """The directory did something after which nothing more can be asked."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a loader: what it should load beside the subject, and which roles.

    `roles` is None where they do not matter; those in `tolerated` may be among them.
    """

    name: str
    ids: tuple[Id | None, ...]
    thing: object
    roles: set[Assignment] | None
    tolerated: set[Assignment]

    def __str__(self) -> str:
        """Name it in a sentence."""
        return self.name if self.ids[0] is not None else f"{self.name} for the caller None"


def _list_calls(facts: KnownFacts) -> Iterator[_Call]:
    """List each caller toward each thing; a role counts where its domain is one of the thing's."""
    here, there = Organization(facts.organization), Organization(facts.other_organization)
    user, missing = facts.member, facts.missing
    ids = [one for one in (facts.group, facts.everyone) if one is not None]
    places = {one: Domain(Scope.GROUP, one) for one in ids}
    memberships = {Assignment(facts.member_role, domain) for domain in places.values()}
    in_everyone = {role for role in memberships if role.domain.id == facts.everyone}
    company = Domain(Scope.ORGANIZATION, here.id)
    held: dict[Id | None, set[Assignment]] = {
        user: memberships,
        facts.administrator: {Assignment(facts.administrator_role, company)},
        facts.site_holder: {Assignment(facts.site_role, SITE)},
        missing: set(),
        None: set(),  # the operator of a command: the object is loaded, and nothing is held
    }
    things: list[tuple[str, tuple[Id, ...], object, set[Domain]]] = [
        ("load_group", (facts.other_group,), Group(facts.other_group, there.id), set()),
        ("load_group", (missing,), None, set()),
        *(("load_group", (one,), Group(one, here.id), {company, places[one]}) for one in places),
        ("load_organization", (here.id,), here, {company, *places.values()}),
        ("load_organization", (there.id,), there, set()),
        ("load_organization", (missing,), None, set()),
        ("load_member", (here.id, user), Member(here.id, user), {company}),
        *(("load_member", (place, user), None, set()) for place in (there.id, missing)),
        ("load_member", (here.id, missing), None, set()),
        ("load_subject", (), None, set()),
    ]
    for name, asked, thing, domains in things:
        for caller, roles in held.items():
            counted = {role for role in roles if role.domain in {SITE, *domains}}
            # Whether who administers an organization is a member of it is the host's affair.
            is_open = caller in {facts.administrator, facts.site_holder}
            tolerated = {role for role in in_everyone if is_open and role.domain in domains}
            matters = thing is not None or not asked
            if caller is not None or asked:
                yield _Call(name, (caller, *asked), thing, counted if matters else None, tolerated)


def _check_call(directory: Directory, connection: Connection, call: _Call) -> Iterator[str]:
    name, loader = str(call), getattr(directory, call.name)
    with _watch(connection) as (statements, endings):
        try:
            result = loader(connection, *call.ids)
        except Exception as error:
            # What follows would fail for the same reason, or in a transaction that is broken.
            raise _Stopped(f"{name} raised {type(error).__name__}: {error}") from error
    subject, thing = (result, None) if call.name == "load_subject" else result
    if len(statements) != 1:
        yield f"{name} sent {len(statements)} statements, expected 1"
    yield from _check_sent(name, statements, endings)
    yield from _check_answer(call, subject, thing)


def _check_sent(name: str, statements: list[str], endings: list[str]) -> Iterator[str]:
    for ending in endings:
        yield f"{name} did a {ending} on the caller's connection"
    for table in FORBIDDEN_TABLES:
        if any(table in statement for statement in statements):
            yield f"{name} names the table {table}, which only an authorized call may touch"


def _check_answer(call: _Call, subject: object, thing: object) -> Iterator[str]:
    name = str(call)
    if not isinstance(subject, Subject) or subject.id != call.ids[0]:
        raise _Stopped(f"{name} gave no Subject with the id that it was asked for")
    if thing != call.thing:
        yield f"{name} gave {thing}, expected {call.thing}"
    if call.roles is not None:
        held = set(subject.assignments)
        for role, domain in sorted(call.roles - held, key=str):
            yield f"{name} left out {role} in {domain}"
        for role, domain in sorted(held - call.roles - call.tolerated, key=str):
            yield f"{name} reported {role} in {domain}, which is not held toward this"


def _check_list(directory: Directory, connection: Connection, facts: KnownFacts) -> Iterator[str]:
    """Compare with what is held in the organization: of those in `facts` that is everything."""
    name = "list_subjects"
    if not hasattr(directory, name):
        yield f"{name} is not there: the commands that are about people can't list them"
        return
    with _watch(connection) as (statements, endings):
        subjects = list(directory.list_subjects(connection))
    yield from _check_sent(name, statements, endings)
    listed = {subject.id: subject for subject in subjects}
    if len(listed) < len(subjects):
        yield f"{name} gave somebody more than once"
    for call in _list_calls(facts):
        caller, *asked = call.ids
        if caller is not None and (call.name, asked) == ("load_organization", [facts.organization]):
            subject = listed.get(caller, Subject(caller))
            yield from _check_answer(replace(call, name=name, thing=None), subject, None)


def _check_selectables(
    directory: Directory, connection: Connection, facts: KnownFacts
) -> Iterator[str]:
    here, there, user = facts.organization, facts.other_organization, facts.member
    group, other = facts.group, facts.other_group
    for name, key, wanted, cases in (
        ("groups", "id", "organization_id", {group: [here], other: [there]}),
        ("group_members", "group_id", "user_id", {group: [user], other: []}),
        ("organization_members", "organization_id", "user_id", {here: [user], there: []}),
    ):
        shown: FromClause = getattr(directory, name)
        if key not in shown.c or wanted not in shown.c:
            yield f"{name} needs the columns {key} and {wanted}"
            continue
        for asked, expected in {**cases, facts.missing: []}.items():
            statement = sa.select(shown.c[wanted]).where(shown.c[key] == asked)
            if name != "groups":  # of others the suite knows nothing
                statement = statement.where(shown.c[wanted] == user)
            if list(connection.scalars(statement)) != expected:
                yield f"{name} does not show {asked} as it should: {expected}, each once"


@contextmanager
def _watch(connection: Connection) -> Iterator[tuple[list[str], list[str]]]:
    """Collect the statements that a connection sends, and its commits and rollbacks."""
    statements: list[str] = []
    endings: list[str] = []
    listeners: dict[str, Callable[..., None]] = {
        "before_cursor_execute": lambda _c, _cursor, text, *_: statements.append(text),
        "commit": lambda _: endings.append("commit"),
        "rollback": lambda _: endings.append("rollback"),
    }
    for name, listener in listeners.items():
        sa.event.listen(connection, name, listener)
    try:
        yield statements, endings
    finally:
        for name, listener in listeners.items():
            sa.event.remove(connection, name, listener)
