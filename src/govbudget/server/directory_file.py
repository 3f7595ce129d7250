"""Load organizations, users, groups, memberships and roles from one JSON file.

The file is the whole truth for the organizations it names, and for site roles: what is absent there
is taken away. Users are added and renamed, never removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter

from govbudget.audit.entry import CommandChange
from govbudget.audit.store import record_command
from govbudget.authz.reader import suggest
from govbudget.errors import FieldError, InvalidInput
from govbudget.identity import Scope
from govbudget.ids import PRINTABLE, IdType
from govbudget.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from govbudget.db.tables import Tables


ADDED, CHANGED, REMOVED = "added", "changed", "removed"
# An assignment has an id of its own, which no file names.
ROLE_KEY = ("user_id", "role", "organization_id")
# Who holds which role: assignments, and memberships, which are roles too.
AUDITED = frozenset({"role_assignments", "organization_members", "group_members"})


def _read_uuid(value: object) -> object:
    try:
        return IdType.UUID.accept(value)
    except TypeError as error:
        raise ValueError(str(error)) from None


Uuid = Annotated[UUID, PlainValidator(_read_uuid, json_schema_input_type=UUID)]
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=PRINTABLE)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class UserEntry(_Entry):
    """A person, or a service that calls for people.

    - `id`: names the user here, in `token create` and in the API
    - `name`: for people to read
    """

    id: Uuid
    name: Name


class OrganizationEntry(_Entry):
    """An organization. Its Everyone group exists by itself, with the same id; it is not listed.

    - `id`: names the organization, and its Everyone group
    - `name`: for people to read
    - `is_default`: marks the site's default organization; at most one has it, and it gives no right
    """

    id: Uuid
    name: Name
    is_default: bool = False


class GroupEntry(_Entry):
    """A group of one organization; what a budget is set on.

    - `id`: names the group
    - `organization_id`: an organization of this file; a group never changes it
    - `name`: for people to read
    """

    id: Uuid
    organization_id: Uuid
    name: Name


class OrganizationMemberEntry(_Entry):
    """A user is a member of an organization, and so of its Everyone group.

    - `organization_id`: an organization of this file
    - `user_id`: a user of this file, or of one loaded before
    """

    organization_id: Uuid
    user_id: Uuid


class GroupMemberEntry(_Entry):
    """A user is a member of a group, and so holds `group-member` there.

    - `group_id`: a group of this file
    - `user_id`: a member of the group's organization, by `organization_members` of this file
    """

    group_id: Uuid
    user_id: Uuid


class RoleEntry(_Entry):
    """A user holds a role, in an organization or on the site.

    - `user_id`: a user of this file, or of one loaded before; membership is not needed
    - `role`: a role of the policy with the scope `organization` or `site`
    - `organization_id`: an organization of this file, or null for a role with the scope `site`
    """

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
    errors = [*_find_duplicates(file), *_find_bad_entries(file, known, scopes)]
    if errors:
        count = "1 entry is" if len(errors) == 1 else f"{len(errors)} entries are"
        raise InvalidInput(f"{count} wrong; nothing was loaded", errors)
    changes = list(_apply(connection, tables, file))
    audited = [change.for_audit() for change in changes if change.table in AUDITED]
    record_command(connection, tables, audited)
    return changes


def _find_duplicates(file: DirectoryFile) -> Iterator[FieldError]:
    for name, entries in file:
        keys = [getattr(entry, "id", entry) for entry in entries]
        counts = Counter(keys)
        for index, key in enumerate(keys):
            if counts[key] > 1:
                yield FieldError(f"/{name}/{index}", "stands more than once; keep one")
    defaults = [i for i, entry in enumerate(file.organizations) if entry.is_default]
    for index in defaults[1:]:
        sentence = "only one organization is the default"
        yield FieldError(f"/organizations/{index}/is_default", sentence)


@dataclass(frozen=True, slots=True)
class _Known:
    """What entries may refer to: by the file, and by the tables as they are."""

    organizations: frozenset[UUID]
    users: frozenset[UUID]
    groups: Mapping[UUID, UUID]
    stored_groups: Mapping[UUID, UUID]
    members: frozenset[tuple[UUID, UUID]]
    default_elsewhere: UUID | None


def _find_known(connection: Connection, tables: Tables, file: DirectoryFile) -> _Known:
    groups = sa.select(tables.groups.c.id, tables.groups.c.organization_id)
    stored = tables.organizations.c
    ours = frozenset(entry.id for entry in file.organizations)
    default_elsewhere = sa.select(stored.id).where(
        stored.is_default, ~stored.deleted, stored.id.not_in(ours)
    )
    return _Known(
        organizations=ours,
        users=frozenset(entry.id for entry in file.users).union(
            connection.scalars(sa.select(tables.users.c.id))
        ),
        groups={entry.id: entry.organization_id for entry in file.groups},
        stored_groups={row.id: row.organization_id for row in connection.execute(groups)},
        members=frozenset((m.organization_id, m.user_id) for m in file.organization_members),
        default_elsewhere=connection.scalars(default_elsewhere).first(),
    )


# What is wrong with an entry: its field, and a sentence.
Wrong = Iterator[tuple[str, str]]


def _find_bad_entries(
    file: DirectoryFile, known: _Known, scopes: Mapping[str, Scope]
) -> Iterator[FieldError]:
    checks: tuple[tuple[str, Callable[[Any], Wrong]], ...] = (
        ("organizations", partial(_check_organization, known)),
        ("groups", partial(_check_group, known)),
        ("organization_members", partial(_check_references, known)),
        ("group_members", partial(_check_group_member, known)),
        ("roles", partial(_check_references, known)),
        ("roles", partial(_check_role, scopes)),
    )
    for name, check in checks:
        for index, entry in enumerate(getattr(file, name)):
            for field, sentence in check(entry):
                yield FieldError(f"/{name}/{index}/{field}", sentence)


def _check_references(known: _Known, entry: Any) -> Wrong:  # noqa: ANN401 - an entry of any kind
    user, organization = getattr(entry, "user_id", None), getattr(entry, "organization_id", None)
    if organization is not None and organization not in known.organizations:
        yield "organization_id", f"this file has no organization `{organization}`; list it"
    if user is not None and user not in known.users:
        yield "user_id", f"there is no user `{user}`; list it"


def _check_organization(known: _Known, entry: OrganizationEntry) -> Wrong:
    if known.stored_groups.get(entry.id, entry.id) != entry.id:
        yield "id", "a group has this id already"
    if entry.is_default and known.default_elsewhere is not None:
        other = known.default_elsewhere
        yield "is_default", f"`{other}` is the default; list it here, without the flag"


def _check_group(known: _Known, group: GroupEntry) -> Wrong:
    yield from _check_references(known, group)
    stored = known.stored_groups.get(group.id, group.organization_id)
    if group.id in known.organizations or stored == group.id:
        yield "id", "an organization's Everyone group has its id and exists by itself; remove it"
    elif stored != group.organization_id:
        yield (
            "organization_id",
            f"the group is in organization `{stored}`; a group never changes it",
        )


def _check_group_member(known: _Known, member: GroupMemberEntry) -> Wrong:
    organization = known.groups.get(member.group_id)
    if member.group_id in known.organizations:
        sentence = "everybody in an organization is in its Everyone group; remove the entry"
        yield "group_id", sentence
    elif organization is None:
        yield "group_id", f"this file has no group `{member.group_id}`; list it"
    elif member.user_id not in known.users:
        yield from _check_references(known, member)
    elif (organization, member.user_id) not in known.members:
        sentence = f"the user is not a member of the group's organization `{organization}`"
        yield "user_id", sentence


def _check_role(scopes: Mapping[str, Scope], entry: RoleEntry) -> Wrong:
    role, scope = entry.role, scopes.get(entry.role)
    held = Scope.SITE if entry.organization_id is None else Scope.ORGANIZATION
    if scope is None:
        yield "role", f"the policy declares no role `{role[:60]}`; {suggest(role, scopes)}"
    elif scope is Scope.GROUP:
        yield "role", f"`{role}` comes from membership in a group alone; remove the entry"
    elif scope is Scope.USER:
        yield "role", f"everyone holds `{role}` toward themselves; remove the entry"
    elif scope is not held:
        yield "role", f"`{role}` is held in the scope `{scope}`, here it is `{held}`"


def _apply(connection: Connection, tables: Tables, file: DirectoryFile) -> Iterator[Change]:
    """Change what differs, the things referred to first, and take away in the other order."""
    content = file.model_dump()
    ours = {None, *(entry.id for entry in file.organizations)}  # None: roles on the site
    organization_of = {group.id: group.organization_id for group in file.groups}
    everyone = [
        {"id": entry.id, "organization_id": entry.id, "name": "Everyone"}
        for entry in file.organizations
    ]
    plan: dict[sa.Table, list[dict[str, Any]]] = {
        tables.organizations: [{**row, "deleted": False} for row in content["organizations"]],
        tables.users: content["users"],
        tables.groups: everyone + content["groups"],
        tables.organization_members: content["organization_members"],
        tables.group_members: [
            {**row, "organization_id": organization_of[row["group_id"]]}
            for row in content["group_members"]
        ],
        tables.role_assignments: content["roles"],
    }
    stored = {table: _read(connection, table) for table in plan}
    for table, rows in reversed(plan.items()):
        wanted = {tuple(_find_key(table, row).values()) for row in rows}
        for place, row in stored[table].items():
            if row.get("organization_id", "of no organization") in ours and place not in wanted:
                connection.execute(sa.delete(table).where(*_is(table, row)))
                yield Change(REMOVED, table.name, _find_key(table, row), row)
    for table, rows in plan.items():
        for row in rows:
            key = _find_key(table, row)
            before = stored[table].get(tuple(key.values()))
            if before is None:
                its_id = {"id": uuid4()} if table is tables.role_assignments else {}
                connection.execute(sa.insert(table), {**row, **its_id})
                yield Change(ADDED, table.name, key, row)
            elif not row.items() <= before.items():
                connection.execute(sa.update(table).where(*_is(table, row)).values(row))
                yield Change(CHANGED, table.name, key, row)


def _read(connection: Connection, table: sa.Table) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = map(dict, connection.execute(sa.select(table)).mappings())
    return {tuple(_find_key(table, row).values()): row for row in rows}


def _find_key(table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Give what tells a row of a file from the others."""
    primary = [column.name for column in table.primary_key]
    return {name: row[name] for name in (ROLE_KEY if "role" in table.c else primary)}


def _is(table: sa.Table, row: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [column == row[column.name] for column in table.primary_key]
