"""`govbudget audit export`: the audit trail, for an auditor's own tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from govbudget.audit.entry import Entry
from govbudget.audit.store import AuditStore
from govbudget.cli.formats import format_option, print_rows
from govbudget.cli.target import Operator, open_as_operator
from govbudget.errors import Forbidden
from govbudget.identity import Action, Organization, PriceBook

PAGE = 1000
RECEIPT = ("actor", "roles", "cause", "lines", "policy_digest", "request_id")
COLUMNS = ("at", "object_type", "object_id", "before", "after", *RECEIPT, "id")


@click.group()
def audit() -> None:
    """The audit trail: what changed, by whom, allowed by which lines."""


@audit.command("export")
@click.option("--organization", help="An organization's id; without it: entries of the site.")
@format_option("jsonl", "csv")
def audit_export(organization: str | None, form: str) -> None:
    """Print every entry, the newest first.

    Without an organization those of the site: prices, site roles, tokens. Status 1 where there is
    neither an entry nor a group of the organization.
    """
    with open_as_operator() as operator:
        place = None if organization is None else Organization(operator.parse_id(organization))
        read = _authorize(operator, place)
        page = read()
        if not page and place is not None:
            operator.require_known(place)
        print_rows(form, COLUMNS, map(_flatten, _follow(page, read)))


def _authorize(operator: Operator, place: Organization | None) -> Callable[..., Sequence[Entry]]:
    """Give the function that reads a page of entries."""
    budget_object = operator.settings.budget_object
    store = AuditStore(operator.tables, budget_object)
    if place is None:
        book = PriceBook()
        grant = operator.authorize(Action.UPDATE, book)
        return partial(store.list_site, operator.connection, grant, book, limit=PAGE)
    subject, policy = operator.subject, operator.policy
    leave = policy.authorize_list(subject, Action.UPDATE, place, budget_object)
    if not leave.decision.allowed:  # an empty export would look as if nothing had changed
        raise Forbidden(Action.UPDATE, leave.lines, ())
    return partial(store.list, operator.connection, leave, place, limit=PAGE)


def _follow(page: Sequence[Entry], read: Callable[..., Sequence[Entry]]) -> Iterator[Entry]:
    while page:
        yield from page
        page = read(after=(page[-1].at, page[-1].id))


def _flatten(entry: Entry) -> dict[str, Any]:
    facts = {**entry.receipt, **asdict(entry), "at": entry.at.isoformat(), "id": str(entry.id)}
    return {name: facts.get(name) for name in COLUMNS}
