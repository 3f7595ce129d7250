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

from govbudget.audit.entry import CommandChange
from govbudget.audit.store import record_command
from govbudget.authz.reader import suggest
from govbudget.errors import FieldError, InvalidInput
from govbudget.identity import Scope
from govbudget.strict_json import MAX_ERRORS, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sqlalchemy import Connection

    from govbudget.tables import Tables


ADDED, CHANGED, REMOVED = "added", "changed", "removed"
# Who holds which role: assignments, and memberships, which are roles too.
AUDITED = frozenset({"role_assignments", "organization_members", "group_members"})


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
    """One row that a load `added`, `changed` or `removed`: its key, and all of it."""

    verb: str
    table: str
    key: Mapping[str, Any]
    row: Mapping[str, Any]

    def __str__(self) -> str:
        """Give one line."""
        noun = self.table.removesuffix("s").replace("_", " ")
        parts = (f"{name}={'site' if value is None else value}" for name, value in self.key.items())
        label = f" `{self.row['name']}`" if self.row.get("name") else ""
        return f"{self.verb} {noun} {' '.join(parts)}{label}"

    def for_audit(self) -> CommandChange:
        """Give it as the audit trail has it: about the user, in the organization."""
        value = {name: None if part is None else str(part) for name, part in self.key.items()}
        user = value.pop("user_id", None)
        return CommandChange(
            self.row["organization_id"],
            self.table.removesuffix("s"),
            str(user),
            None if self.verb == ADDED else value,
            None if self.verb == REMOVED else value,
        )


def load_directory(
    connection: Connection, tables: Tables, content: bytes, scopes: Mapping[str, Scope]
) -> list[Change]:
    """Bring the tables to what the file says, in the caller's transaction, and say what changed.

    `scopes` are the policy's roles. Raises InvalidInput that names every wrong entry, and has then
    changed nothing. Never commits.
    """
    file = parse_json(content, FILE)
    known = _find_known(connection, tables, file)
    errors = [
        *_find_duplicates(file),
        *_find_bad_groups(file, known),
        *_find_bad_members(file, known),
        *_find_bad_roles(file, known, scopes),
    ]
    if errors:
        count = "1 entry is" if len(errors) == 1 else f"{len(errors)} entries are"
        raise InvalidInput(f"{count} wrong; nothing was loaded", errors[:MAX_ERRORS])
    changes = list(_apply(connection, tables, file))
    audited = [change.for_audit() for change in changes if change.table in AUDITED]
    record_command(connection, tables, audited)
    return changes


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


@dataclass(frozen=True, slots=True)
class _Known:
    """What entries may refer to: by the file, and by the tables as they are."""

    organizations: frozenset[UUID]
    users: frozenset[UUID]
    groups: Mapping[UUID, UUID]
    stored_groups: Mapping[UUID, UUID]
    members: frozenset[tuple[UUID, UUID]]
    default_elsewhere: UUID | None

    def check_user(self, pointer: str, user: UUID) -> Iterator[FieldError]:
        if user not in self.users:
            yield FieldError(f"{pointer}/user_id", f"there is no user `{user}`; list it")

    def check_organization(self, pointer: str, organization: UUID | None) -> Iterator[FieldError]:
        if organization is not None and organization not in self.organizations:
            sentence = f"this file has no organization `{organization}`; list it"
            yield FieldError(f"{pointer}/organization_id", sentence)


def _find_known(connection: Connection, tables: Tables, file: DirectoryFile) -> _Known:
    groups = sa.select(tables.groups.c.id, tables.groups.c.organization_id)
    stored_users = connection.scalars(sa.select(tables.users.c.id))
    stored = tables.organizations.c
    default_elsewhere = sa.select(stored.id).where(
        stored.is_default, ~stored.deleted, stored.id.not_in([e.id for e in file.organizations])
    )
    return _Known(
        organizations=frozenset(entry.id for entry in file.organizations),
        users=frozenset(entry.id for entry in file.users) | frozenset(stored_users),
        groups={entry.id: entry.organization_id for entry in file.groups},
        stored_groups={row.id: row.organization_id for row in connection.execute(groups)},
        members=frozenset(
            (entry.organization_id, entry.user_id) for entry in file.organization_members
        ),
        default_elsewhere=connection.scalars(default_elsewhere).first(),
    )


