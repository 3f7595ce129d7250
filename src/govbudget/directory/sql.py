"""A Directory over four selectables: one statement loads the caller and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import CompileError
from sqlalchemy.sql.visitors import iterate

from govbudget.authz.reader import suggest
from govbudget.db.sql import DIALECT, write
from govbudget.directory.sources import Sources
from govbudget.errors import SettingsError
from govbudget.identity import SITE, Assignment, Domain, Group, Member, Organization, Scope, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection, FromClause

    from govbudget.db.tables import Tables
    from govbudget.identity import Id

    Source = FromClause | sa.SelectBase | type[Any]

GROUP_MEMBER = "group-member"
_IDS = frozenset({"id", "organization_id", "group_id", "user_id"})


class SqlDirectory:
    """Loads subjects and groups from tables, views, selects or mapped classes. Decides nothing.

    - `groups`: `id`, `organization_id`, and, where some groups hold everyone in their
      organization, a boolean `is_everyone`; rows that count as deleted are left out of it.
    - `group_members`: `group_id`, `user_id`. A member holds the role `member_role` in the group.
    - `organization_members`: `organization_id`, `user_id`. They are members of Everyone groups.
    - `role_assignments`: `user_id`, `role`, `organization_id` (NULL: held on the site).
    - `roles`: the policy's name of each role of yours that counts; a role that is not in it is left
      out. Without it your names are the policy's.

    - `names`: for the pages, what they show instead of ids: `kind` (`organization`, `group` or
      `user`), `id`, `name`.

    Ids are of the configured type, as the database has them, whatever a type of yours makes of
    them in Python; an `integer` column serves where that is `bigint`. A role that is stored in a
    domain that is not of its scope is reported as it is stored, and counts for nothing in the
    decision.
    """

    def __init__(
        self,
        *,
        groups: Source,
        group_members: Source,
        organization_members: Source,
        role_assignments: Source,
        roles: Mapping[str, str] | None = None,
        member_role: str = GROUP_MEMBER,
        names: Source | None = None,
    ) -> None:
        """Sends no SQL. Raises SettingsError where a column is missing, or nothing can be asked."""
        self.member_role = member_role
        self.names = None if names is None else _open("names", names, "kind", "id", "name")
        self._sources = sources = Sources(
            groups=_open("groups", groups, "id", "organization_id"),
            members=_open("group_members", group_members, "group_id", "user_id"),
            everybody=_open(
                "organization_members", organization_members, "organization_id", "user_id"
            ),
            roles=_open("role_assignments", role_assignments, "user_id", "role", "organization_id"),
            member_role=member_role,
        )
        self._names = None if roles is None else _read_roles(roles, sources.roles.c.role.type)
        try:
            write(sources.subjects)  # all that is asked about is in it
        except CompileError as error:
            reason = str(error).splitlines()[0]
            raise SettingsError(
                f"SqlDirectory: its selects can't be written as SQL ({reason}); if it is about a "
                "constant, write that as SQL: `sa.literal_column(...)`"
            ) from error
        # The policy's roles that the mapping names; empty without one.
        self.named_roles = frozenset((self._names or {}).values())
        self.groups, self.group_members = sources.groups, sources.members
        self.organization_members = sources.everybody

    def list_ids(self) -> Iterator[tuple[str, sa.ColumnElement[Any]]]:
        """List the columns of ids, each with the name of the argument that it is in."""
        sources = self._sources
        for argument, source, *names in (
            ("groups", sources.groups, "id", "organization_id"),
            ("group_members", sources.members, "group_id", "user_id"),
            ("organization_members", sources.everybody, "organization_id", "user_id"),
            ("role_assignments", sources.roles, "user_id", "organization_id"),
        ):
            for name in names:
                yield argument, source.c[name]

    def load_subject(self, connection: Connection, subject_id: Id) -> Subject:
        """Load the caller with the roles held on the site. One statement; never commits."""
        return self._load(connection, self._sources.site_roles, subject_id)[0]

    def load_assignments(self, connection: Connection, user_id: Id) -> tuple[Assignment, ...]:
        """Give every role that a user holds anywhere, for `policy explain`. One statement."""
        return self._load(connection, self._sources.assignments, user_id)[0].assignments

    def list_subjects(self, connection: Connection) -> Iterator[Subject]:
        """List everyone who holds a role anywhere, with all of their roles. One statement.

        A group's members are listed, and those of an Everyone group. Ordered by id. Never commits.
        """
        rows = connection.execute(self._sources.subjects)
        for user_id, held in groupby(rows, itemgetter(0)):
            yield Subject(user_id, self._read(row[1:] for row in held))

    def load_group(
        self, connection: Connection, subject_id: Id | None, group_id: Id
    ) -> tuple[Subject, Group | None]:
        """Load a group and the caller's roles toward it. One statement; never commits."""
        subject, found = self._load(connection, self._sources.group, subject_id, asked=group_id)
        return subject, None if found is None else Group(*found[3:])

    def load_organization(
        self, connection: Connection, subject_id: Id | None, organization_id: Id
    ) -> tuple[Subject, Organization | None]:
        """Load an organization (one with a group) and the caller's roles in it and its groups.

        One statement; never commits.
        """
        asked = {"asked": organization_id}
        subject, found = self._load(connection, self._sources.organization, subject_id, **asked)
        return subject, None if found is None else Organization(organization_id)

    def load_member(
        self, connection: Connection, subject_id: Id | None, organization_id: Id, user_id: Id
    ) -> tuple[Subject, Member | None]:
        """Load a member of an organization (one with a group), and the caller's roles toward them.

        One statement; never commits.
        """
        asked = {"asked": organization_id, "whom": user_id}
        subject, found = self._load(connection, self._sources.member, subject_id, **asked)
        return subject, None if found is None else Member(organization_id, user_id)

    def _load(
        self, connection: Connection, statement: sa.Executable, user: Id | None, **asked: Id
    ) -> tuple[Subject, Any]:
        """Give the caller with the roles held, and a row, if any: the object is there."""
        rows = connection.execute(statement, {"user": user, **asked}).all()
        return Subject(user, self._read(rows)), next(iter(rows), None)

    def _read(self, rows: Iterable[Sequence[Any]]) -> tuple[Assignment, ...]:
        """Give the roles that rows begin with, in the policy's words."""
        names, held = self._names, []
        for scope, domain_id, stored, *_ in rows:
            # The role of a group's members is named by `member_role`, in the policy's words.
            role = stored if names is None or scope == Scope.GROUP else names.get(stored)
            if role is not None:
                domain = SITE if scope == Scope.SITE else Domain(Scope(scope), domain_id)
                held.append(Assignment(role, domain))
        return tuple(held)


