"""Load organizations, users, groups, memberships and roles from one JSON file.

The file is the whole truth for the organizations it names, and for site roles: what is absent there
is taken away. Users are added and renamed, never removed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from govbudget.authz.reader import suggest
from govbudget.errors import FieldError, InvalidInput
from govbudget.identity import Scope
from govbudget.strict_json import MAX_ERRORS, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sqlalchemy import Connection

    from govbudget.tables import Tables


def _read_uuid(value: object) -> object:
    return UUID(value) if isinstance(value, str) and len(value) == len(str(UUID(int=0))) else value


Uuid = Annotated[UUID, BeforeValidator(_read_uuid)]
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class OrganizationEntry(_Entry):
    """An organization; its Everyone group exists by itself."""

    id: Uuid
    name: Name
    is_default: bool = False


class UserEntry(_Entry):
    """A person."""

    id: Uuid
    name: Name


class GroupEntry(_Entry):
    """A group of one organization."""

    id: Uuid
    organization_id: Uuid
    name: Name


class OrganizationMemberEntry(_Entry):
    """Somebody is in an organization."""

    organization_id: Uuid
    user_id: Uuid


class GroupMemberEntry(_Entry):
    """Somebody is in a group."""

    group_id: Uuid
    user_id: Uuid


class RoleEntry(_Entry):
    """Somebody holds a role: in an organization, or (null) on the site."""

    user_id: Uuid
    role: str
    organization_id: Uuid | None


class DirectoryFile(_Entry):
    """The whole file."""

    organizations: list[OrganizationEntry] = []
    users: list[UserEntry] = []
    groups: list[GroupEntry] = []
    organization_members: list[OrganizationMemberEntry] = []
    group_members: list[GroupMemberEntry] = []
    roles: list[RoleEntry] = []


FILE = TypeAdapter(DirectoryFile)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a load did: `added`, `changed` or `removed`, and to what."""

    verb: str
    what: str

    def __str__(self) -> str:
        """Give one line."""
        return f"{self.verb} {self.what}"


def load_directory(
    connection: Connection, tables: Tables, content: bytes, scopes: Mapping[str, Scope]
) -> list[Change]:
    """Bring the tables to what the file says, in the caller's transaction, and say what changed.

    `scopes` are the policy's roles. Raises InvalidInput that names every wrong entry, and has then
    changed nothing. Never commits.
    """
    file = parse_json(content, FILE)
    errors = [*_find_duplicates(file), *_find_bad_references(connection, tables, file)]
    errors += _find_bad_roles(file, scopes)
    if errors:
        count = "1 entry is" if len(errors) == 1 else f"{len(errors)} entries are"
        raise InvalidInput(f"{count} wrong; nothing was loaded", errors[:MAX_ERRORS])
    return list(_apply(connection, tables, file))


def _find_duplicates(file: DirectoryFile) -> Iterator[FieldError]:
    def repeated(
        name: str, entries: Iterable[Any], key: Callable[[Any], Any]
    ) -> Iterator[FieldError]:
        entries = list(entries)
        counts = Counter(key(entry) for entry in entries)
        for index, entry in enumerate(entries):
            if counts[key(entry)] > 1:
                yield FieldError(f"/{name}/{index}", "stands more than once; keep one")

    for name in ("organizations", "users", "groups"):
        yield from repeated(name, getattr(file, name), lambda entry: entry.id)
    for name in ("organization_members", "group_members", "roles"):
        yield from repeated(name, getattr(file, name), lambda entry: entry)
    defaults = [i for i, entry in enumerate(file.organizations) if entry.is_default]
    for index in defaults[1:]:
        yield FieldError(
            f"/organizations/{index}/is_default", "only one organization is the default"
        )


def _find_bad_references(
    connection: Connection, tables: Tables, file: DirectoryFile
) -> Iterator[FieldError]:
    """Find references to nobody, and groups that would change what they are."""
    organizations = {entry.id for entry in file.organizations}
    users = {entry.id for entry in file.users} | set(
        connection.scalars(sa.select(tables.users.c.id))
    )
    groups = {entry.id: entry.organization_id for entry in file.groups}
    home = {
        row.id: row.organization_id
        for row in connection.execute(
            sa.select(tables.groups.c.id, tables.groups.c.organization_id)
        )
    }
    members = {(entry.organization_id, entry.user_id) for entry in file.organization_members}

    def refer(pointer: str, known: Any, value: UUID | None, what: str) -> Iterator[FieldError]:  # noqa: ANN401
        if value is not None and value not in known:
            yield FieldError(pointer, f"there is no {what} `{value}`; list it, or mend the id")

    for index, entry in enumerate(file.organizations):
        if home.get(entry.id, entry.id) != entry.id:
            yield FieldError(f"/organizations/{index}/id", "a group has this id already")
    for index, group in enumerate(file.groups):
        place = f"/groups/{index}"
        yield from refer(
            f"{place}/organization_id", organizations, group.organization_id, "organization here"
        )
        if group.id in organizations or home.get(group.id) == group.id:
            sentence = "an organization's Everyone group has its id and exists by itself; remove it"
            yield FieldError(f"{place}/id", sentence)
        elif home.get(group.id, group.organization_id) != group.organization_id:
            sentence = f"the group is in organization `{home[group.id]}`; a group never changes it"
            yield FieldError(f"{place}/organization_id", sentence)
    for index, member in enumerate(file.organization_members):
        place = f"/organization_members/{index}"
        yield from refer(
            f"{place}/organization_id", organizations, member.organization_id, "organization here"
        )
        yield from refer(f"{place}/user_id", users, member.user_id, "user")
    for index, joined in enumerate(file.group_members):
        place = f"/group_members/{index}"
        if joined.group_id in organizations:
            sentence = "everybody in an organization is in its Everyone group; remove the entry"
            yield FieldError(f"{place}/group_id", sentence)
            continue
        yield from refer(f"{place}/group_id", groups, joined.group_id, "group here")
        yield from refer(f"{place}/user_id", users, joined.user_id, "user")
        organization = groups.get(joined.group_id)
        if (
            organization
            and joined.user_id in users
            and (organization, joined.user_id) not in members
        ):
            sentence = f"the user is not a member of the group's organization `{organization}`"
            yield FieldError(f"{place}/user_id", sentence)
    for index, role in enumerate(file.roles):
        place = f"/roles/{index}"
        yield from refer(f"{place}/user_id", users, role.user_id, "user")
        yield from refer(
            f"{place}/organization_id", organizations, role.organization_id, "organization here"
        )


