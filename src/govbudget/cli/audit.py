"""`govbudget audit export`: the audit trail, for an auditor's own tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from itertools import takewhile
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import click

from govbudget.audit.entry import Entry
from govbudget.audit.store import Audit
from govbudget.cli.each_database import each_database
from govbudget.cli.environment import follow, open_gov, require_known
from govbudget.cli.formats import format_option, print_answer
from govbudget.cli.host import find_settings
from govbudget.identity import OPERATOR

RECEIPT = ("actor", "roles", "cause", "lines", "policy_digest", "request_id")
TYPES = (
    *("api_token", "group_member", "organization_member", "role_assignment"),
    *("group_ai_budget", "member_ai_override", "ai_model_price", "ai_usage"),
    "ai_closing",
)
COLUMNS = ("at", "object_type", "object_id", "before", "after", *RECEIPT, "id")


@click.group()
def audit() -> None:
    """The audit trail: what changed, by whom, allowed by which lines."""


def _read_time(text: str) -> datetime:
    """Give the time that is meant; without a zone, it is in that of the setting."""
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        reason = "is not a time; write a day, 2026-11-01, or a time, 2026-11-01T08:00:00Z"
        raise click.BadParameter(f"`{text}` {reason}") from None
    return found if found.tzinfo else found.replace(tzinfo=ZoneInfo(find_settings().time_zone))


TIME: dict[str, Any] = {"metavar": "TIME", "type": _read_time}
SINCE_HELP = "Print entries from this day or time on. Days are in GOVBUDGET_TIME_ZONE."
UNTIL_HELP = "Print entries before this day or time."


@audit.command("export")
@click.option("--organization", help="An organization's id. Without it: the entries of the site.")
@click.option("--since", help=SINCE_HELP, **TIME)
@click.option("--until", help=UNTIL_HELP, **TIME)
@click.option("--type", "types", multiple=True, type=click.Choice(TYPES), help="Only this type.")
@format_option("jsonl", "csv")
@each_database
def audit_export(organization: str | None, types: Sequence[str], form: str, **span: Any) -> None:  # noqa: ANN401 - times, or None
    """Print every entry, the newest first.

    Without --organization it prints the entries of the site: prices, site roles, tokens. Status 1
    if the organization has no entry and no group.
    """
    with open_gov() as gov, gov.unit(OPERATOR, atomic=True) as unit:
        read: Callable[..., Sequence[Entry]]
        if organization is None:
            read = partial(Audit.list_site, unit.authorize("update", prices=True))
        else:
            asked = gov.settings.id_type.parse(organization)
            read = partial(Audit.list, unit.authorize("update", organization=asked))
        # Also where nothing is asked about an organization: before a header is printed.
        if not read(limit=1) and organization is not None:
            require_known(unit, asked)
        until = span["until"]
        start = None if until is None else (until, UUID(int=0))
        entries = follow(read, lambda entry: (entry.at, entry.id), start)
        if (since := span["since"]) is not None:
            entries = takewhile(lambda entry: entry.at >= since, entries)
        rows = (_flatten(entry) for entry in entries if not types or entry.object_type in types)
        print_answer(form, rows, columns=COLUMNS)


def _flatten(entry: Entry) -> dict[str, Any]:
    facts = {**entry.receipt, **asdict(entry), "at": entry.at.isoformat(), "id": str(entry.id)}
    return {name: facts.get(name) for name in COLUMNS}
