"""A conformance suite for anyone's Directory, against the database that it reads."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from govbudget.identity import SITE, Assignment, Domain, Group, Member, Organization, Scope, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, FromClause

    from govbudget.identity import Directory, Id

FORBIDDEN_TABLES = (
    "group_ai_budgets",
    "member_ai_overrides",
    "ai_model_prices",
    "ai_holds",
    "ai_usage",
    "ai_spend_counters",
    "ai_spend_rollups",
)


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

    Sends the directory's statements on the connection; never commits.
    """
    return list(_Check(directory, connection, facts).run())


class _Check:
    def __init__(self, directory: Directory, connection: Connection, facts: KnownFacts) -> None:
        self.directory, self.connection, self.facts = directory, connection, facts

    def run(self) -> Iterator[str]:
        try:
            yield from self._check_groups()
            yield from self._check_organizations()
            yield from self._check_members()
            yield from self._check_site()
            yield from self._check_selectables()
        except _Stopped as stopped:
            yield str(stopped)

    def _load(self, name: str, *ids: Id) -> tuple[Subject, Any, list[str]]:
        """Call a loader; give the subject, what came with it, and what the call did wrong."""
        loader: Callable[..., Any] = getattr(self.directory, name)
        with _watch(self.connection) as (statements, endings):
            try:
                result = loader(self.connection, *ids)
            except Exception as error:
                # What follows would fail for the same reason, or in a transaction that is broken.
                raise _Stopped(f"{name} raised {type(error).__name__}: {error}") from error
        subject, thing = (result, None) if name == "load_subject" else result
        wrong = []
        if len(statements) != 1:
            wrong.append(f"{name} sent {len(statements)} statements, expected 1")
        wrong += [f"{name} did a {ending} on the caller's connection" for ending in endings]
        wrong += [
            f"{name} names the table {table}, which only an authorized call may touch"
            for table in FORBIDDEN_TABLES
            if any(table in statement for statement in statements)
        ]
        if not isinstance(subject, Subject) or subject.id != ids[0]:
            raise _Stopped(f"{name} gave no Subject with the id that it was asked for")
        if subject.unit_of_work is not self.connection.get_transaction():
            wrong.append(
                f"{name} did not put connection.get_transaction() into the subject's unit_of_work"
            )
        return subject, thing, wrong

    def _expect(
        self,
        name: str,
        subject: Subject,
        wanted: set[Assignment],
        tolerated: frozenset[Assignment] = frozenset(),
    ) -> Iterator[str]:
        held = set(subject.assignments)
        for missing in sorted(wanted - held, key=str):
            yield f"{name} left out {missing.role} in {missing.domain}"
        for extra in sorted(held - wanted - tolerated, key=str):
            yield f"{name} reported {extra.role} in {extra.domain}, which is not held toward this"

    def _check_groups(self) -> Iterator[str]:
        facts, name = self.facts, "load_group"
        here, there = facts.organization, facts.other_organization
        cases: list[tuple[Id, Id, Id, set[Assignment]]] = [
            (facts.member, facts.group, here, {self._in_group(facts.group)}),
            (facts.member, facts.other_group, there, set()),
            (facts.administrator, facts.group, here, {self._administers()}),
            (facts.administrator, facts.other_group, there, set()),
            (facts.site_holder, facts.other_group, there, {self._on_site()}),
            (facts.missing, facts.group, here, set()),
        ]
        if facts.everyone is not None:
            cases.append((facts.member, facts.everyone, here, {self._in_group(facts.everyone)}))
            cases.append((facts.missing, facts.everyone, here, set()))
        for user, asked, organization, wanted in cases:
            subject, group, wrong = self._load(name, user, asked)
            yield from wrong
            if group != Group(asked, organization):
                yield f"{name} gave {group}, expected group {asked} of organization {organization}"
            yield from self._expect(name, subject, wanted)
        _, group, wrong = self._load(name, facts.member, facts.missing)
        yield from wrong
        if group is not None:
            yield f"{name} found a group where there is none"

    def _check_organizations(self) -> Iterator[str]:
        facts, name = self.facts, "load_organization"
        everyone = frozenset(() if facts.everyone is None else (self._in_group(facts.everyone),))
        for user, asked, wanted, tolerated in (
            (facts.member, facts.organization, {self._in_group(facts.group), *everyone}, ()),
            (facts.member, facts.other_organization, set(), ()),
            # Whether who administers an organization is a member of it is the host's affair.
            (facts.administrator, facts.organization, {self._administers()}, everyone),
            (facts.administrator, facts.other_organization, set(), ()),
            (facts.site_holder, facts.organization, {self._on_site()}, everyone),
            (facts.missing, facts.organization, set(), ()),
        ):
            subject, organization, wrong = self._load(name, user, asked)
            yield from wrong
            if organization != Organization(asked):
                yield f"{name} gave {organization}, expected organization {asked}"
            yield from self._expect(name, subject, wanted, frozenset(tolerated))
        _, organization, wrong = self._load(name, facts.member, facts.missing)
        yield from wrong
        if organization is not None:
            yield f"{name} found an organization where there is none"

    def _check_members(self) -> Iterator[str]:
        facts, name = self.facts, "load_member"
        here, there, member = facts.organization, facts.other_organization, facts.member
        for user, organization, asked, wanted in (
            (member, here, member, set()),
            (facts.administrator, here, member, {self._administers()}),
            (facts.site_holder, here, member, {self._on_site()}),
            (facts.missing, here, member, set()),
            (member, there, member, None),
            (facts.site_holder, there, member, None),
            (facts.site_holder, here, facts.missing, None),
            (facts.site_holder, facts.missing, member, None),
        ):
            subject, loaded, wrong = self._load(name, user, organization, asked)
            yield from wrong
            if wanted is None:
                if loaded is not None:
                    yield f"{name} found {asked} in {organization}, who is no member of it"
                continue
            if loaded != Member(organization, asked):
                yield f"{name} gave {loaded}, expected member {asked} of {organization}"
            yield from self._expect(name, subject, wanted)

    def _check_site(self) -> Iterator[str]:
        facts, name = self.facts, "load_subject"
        for user, wanted in (
            (facts.site_holder, {self._on_site()}),
            (facts.administrator, set()),
            (facts.member, set()),
            (facts.missing, set()),
        ):
            subject, _, wrong = self._load(name, user)
            yield from wrong
            yield from self._expect(name, subject, wanted)

    def _check_selectables(self) -> Iterator[str]:
        facts = self.facts
        for name, key, wanted, cases in (
            (
                "groups",
                "id",
                "organization_id",
                {facts.group: [facts.organization], facts.other_group: [facts.other_organization]},
            ),
            (
                "group_members",
                "group_id",
                "user_id",
                {facts.group: [facts.member], facts.other_group: []},
            ),
            (
                "organization_members",
                "organization_id",
                "user_id",
                {facts.organization: [facts.member], facts.other_organization: []},
            ),
        ):
            shown: FromClause = getattr(self.directory, name)
            if key not in shown.c or wanted not in shown.c:
                yield f"{name} needs the columns {key} and {wanted}"
                continue
            for asked, expected in {**cases, facts.missing: []}.items():
                statement = sa.select(shown.c[wanted]).where(shown.c[key] == asked)
                if name != "groups":  # of others the suite knows nothing
                    statement = statement.where(shown.c[wanted] == facts.member)
                if list(self.connection.execute(statement).scalars()) != expected:
                    yield f"{name} does not show {asked} as it should: {expected}, each once"

    def _in_group(self, group: Id) -> Assignment:
        return Assignment(self.facts.member_role, Domain(Scope.GROUP, group))

    def _administers(self) -> Assignment:
        facts = self.facts
        return Assignment(facts.administrator_role, Domain(Scope.ORGANIZATION, facts.organization))

    def _on_site(self) -> Assignment:
        return Assignment(self.facts.site_role, SITE)


class _Stopped(Exception):
    """The directory did something after which nothing more can be asked."""


@contextmanager
def _watch(connection: Connection) -> Iterator[tuple[list[str], list[str]]]:
    """Collect the statements that a connection sends, and its commits and rollbacks."""
    statements: list[str] = []
    endings: list[str] = []

    def on_statement(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:  # noqa: ANN401
        statements.append(statement)

    def on_commit(_: Any) -> None:  # noqa: ANN401 - SQLAlchemy's signature
        endings.append("commit")

    def on_rollback(_: Any) -> None:  # noqa: ANN401 - as above
        endings.append("rollback")

    listeners = (
        ("before_cursor_execute", on_statement),
        ("commit", on_commit),
        ("rollback", on_rollback),
    )
    for name, listener in listeners:
        sa.event.listen(connection, name, listener)
    try:
        yield statements, endings
    finally:
        for name, listener in listeners:
            sa.event.remove(connection, name, listener)