def _find_bad_roles(file: DirectoryFile, scopes: Mapping[str, Scope]) -> Iterator[FieldError]:
    for index, entry in enumerate(file.roles):
        place = f"/roles/{index}/role"
        scope = scopes.get(entry.role)
        held = Scope.SITE if entry.organization_id is None else Scope.ORGANIZATION
        if scope is None:
            sentence = (
                f"the policy declares no role `{entry.role[:60]}`; {suggest(entry.role, scopes)}"
            )
            yield FieldError(place, sentence)
        elif scope is Scope.GROUP:
            sentence = f"`{entry.role}` comes from membership in a group alone; remove the entry"
            yield FieldError(place, sentence)
        elif scope is not held:
            sentence = f"`{entry.role}` is held in the scope `{scope}`, here it is `{held}`"
            yield FieldError(place, sentence)


def _apply(connection: Connection, tables: Tables, file: DirectoryFile) -> Iterator[Change]:
    """Change what differs, the things referred to first, and take away in the other order."""
    ours = [entry.id for entry in file.organizations]
    organization_of = {entry.id: entry.organization_id for entry in file.groups}
    everyone = [
        {"id": entry.id, "organization_id": entry.id, "name": "Everyone"}
        for entry in file.organizations
    ]
    roles = tables.role_assignments
    plan: list[
        tuple[sa.Table, tuple[str, ...], sa.ColumnElement[bool] | None, list[dict[str, Any]]]
    ]
    plan = [
        (
            tables.organizations,
            ("id",),
            None,
            [{**entry.model_dump(), "deleted": False} for entry in file.organizations],
        ),
        (tables.users, ("id",), None, [entry.model_dump() for entry in file.users]),
        (
            tables.groups,
            ("id",),
            tables.groups.c.organization_id.in_(ours),
            [*everyone, *(entry.model_dump() for entry in file.groups)],
        ),
        (
            tables.organization_members,
            ("organization_id", "user_id"),
            tables.organization_members.c.organization_id.in_(ours),
            [entry.model_dump() for entry in file.organization_members],
        ),
        (
            tables.group_members,
            ("group_id", "user_id"),
            tables.group_members.c.organization_id.in_(ours),
            [
                {**entry.model_dump(), "organization_id": organization_of[entry.group_id]}
                for entry in file.group_members
            ],
        ),
        (
            roles,
            ("user_id", "role", "organization_id"),
            sa.or_(roles.c.organization_id.is_(None), roles.c.organization_id.in_(ours)),
            [entry.model_dump() for entry in file.roles],
        ),
    ]
    for table, key, whole, rows in reversed(plan):
        if whole is not None:
            wanted = {tuple(row[name] for name in key) for row in rows}
            yield from _remove(connection, table, key, whole, wanted)
    for table, key, _, rows in plan:
        yield from _put(connection, table, key, rows)


def _remove(
    connection: Connection,
    table: sa.Table,
    key: tuple[str, ...],
    whole: sa.ColumnElement[bool],
    wanted: set[tuple[Any, ...]],
) -> Iterator[Change]:
    columns = [table.c[name] for name in key]
    for row in connection.execute(sa.select(*columns).where(whole).order_by(*columns)).all():
        if tuple(row) not in wanted:
            same = [
                column.is_not_distinct_from(value)
                for column, value in zip(columns, row, strict=True)
            ]
            connection.execute(sa.delete(table).where(*same))
            yield Change("removed", _describe(table, key, row._mapping))  # noqa: SLF001 - public


def _put(
    connection: Connection, table: sa.Table, key: tuple[str, ...], rows: list[dict[str, Any]]
) -> Iterator[Change]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    stored = (
        {
            tuple(row[name] for name in key): row
            for row in connection.execute(sa.select(*(table.c[name] for name in names))).mappings()
        }
        if rows
        else {}
    )
    for row in rows:
        before = stored.get(tuple(row[name] for name in key))
        if before is None:
            more = {"id": uuid4()} if "id" in table.c and "id" not in row else {}
            connection.execute(sa.insert(table), {**row, **more})
            yield Change("added", _describe(table, key, row))
        elif dict(before) != row:
            same = [table.c[name] == row[name] for name in key]
            connection.execute(sa.update(table).where(*same).values(row))
            yield Change("changed", _describe(table, key, row))


def _describe(table: sa.Table, key: tuple[str, ...], row: Mapping[str, Any]) -> str:
    noun = table.name.removesuffix("s").replace("_", " ")
    parts = (f"{name}={row[name] if row[name] is not None else 'site'}" for name in key)
    label = f" `{row['name']}`" if row.get("name") else ""
    return f"{noun} {' '.join(parts)}{label}"
