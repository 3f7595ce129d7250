"""Load organizations, users, groups, memberships and roles from one JSON file.

The file is the whole truth for the organizations it names, and for site roles: what is absent there
is taken away. Users are added and renamed, never removed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, TypeAlias
from uuid import UUID, uuid4

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from govbudget.authz.reader import suggest
from govbudget.db.tables import Tables
from govbudget.errors import FieldError, InvalidInput
from govbudget.identity import Scope
from govbudget.ids import PRINTABLE
from govbudget.server.audit import CommandChange, record_command
from govbudget.strict_json import parse_json
from govbudget.web.bodies import Uuid

ADDED, CHANGED, REMOVED = "added", "changed", "removed"
# What is wrong with an entry: its field, and a sentence.
Wrong: TypeAlias = Iterator[tuple[str, str]]
Row: TypeAlias = dict[str, Any]
# What distinguishes a row from the others: names and values.
Key: TypeAlias = tuple[tuple[str, Any], ...]
# An assignment has an id of its own, which no file names.
ROLE_KEY = ("user_id", "role", "organization_id")
# Who holds which role: assignments, and memberships, which are roles too.
AUDITED = frozenset({"role_assignments", "organization_members", "group_members"})


Name = Annotated[str, Field(min_length=1, max_length=256, pattern=PRINTABLE)]


@dataclass(frozen=True, slots=True)
class _Known:
    """What entries may refer to: in the policy, in the file, and in the tables as they are."""

    scopes: Mapping[str, Scope]
    organizations: frozenset[UUID]
    users: frozenset[UUID]
    groups: Mapping[UUID, UUID]
    stored_groups: Mapping[UUID, UUID]
    members: frozenset[tuple[UUID, UUID]]
    default_elsewhere: UUID | None


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    def find_errors(self, known: _Known) -> Wrong:
        """Find what is wrong: here, what an entry of any kind refers to."""
        user, organization = getattr(self, "user_id", None), getattr(self, "organization_id", None)
        if organization is not None and organization not in known.organizations:
            yield "organization_id", f"this file has no organization `{organization}`; list it"
        if user is not None and user not in known.users:
            yield "user_id", f"there is no user `{user}`; list it"


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

    def find_errors(self, known: _Known) -> Wrong:
        """Find an id or a flag that another one has."""
        if known.stored_groups.get(self.id, self.id) != self.id:
            yield "id", "a group has this id already"
        if self.is_default and known.default_elsewhere is not None:
            other = known.default_elsewhere
            yield "is_default", f"`{other}` is the default; list it here, without the flag"


class GroupEntry(_Entry):
    """A group of one organization; what a budget is set on.

    - `id`: names the group
    - `organization_id`: an organization of this file; a group never changes it
    - `name`: for people to read
    """

    id: Uuid
    organization_id: Uuid
    name: Name

    def find_errors(self, known: _Known) -> Wrong:
        """Find another organization than it has, too, and an id that an organization has."""
        yield from super().find_errors(known)
        stored = known.stored_groups.get(self.id, self.organization_id)
        if self.id in known.organizations or stored == self.id:
            reason = "an organization's Everyone group has its id and exists by itself"
            yield "id", f"{reason}; remove it"
        elif stored != self.organization_id:
            reason = f"the group is in organization `{stored}`"
            yield "organization_id", f"{reason}; a group never changes it"


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

    def find_errors(self, known: _Known) -> Wrong:
        """Find a group of another file, and who is not in its organization."""
        organization = known.groups.get(self.group_id)
        if self.group_id in known.organizations:
            reason = "everybody in an organization is in its Everyone group"
            yield "group_id", f"{reason}; remove the entry"
        elif organization is None:
            yield "group_id", f"this file has no group `{self.group_id}`; list it"
        elif self.user_id not in known.users:
            yield from super().find_errors(known)
        elif (organization, self.user_id) not in known.members:
            reason = "the user is not a member of the group's organization"
            yield "user_id", f"{reason} `{organization}`"


class RoleEntry(_Entry):
    """A user holds a role, in an organization or on the site.

    - `user_id`: a user of this file, or of one loaded before; membership is not needed
    - `role`: a role of the policy with the scope `organization` or `site`
    - `organization_id`: an organization of this file, or null for a role with the scope `site`
    """

    user_id: Uuid
    role: str
    organization_id: Uuid | None

    def find_errors(self, known: _Known) -> Wrong:
        """Find a role that is not held so, too."""
        yield from super().find_errors(known)
        role, scope = self.role, known.scopes.get(self.role)
        held = Scope.SITE if self.organization_id is None else Scope.ORGANIZATION
        if scope is None:
            reason = f"the policy declares no role `{role[:60]}`"
            yield "role", f"{reason}; {suggest(role, known.scopes)}"
        elif scope is Scope.GROUP:
            yield "role", f"`{role}` comes from membership in a group alone; remove the entry"
        elif scope is Scope.USER:
            yield "role", f"everyone holds `{role}` toward themselves; remove the entry"
        elif scope is not held:
            yield "role", f"`{role}` is held in the scope `{scope}`, here it is `{held}`"


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
class RowChange:
    """One row that a load `added`, `changed` or `removed`: its key, and all of it."""

    verb: str
    table: str
    key: Key
    row: Row

    def __str__(self) -> str:
        """Give one line."""
        noun = self.table.removesuffix("s").replace("_", " ")
        parts = (f"{name}={'site' if value is None else value}" for name, value in self.key)
        label = f" `{self.row['name']}`" if self.row.get("name") else ""
        return f"{self.verb} {noun} {' '.join(parts)}{label}"

    def for_audit(self) -> CommandChange:
        """Give it as the audit trail has it: about the user, in the organization."""
        value = {name: None if part is None else str(part) for name, part in self.key}
        user = value.pop("user_id", None)
        return CommandChange(
            self.row["organization_id"],
            self.table.removesuffix("s"),
            str(user),
            None if self.verb == ADDED else value,
            None if self.verb == REMOVED else value,
        )


def load_directory(
    connection: sa.Connection,
    tables: Tables,
    content: bytes,
    scopes: Mapping[str, Scope],
    is_here: Callable[[UUID], bool] | None = None,
) -> list[RowChange]:
    """Bring the tables to what the file says, in the caller's transaction, and say what changed.

    `scopes` are the policy's roles. Where there are several databases, `is_here` says which
    organizations are in this one; the whole file is checked against each. Raises InvalidInput that
    names every wrong entry, and has then changed nothing. Never commits.
    """
    try:
        file = parse_json(content, FILE)
    except InvalidInput as error:
        shape = json.dumps(_find_right(error.errors))
        raise InvalidInput(f"{error.detail}; the right shape is `{shape}`", error.errors) from None
    stored = {table: _read(connection, table) for table in _list_tables(tables)}
    known = _find_known(file, {table.name: stored[table] for table in stored}, scopes)
    errors = [*_find_duplicates(file), *_find_bad_entries(file, known)]
    if errors:
        count = "1 entry is" if len(errors) == 1 else f"{len(errors)} entries are"
        raise InvalidInput(f"{count} wrong; nothing was loaded", errors)
    ours = {None, *filter(is_here or (lambda _: True), known.organizations)}
    rows = ([row for row in rows if _find_owner(row) in ours] for rows in _list_rows(file, known))
    plan = dict(zip(stored, rows, strict=True))
    changes = list(_apply(connection, plan, stored, ours))
    audited = [change.for_audit() for change in changes if change.table in AUDITED]
    record_command(connection, tables, audited)
    return changes


def _find_right(wrong: Sequence[FieldError]) -> dict[str, list[Row]]:
    """Give a right entry of each list that something is wrong in; else of each that there is."""
    example = json.loads((files("govbudget.server") / "demo.json").read_bytes())
    right = {name: entries[:1] for name, entries in example.items()}
    named = {f"{one.pointer}/".split("/")[1] for one in wrong}
    is_known = named and named <= right.keys()
    return {name: right[name] for name in right if not is_known or name in named}


def _list_tables(tables: Tables) -> list[sa.Table]:
    """List the table of each list of the file; what is referred to comes first."""
    names = ["role_assignments" if name == "roles" else name for name in DirectoryFile.model_fields]
    return [getattr(tables, name) for name in names]


def _read(connection: sa.Connection, table: sa.Table) -> dict[Key, Row]:
    rows = map(dict, connection.execute(sa.select(table)).mappings())
    return {_find_key(table, row): row for row in rows}


def _find_key(table: sa.Table, row: Row) -> Key:
    names = ROLE_KEY if "role" in table.c else table.primary_key.columns.keys()
    return tuple((name, row[name]) for name in names)


def _find_known(
    file: DirectoryFile, stored: Mapping[str, Mapping[Key, Row]], scopes: Mapping[str, Scope]
) -> _Known:
    ours = frozenset(entry.id for entry in file.organizations)
    users = {entry.id for entry in file.users}
    defaults = (
        row["id"]
        for row in stored["organizations"].values()
        if row["is_default"] and not row["deleted"] and row["id"] not in ours
    )
    return _Known(
        scopes,
        ours,
        users=frozenset(users.union(row["id"] for row in stored["users"].values())),
        groups={entry.id: entry.organization_id for entry in file.groups},
        stored_groups={row["id"]: row["organization_id"] for row in stored["groups"].values()},
        members=frozenset((m.organization_id, m.user_id) for m in file.organization_members),
        default_elsewhere=next(defaults, None),
    )


def _find_duplicates(file: DirectoryFile) -> Iterator[FieldError]:
    for name, entries in file:
        keys = [getattr(entry, "id", entry) for entry in entries]
        counts = Counter(keys)
        for index, key in enumerate(keys):
            if counts[key] > 1:
                yield FieldError(f"/{name}/{index}", "is listed more than once; keep one")
    defaults = [i for i, entry in enumerate(file.organizations) if entry.is_default]
    for index in defaults[1:]:
        sentence = "only one organization is the default"
        yield FieldError(f"/organizations/{index}/is_default", sentence)


def _find_bad_entries(file: DirectoryFile, known: _Known) -> Iterator[FieldError]:
    for name, entries in file:
        for index, entry in enumerate(entries):
            for field, sentence in entry.find_errors(known):
                yield FieldError(f"/{name}/{index}/{field}", sentence)


def _list_rows(file: DirectoryFile, known: _Known) -> Iterator[list[Row]]:
    """List the rows of each table as the file has them, the Everyone groups among them."""
    for name, rows in file.model_dump().items():
        if name == "organizations":
            yield [{**row, "deleted": False} for row in rows]
        elif name == "groups":
            ids = known.organizations
            yield [{"id": one, "organization_id": one, "name": "Everyone"} for one in ids] + rows
        elif name == "group_members":
            yield [{**row, "organization_id": known.groups[row["group_id"]]} for row in rows]
        else:
            yield rows


def _find_owner(row: Row) -> UUID | None:
    """Give the organization that a row belongs to; None: the site."""
    owner: UUID | None = row["id"] if "is_default" in row else row.get("organization_id")
    return owner


def _apply(
    connection: sa.Connection,
    plan: dict[sa.Table, list[Row]],
    stored: Mapping[sa.Table, Mapping[Key, Row]],
    ours: set[UUID | None],
) -> Iterator[RowChange]:
    """Change what differs, the things referred to first, and take away in the other order.

    `ours` are the organizations that the file is about; None: roles on the site.
    """
    for table, rows in reversed(plan.items()):
        wanted = {_find_key(table, row) for row in rows}
        for key, row in stored[table].items():
            if row.get("organization_id", "of no organization") in ours and key not in wanted:
                connection.execute(sa.delete(table).where(*_is(table, row)))
                yield RowChange(REMOVED, table.name, key, row)
    for table, rows in plan.items():
        for row in rows:
            key = _find_key(table, row)
            before = stored[table].get(key)
            if before is None:
                its_id = {"id": uuid4()} if "role" in table.c else {}
                connection.execute(sa.insert(table), {**row, **its_id})
                yield RowChange(ADDED, table.name, key, row)
            elif not row.items() <= before.items():
                connection.execute(sa.update(table).where(*_is(table, row)).values(row))
                yield RowChange(CHANGED, table.name, key, row)


def _is(table: sa.Table, row: Row) -> list[sa.ColumnElement[bool]]:
    return [column == row[column.name] for column in table.primary_key]
