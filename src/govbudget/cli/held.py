"""The roles of a user in the database, for `policy explain --user`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
from sqlalchemy import Connection

from govbudget.authz.evaluator import EXAMPLES
from govbudget.authz.table import DecisionTable
from govbudget.cli.environment import find_directory, run_on_database
from govbudget.cli.place import find_settings
from govbudget.errors import NotFound
from govbudget.identity import Assignment, Domain, Id, Object, ObjectType, Scope
from govbudget.review.explain import find_reason_against


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
) -> tuple[Iterable[Assignment], Object]:
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
        place = found.organization_id
        subject, found = directory.load_member(connection, user, place, *member)
    if found is None:
        raise NotFound("member" if member else "group")
    load_all = getattr(directory, "load_assignments", None)
    return load_all(connection, user) if load_all else subject.assignments, found
