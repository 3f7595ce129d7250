"""`govbudget audit export`: the audit trail, for an auditor's own tools."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

import click
import sqlalchemy as sa

from govbudget.audit.store import AuditStore
from govbudget.cli import NOT_SO
from govbudget.cli.spreadsheet import write_csv
from govbudget.cli.target import Target, find_installation, find_policy, open_target, operator
from govbudget.directory.sql import own_directory
from govbudget.errors import Forbidden
from govbudget.identity import Action, Organization, PriceBook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from govbudget.audit.entry import Entry
    from govbudget.authz.policy import Policy

PAGE = 1000
RECEIPT = ("actor", "roles", "cause", "lines", "policy_digest", "request_id")
COLUMNS = ("at", "object_type", "object_id", "before", "after", *RECEIPT, "id")


@click.group()
def audit() -> None:
    """The audit trail: what changed, by whom, allowed by which lines."""


@audit.command("export")
@click.option("--organization", help="An organization's id; without it: entries of the site.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl")
@click.pass_context
def audit_export(ctx: click.Context, organization: str | None, form: str) -> None:
    """Print every entry, the newest first; CSV is safe to open in a spreadsheet.

    Status 1 where there is neither an entry nor a group of the organization.
    """
    policy = find_policy()
    with open_target() as target, target.engine.connect() as connection:
        place = None
        if organization is not None:
            place = Organization(target.settings.id_type.parse(organization))
        entries = _read_all(target, connection, policy, place)
        first = next(entries, None)
        if first is None and place is not None and not _is_known(target, connection, place):
            click.echo(f"govbudget: no organization `{organization}` is known here", err=True)
            ctx.exit(NOT_SO)
        if form == "csv":
            click.echo(write_csv(COLUMNS), nl=False)
        for entry in chain([first] if first else [], entries):
            row = _flatten(entry)
            if form == "csv":
                click.echo(write_csv(row[name] for name in COLUMNS), nl=False)
            else:
                click.echo(json.dumps(row))


def _is_known(target: Target, connection: Connection, place: Organization) -> bool:
    """Say whether the organization has a group: each has one, for Everyone, in our own tables."""
    home = find_installation()
    if home is not None:
        directory = home.directory
    elif target.settings.layout.owns_directory:
        directory = own_directory(target.tables)
    else:
        return False  # the host's tables can't be asked without the host
    groups = directory.groups
    wanted = sa.select(groups.c.id).where(groups.c.organization_id == place.id)
    return bool(connection.scalar(sa.select(wanted.exists())))


def _read_all(
    target: Target, connection: Connection, policy: Policy, place: Organization | None
) -> Iterator[Entry]:
    """Read page by page, as the operator: whoever has the database holds every site role."""
    store = AuditStore(target.tables, target.settings.budget_object)
    connection.begin()
    subject, after = operator(policy, connection), None
    while True:
        if place is None:
            book = PriceBook()
            grant = policy.authorize(subject, Action.UPDATE, book)
            page = store.list_site(connection, grant, book, limit=PAGE, after=after)
        else:
            leave = policy.authorize_list(
                subject, Action.UPDATE, place, target.settings.budget_object
            )
            if not leave.decision.allowed:  # an empty export would look as if nothing had changed
                raise Forbidden(Action.UPDATE, leave.lines, ())
            page = store.list(connection, leave, place, limit=PAGE, after=after)
        yield from page
        if len(page) < PAGE:
            return
        after = (page[-1].at, page[-1].id)


def _flatten(entry: Entry) -> dict[str, Any]:
    return {
        "at": entry.at.isoformat(),
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "before": entry.before,
        "after": entry.after,
        **{name: entry.receipt.get(name) for name in RECEIPT},
        "id": str(entry.id),
    }