def own_directory(tables: Tables) -> SqlDirectory:
    """Make the directory over govbudget's own tables; a deleted organization has no groups."""
    g, o = tables.groups.alias("g"), tables.organizations.alias("o")
    is_everyone = (g.c.id == g.c.organization_id).label("is_everyone")
    live = sa.select(g.c.id, g.c.organization_id, is_everyone)
    live = live.join_from(g, o, o.c.id == g.c.organization_id).where(~o.c.deleted)
    named = {"organization": tables.organizations, "group": tables.groups, "user": tables.users}
    names = (
        sa.select(sa.literal(kind).label("kind"), *table.c["id", "name"])
        for kind, table in named.items()
    )
    return SqlDirectory(
        groups=live.subquery("live_groups"),
        group_members=tables.group_members,
        organization_members=tables.organization_members,
        role_assignments=tables.role_assignments,
        names=sa.union_all(*names),
    )


def _open(name: str, source: Source, *columns: str) -> FromClause:
    """Give something to select from, once it has the columns that it needs."""
    if isinstance(source, sa.SelectBase):
        opened: sa.FromClause = source.subquery(name)
    elif isinstance(source, sa.FromClause):
        opened = source
    elif getattr(mapper := sa.inspect(source, raiseerr=False), "is_mapper", False):
        keys = mapper.column_attrs.keys()
        opened = sa.select(*(getattr(source, key).label(key) for key in keys)).subquery(name)
    else:
        kind = type(source).__name__
        raise SettingsError(
            f"SqlDirectory: `{name}=` is a `{kind}`; give a table, a select or a mapped class"
        )
    missing = [f"`{column}`" for column in columns if column not in opened.c]
    if missing:
        there = ", ".join(f"`{column}`" for column in opened.c.keys()) or "none"  # noqa: SIM118 - not a dict
        raise SettingsError(
            f"SqlDirectory: `{name}=` has no column {' and no '.join(missing)}; it has {there}; "
            "give a select that has yours under that name, by `.label(...)`"
        )
    _refuse_parameters(name, opened)
    stored = {c.key: _find_stored(c.type) for c in opened.c if c.key in _IDS}
    if all(opened.c[key].type is kind for key, kind in stored.items()):
        return opened
    read = [sa.type_coerce(c, stored.get(c.key, c.type)).label(c.key) for c in opened.c]
    return sa.select(*read).subquery(name)


def _refuse_parameters(name: str, opened: FromClause) -> None:
    """Raise SettingsError where a select has a value that is to come later."""
    for part in iterate(opened):
        if isinstance(part, sa.BindParameter) and (part.required or part.callable):
            raise SettingsError(
                f"SqlDirectory: `{name}=` has the parameter `{part.key}`, whose value is not known "
                "at start; select what is there for everybody, without parameters"
            )


def _find_stored(kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """Find the type that a column of ids has in the database, as ids are read here.

    A type of the host's, or `Uuid(as_uuid=False)`, makes something else of them: `team_1`, say.
    """
    while isinstance(kind, sa.TypeDecorator):
        kind = kind.load_dialect_impl(DIALECT)
    return sa.Uuid() if isinstance(kind, sa.Uuid) and not kind.as_uuid else kind


def _read_roles(roles: object, kind: sa.types.TypeEngine[Any]) -> dict[str, str]:
    """Read the mapping; raise SettingsError for a role of the host's that can't be stored."""
    if not isinstance(roles, Mapping):
        raise SettingsError(
            f"SqlDirectory: `roles=` is a `{type(roles).__name__}`; give a dict from your roles to "
            "the policy's, such as `{'manager': 'org-admin'}`"
        )
    for own, role in roles.items():
        if not isinstance(own, str) or not isinstance(role, str):
            raise SettingsError(
                f"SqlDirectory: `roles=` has `{own!r}: {role!r}`; give both as texts, yours as the "
                "database has it"
            )
        labels = kind.enums if isinstance(kind, sa.Enum) else [own]
        if own not in labels:
            raise SettingsError(
                f"SqlDirectory: `roles=` names `{own}`, which the column `role` can't hold; "
                f"{suggest(own, labels)}"
            )
    return dict(roles)
