"""`govbudget audit export`: the audit trail, for an auditor's own tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from govbudget.audit.entry import Entry
from govbudget.audit.store import Audit
from govbudget.cli.environment import follow, open_gov, require_known
from govbudget.cli.formats import format_option, print_answer
from govbudget.identity import OPERATOR

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
    with open_gov() as gov, gov.unit(OPERATOR, atomic=True) as unit:
        read: Callable[..., Sequence[Entry]]
        if organization is None:
            read = partial(Audit.list_site, unit.authorize("update", prices=True), limit=PAGE)
        else:
            asked = gov.settings.id_type.parse(organization)
            read = partial(Audit.list, unit.authorize("update", organization=asked), limit=PAGE)
        page = read()
        if not page and organization is not None:
            require_known(unit, asked)
        entries = follow(page, read, lambda entry: (entry.at, entry.id))
        print_answer(form, map(_flatten, entries), columns=COLUMNS)


def _flatten(entry: Entry) -> dict[str, Any]:
    facts = {**entry.receipt, **asdict(entry), "at": entry.at.isoformat(), "id": str(entry.id)}
    return {name: facts.get(name) for name in COLUMNS}
