"""`govbudget notices`: which thresholds of limits were crossed."""

from __future__ import annotations

from datetime import datetime
from itertools import takewhile

import click

from govbudget.cli.audit import TIME
from govbudget.cli.each_database import each_database
from govbudget.cli.environment import list_all, open_gov, require_known
from govbudget.cli.formats import format_option, print_answer
from govbudget.cli.host import find_settings
from govbudget.identity import OPERATOR
from govbudget.spend.notices import Notice, Notices


@click.group()
def notices() -> None:
    """Notices: the spend of a member has crossed a threshold of the limit."""


@notices.command("list")
@click.argument("organization")
@click.option("--since", help="Print notices from this day or time on.", **TIME)
@format_option("text", "json", "jsonl", "csv")
@each_database
def notices_list(organization: str, since: datetime | None, form: str) -> None:
    """Print the notices of ORGANIZATION (an id), the newest first.

    Amounts are micros (1 USD is 1,000,000). Each threshold of a limit is crossed once a member and
    month, and `id` stays the same: a loop that sends notices on keeps the ids that it has sent.
    Status 1 if the organization is not known and has no notice.
    """
    from govbudget.spend.answers import NoticeAnswer  # noqa: PLC0415 - with pydantic

    asked = find_settings().id_type.parse(organization)
    with open_gov() as gov, gov.unit(OPERATOR, atomic=True) as unit:
        grant = unit.authorize("read", organization=asked)
        found = list_all(grant, Notices.list, lambda one: one.id)
        if since is not None:
            found = takewhile(lambda one: one.created_at >= since, found)
        print_answer(form, map(_describe, found), map(_show, found), [*NoticeAnswer.model_fields])


@notices.command("sweep")
@click.option("--organization", help="An organization's id; without it: all of them.")
@each_database
def notices_sweep(organization: str | None) -> None:
    """Find what this month's spend has crossed by another limit, and print what is new.

    Usage reports what it crosses itself. A sweep compares what was spent with the limits as they
    are now: a budget that was lowered, another membership, an override that has ended. Run it again
    as often as you like: it finds each once. Inside a host it sends `threshold_crossed`. Status 1
    if the organization is not known.
    """
    asked = None if organization is None else find_settings().id_type.parse(organization)
    with open_gov() as gov, gov.unit(OPERATOR) as unit:
        found = Notices.sweep(unit.authorize("create", ledger=True), asked)
        if asked is not None and not found:
            require_known(unit, asked)
    for notice in found:
        click.echo(_show(notice))
    click.echo("1 crossing found" if len(found) == 1 else f"{len(found)} crossings found")


def _describe(notice: Notice) -> dict[str, object]:
    from govbudget.spend.answers import NoticeAnswer  # noqa: PLC0415 - with pydantic

    return NoticeAnswer.model_validate(notice).model_dump(mode="json")


def _show(notice: Notice) -> str:
    return (
        f"{notice.created_at:%Y-%m-%dT%H:%M:%SZ}  user {notice.user_id}: {notice.threshold} % of "
        f"{notice.limit_micros} micros in {notice.month}; spent {notice.spent_micros}"
    )
