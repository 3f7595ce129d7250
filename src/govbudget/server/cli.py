"""`govbudget directory` and `govbudget token`: who is there, and who may call the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import filterfalse, starmap
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

import click
import sqlalchemy as sa

from govbudget.cli import NOT_SO, OK, NotHere
from govbudget.cli.each_database import each_database, find_turn
from govbudget.cli.environment import (
    open_gov,
    run_everywhere,
    run_everywhere_as_operator,
    run_on_database,
    show_done,
)
from govbudget.cli.formats import format_option, print_answer
from govbudget.cli.host import find_settings
from govbudget.cli.people import open_people
from govbudget.db.tables import require_own_tables
from govbudget.db.unit import Unit
from govbudget.directory.people import Idle, find_idle
from govbudget.errors import InvalidInput
from govbudget.server.names import find_names
from govbudget.server.tokens import MAX_DAYS, BearerTokens, make_secret
from govbudget.statements import list_ungoverned

if TYPE_CHECKING:
    from govbudget.server.directory_file import RowChange


@click.group()
def directory() -> None:
    """Organizations, users, groups, memberships and roles."""


@directory.command("load")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
def directory_load(file: BinaryIO, *, dry_run: bool) -> None:
    """Make organizations, users, groups, members and roles equal to FILE (JSON, `-`: stdin).

    FILE is complete for the organizations that it names, and for the roles of the site: what it
    does not list there is removed, except users. Prints what it added, changed and removed. If an
    entry is wrong, it names the entry and loads nothing. "The directory file" in the reference has
    the format and an example.
    """
    from govbudget.server.directory_file import ADDED, CHANGED, REMOVED, load_directory

    content, tables = file.read(), require_own_tables(find_settings().layout)
    added, elsewhere = set[UUID](), set[UUID]()

    def load(unit: Unit) -> list[RowChange]:
        with unit.connection.begin_nested() as savepoint:
            turn = find_turn()
            is_here = None if turn is None else turn.has
            scopes = unit.table.scopes
            changes = load_directory(unit.connection, tables, content, scopes, is_here)
            if turn is not None:
                stored = unit.connection.scalars(sa.select(tables.organizations.c.id))
                elsewhere.update(filterfalse(turn.has, stored))
            if dry_run:
                savepoint.rollback()
        added.update(one.row["id"] for one in changes if one.verb == ADDED and "id" in one.row)
        _refuse_twins(added & elsewhere)
        return changes

    def show(changes: list[RowChange]) -> Iterator[str]:
        yield from map(str, changes)
        counts = Counter(change.verb for change in changes)
        summary = ", ".join(f"{counts[verb]} {verb}" for verb in (ADDED, CHANGED, REMOVED))
        yield summary + (" (dry run: nothing was changed)" if dry_run else "")

    show_done(run_everywhere_as_operator(load), show)


def _refuse_twins(twins: set[UUID]) -> None:
    """Refuse organizations that are added to one database while another one has them."""
    if twins:
        raise InvalidInput(
            f"the organization `{min(twins)}` is in another database than its slot, and would "
            "begin anew in this one, without its limits; move its rows, or correct the slots of "
            "the databases; nothing was loaded"
        )


@directory.command("find")
@click.argument("name")
@format_option("text", "json")
@each_database
def directory_find(name: str, form: str) -> None:
    """Print the ids of the users, groups and organizations whose name contains NAME.

    Other commands take ids. An id as NAME gives its name. Upper and lower case are the same here.
    Status 1 if there is none.
    """
    tables = require_own_tables(find_settings().layout)
    found = run_on_database(lambda connection: find_names(connection, tables, name))
    if not found:
        raise NotHere(f"no user, group or organization has `{name}` in its name, or as its id")
    print_answer(form, [item._asdict() for item in found], map(str, found))


@directory.command("check")
@format_option("text", "json")
@each_database
def directory_check(form: str) -> int:
    """Print every stored assignment that counts for nothing, and why; status 1 on any.

    These count for nothing: a role that the policy does not know, that is held at another scope
    than its lines name, or in an organization or group that does not exist; a member of a group who
    is not in its organization; an override for a group that its user is not in. Inside a host it
    asks the host's directory.
    """
    with open_gov() as gov, open_people() as (connection, directory):
        found = list(find_idle(connection, directory, gov.policy.table))
        for name, statement in list_ungoverned().items():
            if name.endswith(".list_idle"):
                found += starmap(Idle, gov.execute(connection, statement))
    answer = {"policy_digest": gov.policy.digest, "findings": list(map(asdict, found))}
    text = list(map(str, found)) or ["no findings: every stored assignment counts"]
    print_answer(form, answer, text)
    return NOT_SO if found else OK


@click.group()
def token() -> None:
    """Bearer tokens for the stand-alone server."""


@token.command("create")
@click.argument("user")
@click.option(
    "--days", type=click.IntRange(1, MAX_DAYS), default=90, help="How many days it is valid."
)
def token_create(user: str, days: int) -> None:
    """Print a new token for USER (an id), and nothing else. It can't be shown again.

    Tokens that expired more than 30 days ago are deleted; the audit trail keeps their entries.
    """
    store, secret, user_id = _find_store(), make_secret(), find_settings().id_type.parse(user)
    done = run_everywhere(lambda connection: store.create(connection, user_id, days, secret))
    click.echo(secret)
    if slots := list(filter(None, done)):
        click.echo(f"made in the databases {' and '.join(slots)}", err=True)


def _find_store() -> BearerTokens:
    return BearerTokens(require_own_tables(find_settings().layout))


@token.command("list")
@each_database
def token_list() -> None:
    """List the tokens: id, state, last day, user. The tokens themselves are not stored."""
    for item in run_on_database(_find_store().list):
        until = item.expires_at.date().isoformat()
        click.echo(f"{item.id}  {item.state:<7}  {until}  {item.user_id}  {item.user_name}")


@token.command("revoke")
@click.argument("token_id", metavar="ID", type=click.UUID)
@each_database
def token_revoke(token_id: UUID) -> None:
    """Revoke the token with this ID (see `token list`). Status 1: no valid token has it.

    Where there are several databases, it is revoked in each that answers.
    """
    if not run_on_database(lambda c: _find_store().revoke(c, token_id)):
        raise NotHere(f"no live token `{token_id}`; see `govbudget token list`")
    click.echo(f"revoked {token_id}")
