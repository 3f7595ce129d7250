"""`govbudget budgets`: the limits and overrides of an organization as one file."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from operator import attrgetter
from typing import Any, BinaryIO, TypeAlias

import click
from pydantic import TypeAdapter

from govbudget.budgets.store import Budgets
from govbudget.cli import NotSo
from govbudget.cli.each_database import each_database, in_database_of
from govbudget.cli.environment import list_all, require_known, run_as_operator
from govbudget.cli.formats import print_answer
from govbudget.cli.host import find_settings
from govbudget.db.unit import Unit
from govbudget.errors import FieldError, InvalidInput, NotFound
from govbudget.identity import Id
from govbudget.spend.bodies import OverrideBody
from govbudget.spend.errors import NotAMember
from govbudget.spend.overrides import Overrides, wait_for_others
from govbudget.strict_json import parse_json
from govbudget.text import write_id, write_time, write_value
from govbudget.web.bodies import Body, BudgetBody, IdField

SET, CHANGE, CLEAR, UNCHANGED = "set", "changed", "cleared", "unchanged"
# The lists of the file, and what an entry says. An owner, the first column, is in a list once.
COLUMNS = {
    "limits": ("group_id", "spend_limit_micros"),
    "overrides": ("user_id", "group_id", "spend_limit_micros", "expires_at", "reason"),
}
Row: TypeAlias = dict[str, Any]
# A list and an owner.
Key: TypeAlias = tuple[str, Any]


class LimitEntry(BudgetBody):
    """What each member of a group may spend in a month."""

    group_id: IdField


class OverrideEntry(OverrideBody):
    """What one member may spend in a month, whatever the groups' limits say."""

    user_id: IdField


class BudgetsFile(Body):
    """The whole file. Both lists are required, since an absent one would clear all of its kind."""

    organization_id: IdField
    limits: list[LimitEntry]
    overrides: list[OverrideEntry]


FILE = TypeAdapter(BudgetsFile)


class _DryRun(Exception):
    """Ends a unit of work: what it changed is rolled back, and no signal is sent."""


@click.group()
def budgets() -> None:
    """The limits and overrides of an organization, as one file that can be reviewed."""


@budgets.command("export")
@click.argument("organization")
@each_database
def budgets_export(organization: str) -> None:
    """Print the limits and overrides of ORGANIZATION (an id) as `budgets apply` reads them.

    Sorted by id, overrides that have ended among them. Status 1: it is not known.
    """
    asked = find_settings().id_type.parse(organization)
    rows = run_as_operator(lambda unit: _read(unit, asked))
    lists: dict[str, list[Row]] = {name: [] for name in COLUMNS}
    for key in sorted(rows):
        said = {name: value for name, value in rows[key].items() if value is not None}
        lists[key[0]].append({name: write_value(value) for name, value in said.items()})
    print_answer("json", {"organization_id": write_id(asked), **lists})


@budgets.command("apply")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
def budgets_apply(file: BinaryIO, *, dry_run: bool) -> None:
    """Make the limits and overrides of an organization equal to FILE (JSON, `-`: stdin).

    FILE is complete for its organization: what it does not list is cleared. `budgets export` writes
    it. Prints each change and how many there are. They are made all or nothing. A dry run prints
    and refuses the same. Status 1: FILE names an organization, a group or a member that is not
    there. Status 2: FILE itself is wrong.
    """
    content = parse_json(file.read(), FILE, find_settings().id_type)
    organization, wanted = content.organization_id, _list_rows(content)

    before: dict[Key, Row] = {}
    changes: dict[Key, str] = {}

    def apply(unit: Unit) -> None:
        nonlocal before, changes
        require_known(unit, organization)
        wait_for_others(unit.authorize("update", organization=organization))
        before = _read(unit, organization)
        changes = {key: _compare(before.get(key), wanted.get(key)) for key in before | wanted}
        for key, verb in changes.items():
            if verb != UNCHANGED:
                _make(unit, organization, key, wanted)
        if dry_run:
            raise _DryRun

    with in_database_of(str(organization)), suppress(_DryRun):
        run_as_operator(apply)
    for key in sorted(changes):
        if changes[key] != UNCHANGED:
            click.echo(_show(key, before.get(key), wanted.get(key)))
    counts = Counter(changes.values())
    click.echo(", ".join(f"{counts[verb]} {verb}" for verb in (SET, CHANGE, CLEAR, UNCHANGED)))


