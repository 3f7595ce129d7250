"""`govbudget audit export`: the audit trail, for an auditor's own tools."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import click

from govbudget.audit.store import AuditStore
from govbudget.cli.target import Target, find_policy, open_target, operator
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
def audit_export(organization: str | None, form: str) -> None:
    """Print every entry, the newest first; CSV is safe to open in a spreadsheet."""
    policy = find_policy()
    if form == "csv":
        click.echo(_write_csv(COLUMNS), nl=False)
    with open_target() as target, target.engine.connect() as connection:
        for entry in _read_all(target, connection, policy, organization):
            row = _flatten(entry)
            if form == "csv":
                click.echo(_write_csv([_defuse(row[name]) for name in COLUMNS]), nl=False)
            else:
                click.echo(json.dumps(row))


def _read_all(
    target: Target, connection: Connection, policy: Policy, organization: str | None
) -> Iterator[Entry]:
    """Read page by page, as the operator: whoever has the database holds every site role."""
    store = AuditStore(target.tables, target.settings.budget_object)
    connection.begin()
    subject, after = operator(policy, connection), None
    while True:
        if organization is None:
            book = PriceBook()
            grant = policy.authorize(subject, Action.UPDATE, book)
            page = store.list_site(connection, grant, book, limit=PAGE, after=after)
        else:
            place = Organization(target.settings.id_type.parse(organization))
            leave = policy.authorize_list(
                subject, Action.UPDATE, place, target.settings.budget_object
            )
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


def _write_csv(row: Any) -> str:  # noqa: ANN401 - what csv takes
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue()


def _defuse(value: object) -> str:
    """Write a value so that no spreadsheet takes it for a formula."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