def _find_bad_groups(file: DirectoryFile, known: _Known) -> Iterator[FieldError]:
    """Find groups that would change what they are."""
    for index, entry in enumerate(file.organizations):
        if known.stored_groups.get(entry.id, entry.id) != entry.id:
            yield FieldError(f"/organizations/{index}/id", "a group has this id already")
        if entry.is_default and known.default_elsewhere is not None:
            sentence = f"`{known.default_elsewhere}` is the default; list it here, without the flag"
            yield FieldError(f"/organizations/{index}/is_default", sentence)
    for index, group in enumerate(file.groups):
        place = f"/groups/{index}"
        yield from known.check_organization(place, group.organization_id)
        stored = known.stored_groups.get(group.id, group.organization_id)
        if group.id in known.organizations or stored == group.id:
            sentence = "an organization's Everyone group has its id and exists by itself; remove it"
            yield FieldError(f"{place}/id", sentence)
        elif stored != group.organization_id:
            sentence = f"the group is in organization `{stored}`; a group never changes it"
            yield FieldError(f"{place}/organization_id", sentence)


def _find_bad_members(file: DirectoryFile, known: _Known) -> Iterator[FieldError]:
    """Find memberships of nobody, in nothing, or in a group of an organization not one's own."""
    for index, member in enumerate(file.organization_members):
        place = f"/organization_members/{index}"
        yield from known.check_organization(place, member.organization_id)
        yield from known.check_user(place, member.user_id)
    for index, joined in enumerate(file.group_members):
        place = f"/group_members/{index}"
        organization = known.groups.get(joined.group_id)
        if joined.group_id in known.organizations:
            sentence = "everybody in an organization is in its Everyone group; remove the entry"
            yield FieldError(f"{place}/group_id", sentence)
        elif organization is None:
            sentence = f"this file has no group `{joined.group_id}`; list it"
            yield FieldError(f"{place}/group_id", sentence)
        elif joined.user_id not in known.users:
            yield from known.check_user(place, joined.user_id)
        elif (organization, joined.user_id) not in known.members:
            sentence = f"the user is not a member of the group's organization `{organization}`"
            yield FieldError(f"{place}/user_id", sentence)


def _find_bad_roles(
    file: DirectoryFile, known: _Known, scopes: Mapping[str, Scope]
) -> Iterator[FieldError]:
    """Find roles of nobody, and roles that can't be held where they stand."""
    for index, entry in enumerate(file.roles):
        yield from known.check_user(f"/roles/{index}", entry.user_id)
        yield from known.check_organization(f"/roles/{index}", entry.organization_id)
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
        elif scope is Scope.USER:
            sentence = f"everyone holds `{entry.role}` toward themselves; remove the entry"
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
    order = [table.c[name] for name in key]
    for row in connection.execute(sa.select(table).where(whole).order_by(*order)).mappings().all():
        place = {name: row[name] for name in key}
        if tuple(place.values()) not in wanted:
            same = [table.c[name].is_not_distinct_from(part) for name, part in place.items()]
            connection.execute(sa.delete(table).where(*same))
            yield Change(REMOVED, table.name, place, dict(row))


def _put(
    connection: Connection, table: sa.Table, key: tuple[str, ...], rows: list[dict[str, Any]]
) -> Iterator[Change]:
    if not rows:
        return
    stored = {
        tuple(row[name] for name in key): row
        for row in connection.execute(sa.select(*(table.c[name] for name in rows[0]))).mappings()
    }
    for row in rows:
        place = {name: row[name] for name in key}
        before = stored.get(tuple(place.values()))
        if before is None:
            more = {"id": uuid4()} if "id" in table.c and "id" not in row else {}
            connection.execute(sa.insert(table), {**row, **more})
            yield Change(ADDED, table.name, place, row)
        elif dict(before) != row:
            same = [table.c[name] == part for name, part in place.items()]
            connection.execute(sa.update(table).where(*same).values(row))
            yield Change(CHANGED, table.name, place, row)