def _read(unit: Unit, organization: Id) -> dict[Key, Row]:
    """Read what is stored; raise NotSo where the organization is not known."""
    grant, found = unit.authorize("read", organization=organization), {}
    lists: dict[str, Any] = {"limits": Budgets.list, "overrides": Overrides.list}
    for name, read in lists.items():
        find_owner = attrgetter(COLUMNS[name][0])
        for one in list_all(grant, read, find_owner):
            found[name, find_owner(one)] = _take(name, one)
    return found


def _take(name: str, one: object) -> Row:
    return {column: getattr(one, column) for column in COLUMNS[name]}


def _list_rows(content: BudgetsFile) -> dict[Key, Row]:
    """List the rows of a file in its order; raise InvalidInput for an owner that is there twice."""
    rows: dict[Key, Row] = {}
    errors = []
    for name, (owner, *_) in COLUMNS.items():
        for index, entry in enumerate(getattr(content, name)):
            key = name, getattr(entry, owner)
            if key in rows:
                sentence = f"`{key[1]}` is listed more than once; keep one"
                errors.append(FieldError(f"/{name}/{index}/{owner}", sentence))
            rows[key] = _take(name, entry)
    if errors:
        raise InvalidInput("entries are listed more than once; nothing was changed", errors)
    return rows


def _compare(before: Row | None, after: Row | None) -> str:
    if before == after:
        return UNCHANGED
    return SET if before is None else CLEAR if after is None else CHANGE


def _make(unit: Unit, organization: Id, key: Key, wanted: dict[Key, Row]) -> None:
    """Make one change; raise NotSo where the entry names what is not there."""
    (name, owner), row = key, wanted.get(key)
    try:
        if name == "limits":
            _make_limit(unit, organization, owner, row)
        else:
            _make_override(unit, organization, owner, row)
    except (NotFound, NotAMember):
        if row is None:  # somebody else has cleared it
            return
        reason = f"no group `{owner}` is known in the organization"
        if name == "overrides":
            reason = f"the user `{owner}` is not a member of the group `{row['group_id']}`"
        index = [one for one in wanted if one[0] == name].index(key)
        raise NotSo(f"/{name}/{index}: {reason}; nothing was changed") from None


def _make_limit(unit: Unit, organization: Id, group: Id, row: Row | None) -> None:
    grant = unit.authorize("update", group=group)
    if grant.object.organization_id != organization:
        raise NotFound("group")
    if row is None:
        Budgets.delete(grant)
    else:
        Budgets.set(grant, row["spend_limit_micros"])


def _make_override(unit: Unit, organization: Id, user: Id, row: Row | None) -> None:
    grant = unit.authorize("update", organization=organization)
    if row is None:
        Overrides.delete(grant, user)
        return
    _, group, limit, end, reason = row.values()
    Overrides.set(grant, user, group, limit, expires_at=end, reason=reason, may_be_past=True)


def _show(key: Key, before: Row | None, after: Row | None) -> str:
    """Say one change in one line."""
    what = "limit of group" if key[0] == "limits" else "override of user"
    if before is None or after is None:
        verb, row = ("set", after) if before is None else ("clear", before)
        return f"{verb} {what} {key[1]}: {_describe(row)}"
    return f"change {what} {key[1]} from {_describe(before)} to {_describe(after)}"


def _describe(row: Row | None) -> str:
    text = f"{row['spend_limit_micros']} micros" if row else ""
    if row and "user_id" in row:
        text += f" for group {row['group_id']}"
        end, reason = row["expires_at"], row["reason"]
        text += f" until {write_time(end)}" if end else ""
        text += f" because {json.dumps(reason)}" if reason else ""
    return text
