"""What `policy who`, `diff --people` and `explain --user` print of the people of the directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

import click
from sqlalchemy import Connection

from govbudget.authz.table import ASKED, DecisionTable
from govbudget.cli.environment import find_directory, open_database, run_on_database
from govbudget.cli.host import find_settings
from govbudget.directory.people import find_root, list_people, read_areas, require_list
from govbudget.directory.protocol import Directory
from govbudget.errors import NotFound
from govbudget.identity import EXAMPLES, SITE, Action, Assignment, Domain, Id, ObjectType, Scope
from govbudget.review.explain import find_reason_against
from govbudget.review.people import Reached, Right, find_reached

# Rows that are read from the database at once.
PORTION = 5000
VERBS = {"gain": "gains", "loss": "loses"}
# What may be named of objects of a kind; nothing of others.
NAMED = {
    ObjectType.GROUP: ((), ("organization",), ("group",)),
    ObjectType.AI_MEMBER_SPEND: ((), ("organization",), ("organization", "user")),
}
# What JSON has of an area that somebody reaches.
Row: TypeAlias = dict[str, Any]


@contextmanager
def open_people() -> Iterator[tuple[Connection, Directory]]:
    """Open one snapshot of the database, read in portions, and find the directory of people."""
    directory = require_list(find_directory())
    options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "yield_per": PORTION}
    with open_database() as engine, engine.execution_options(**options).connect() as connection:
        yield connection, directory


@contextmanager
def open_reached(
    table: DecisionTable, kind: ObjectType, action: Action, ids: Mapping[str, str | None]
) -> Iterator[Iterator[Row]]:
    """Give a row for each area in which somebody may do it, of what the ids name, while open."""
    parse = find_settings().id_type.parse
    order = ("organization", "group", "user")  # whatever order the command line has
    named = {name: parse(value) for name in order if (value := ids[name]) is not None}
    if tuple(named) not in NAMED.get(kind, ((),)):
        raise click.UsageError(
            "a `group` takes --organization or --group; `ai_member_spend` takes --organization, "
            "or --organization and --user; other objects take none of them"
        )
    right = Right(table, kind, action)
    with open_people() as (connection, directory):
        areas = read_areas(connection, directory, find_root(connection, directory, named), kind)
        people = list_people(connection, directory, areas)
        yield (describe_reached(r) for one in people for r in find_reached(areas, one, right))


@contextmanager
def open_changes(before: DecisionTable, after: DecisionTable) -> Iterator[Iterator[Row]]:
    """Give a row for each area in which somebody gains or loses a right, while it is open."""
    rights = [[Right(table, *right) for table in (before, after)] for right in sorted(ASKED)]
    changed = [(old, new) for old, new in rights if old.verdicts != new.verdicts]
    with open_people() as (connection, directory):
        kinds = {new.kind for _, new in changed}
        areas = {kind: read_areas(connection, directory, (SITE,), kind) for kind in kinds}
        yield (
            {"kind": kind, "object": right.object, "action": right.action, **describe_reached(one)}
            for person in list_people(connection, directory, *areas.values())
            for old, new in changed
            for kind, right, less in (("gain", new, old), ("loss", old, new))
            for one in find_reached(areas[new.kind], person, right, less)
        )


def describe_reached(reached: Reached) -> Row:
    """Give the row about an area that somebody reaches."""
    return {
        "user_id": reached.user_id,
        "where": list(map(str, reached.area)),
        "except": [list(map(str, area)) for area in reached.exceptions],
        "roles": [
            {"role": one.role, "domain": str(one.domain), "lines": lines}
            for one, lines in reached.roles
        ],
    }


def show_people(rows: Iterable[Row], label: str) -> Iterator[str]:
    """Write a line for each row, and last how many people they are about."""
    count = 0
    for user_id, of_one in groupby(rows, itemgetter("user_id")):
        count += 1
        for row in of_one:
            verb = f" {VERBS[row['kind']]} {row['object']} {row['action']}" if "kind" in row else ""
            but = ", ".join(map(_show_area, row["except"]))
            roles = (
                f"{r['role']} in {r['domain']} ({', '.join(r['lines'])})" for r in row["roles"]
            )
            area = _show_area(row["where"]) + (f", except {but}" if but else "")
            yield f"{user_id}{verb}: {area}: {', '.join(roles)}"
    yield f"{label}: {count}"


def _show_area(steps: list[str]) -> str:
    return " of ".join(reversed(steps[1:] or steps))


def explain_held(
    table: DecisionTable, obj: ObjectType, user: str, group: str | None, member: str | None
) -> list[dict[str, Any]]:
    """Find where a user holds roles, and say of each whether it counts toward the object.

    Raises UsageError where the ids do not say which object is asked about.
    """
    of_member = obj is ObjectType.AI_MEMBER_SPEND
    if not _is_of_site(obj) and (not group or bool(member) is not of_member):
        which = "--group and --member say whose" if of_member else "--group alone says which"
        raise click.UsageError(f"a `{obj}` is asked about; {which}")
    parse = find_settings().id_type.parse
    asked = [parse(key) for key in (user, group, member) if key]
    assignments, found = run_on_database(lambda connection: _load(connection, obj, *asked))
    own_roles = [role for role, s in table.scopes.items() if s is Scope.USER and of_member]
    own = (Assignment(role, Domain(Scope.USER, asked[0])) for role in own_roles)
    return [
        {
            "role": assignment.role,
            "domain": str(assignment.domain),
            "counts": (why := find_reason_against(table, asked[0], assignment, found)) is None,
            "why": why,
        }
        for assignment in (*assignments, *own)
    ]


def _is_of_site(obj: ObjectType) -> bool:
    return EXAMPLES[obj].domain(Scope.ORGANIZATION) is None


def _load(
    connection: Connection, obj: ObjectType, user: Id, group: Id | None = None, *member: Id
) -> tuple[Iterable[Assignment], Any]:
    """Load what the user holds, and the object.

    Asks the host's directory inside a host. One that can't list all that a user holds
    (`load_assignments`) is asked for what it would report to a request about this object.
    """
    directory = find_directory()
    found: Any = EXAMPLES[obj]
    if group is None or _is_of_site(obj):
        subject = directory.load_subject(connection, user)
    else:
        subject, found = directory.load_group(connection, user, group)
    if member and found is not None:
        organization = found.organization_id
        subject, found = directory.load_member(connection, user, organization, *member)
    if found is None:
        raise NotFound("member" if member else "group")
    load_all = getattr(directory, "load_assignments", None)
    return load_all(connection, user) if load_all else subject.assignments, found
