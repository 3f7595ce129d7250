"""`govbudget spend`: what was spent, by whom, under which limit, and the proof of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from govbudget.cli import NOT_SO, OK
from govbudget.cli.environment import open_gov, require_known, run_as_operator
from govbudget.cli.formats import format_option, print_answer
from govbudget.cli.place import find_settings
from govbudget.cli.prices import prices
from govbudget.db.unit import Unit
from govbudget.identity import Id
from govbudget.money import TOKENS, round_up_to_micros
from govbudget.settings import MAX_DAYS, MIN_CLOSE_AFTER_DAYS
from govbudget.spend.answers import MemberSpendAnswer
from govbudget.spend.closing import close_month, prove_file, verify_closings
from govbudget.spend.gaps import PriceGap, list_gaps
from govbudget.spend.reports import MemberSpend, Period, Reports, Spender
from govbudget.spend.usage import END, FIRST, LimitSource
from govbudget.spend.verify import Verification, verify_spend
from govbudget.text import write_id, write_time

LEVELS = ("organization", "group", "user")
SHOWN = ("cost_micros", "calls", "unpriced_calls")


@click.group()
def spend() -> None:
    """What was spent: the ledger, and what is added up from it."""


FILE = click.Path(dir_okay=False, path_type=Path)


def _read_month(_ctx: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    """Give a time that is in the month in every time zone."""
    if text is None:
        return None
    beside = timedelta(days=31)  # in which the first and the last call may be, in some time zone
    with suppress(ValueError):
        middle = datetime.fromisoformat(f"{text}-15T00:00:00+00:00")
        if FIRST - beside <= middle < END + beside:
            return middle
    message = f"`{text}` is not a month; write YYYY-MM"
    raise click.BadParameter(message)


@spend.command("report")
@click.option("--organization", required=True, help="An organization's id.")
@click.option(
    "--month",
    metavar="YYYY-MM",
    callback=_read_month,
    help="A calendar month of GOVBUDGET_TIME_ZONE; without it: this one.",
)
@format_option("text", "csv", "json")
def spend_report(organization: str, month: datetime | None, form: str) -> None:
    """Print what the organization spent in a month: in all, by group, by user.

    Costs are micros (1 USD is 1,000,000), each rounded up from the exact sum of the ledger, which
    CSV and JSON give too: `cost_picos` (1 micro is 1,000,000). Their rows have a `level`:
    `organization`, `group` or `user`; add up one level only. Unpriced calls are those whose cost is
    not known. Status 1 where there is neither spend nor a group of the organization.
    """
    asked = find_settings().id_type.parse(organization)

    def report(unit: Unit) -> tuple[Period, Sequence[Spender]]:
        found = Reports.list_organization(unit.authorize("read", organization=asked), at=month)
        if not found[1]:
            require_known(unit, asked)
        return found

    period, spenders = run_as_operator(report)
    middle = period.start.astimezone(UTC) + timedelta(days=14)
    rows = [
        {"month": f"{middle:%Y-%m}", "organization_id": write_id(asked), **row}
        for row in _add_up(spenders)
    ]
    print_answer(form, rows, _lay_out(rows), tuple(rows[0]))


def _add_up(spenders: Sequence[Spender]) -> Iterator[dict[str, Any]]:
    """Give the row of the organization, and of each group its own and those of its users."""
    yield _sum_up("organization", spenders)
    for group_id, found in groupby(spenders, key=lambda one: one.group_id):
        of_group = list(found)
        yield _sum_up("group", of_group, group_id)
        for one in of_group:
            yield _sum_up("user", [one], group_id, one.user_id)


def _sum_up(
    level: str, spenders: Sequence[Spender], group_id: Id | None = None, user_id: Id | None = None
) -> dict[str, Any]:
    cost = sum(one.sum.cost_picos for one in spenders)
    return {
        "level": level,
        "group_id": None if group_id is None else write_id(group_id),
        "user_id": None if user_id is None else write_id(user_id),
        "cost_micros": round_up_to_micros(cost),
        "cost_picos": cost,
        "calls": sum(one.sum.calls for one in spenders),
        "unpriced_calls": sum(one.sum.unpriced_calls for one in spenders),
    }


def _lay_out(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Write the rows under each other, groups within the organization and users within groups."""
    lines = [(rows[0]["month"], *SHOWN)]
    for row in rows:
        level = row["level"]
        name = row[f"{level}_id"]
        label = f"{'  ' * LEVELS.index(level)}{level} {'(none)' if name is None else name}"
        lines.append((label, *(row[figure] for figure in SHOWN)))
    width = max(len(label) for label, *_ in lines)
    for label, cost, calls, unpriced in lines:
        yield f"{label:<{width}}  {cost:>14}  {calls:>7}  {unpriced:>14}"


@spend.command("member")
@click.argument("organization")
@click.argument("user")
@format_option("text", "json")
def spend_member(organization: str, user: str, form: str) -> None:
    """Print which limit holds for USER in ORGANIZATION (ids) and why, and the spend of this month.

    What is left is the limit less what is spent and what calls under way hold; it is whole again
    when the month ends. Amounts are micros (1 USD is 1,000,000). Status 1 where the user is not a
    member of the organization.
    """
    parse = find_settings().id_type.parse
    asked = parse(organization), parse(user)
    found = run_as_operator(
        lambda unit: Reports.member(unit.authorize("read", member=asked)),
        f"`{user}` is not a member of the organization `{organization}`",
    )
    answer = MemberSpendAnswer.model_validate(found).model_dump(mode="json")
    facts = {**answer, "left_micros": found.left_micros}
    limit, left = facts["spend_limit_micros"], facts["left_micros"]
    text = (
        f"limit   {'none' if limit is None else f'{limit} micros a month'}: {_explain(found)}",
        f"spent   {facts['current_spend_micros']} micros",
        f"held    {facts['held_micros']} micros",
        f"left    {'no limit' if left is None else f'{left} micros'}",
        f"resets  {facts['period_end']}",
    )
    print_answer(form, facts, text)


def _explain(spend: MemberSpend) -> str:
    if spend.limit_source is None:
        return "no group that the user belongs to has a budget"
    if spend.limit_source is LimitSource.OVERRIDE:
        until = spend.limit_expires_at
        end = "" if until is None else f" until {write_time(until)}"
        return f"an override{end}, which counts for the group {spend.group_id}"
    return f"the budget of the group {spend.group_id}"


@spend.command("verify")
@click.option("--organization", help="An organization's id; without it: all of them.")
@click.option("--with", "file", type=FILE, help="Prove a file of `spend close`, too.")
def spend_verify(organization: str | None, file: Path | None) -> int:
    """Prove that ledger, rollups, counters and holds agree.

    Of a closed month it compares rollups and counters with what was stored when it was closed, and
    with FILE: its digest, its rows, and their sums with the rollups. Prints a line for each
    disagreement, and has status 1 then. It locks nothing, so it may run at any time.
    """
    asked = None if organization is None else find_settings().id_type.parse(organization)

    def verify(unit: Unit) -> tuple[Verification, list[str]]:
        seen = verify_spend(unit.authorize("create", ledger=True), asked)
        grant = unit.authorize("update", ledger=True)
        closed = list(verify_closings(grant, asked))
        return seen, closed + ([] if file is None else list(prove_file(grant, file)))

    seen, closed = run_as_operator(verify)
    findings = seen.findings + closed
    for finding in findings:
        click.echo(finding)
    if findings:
        return NOT_SO
    click.echo(f"{seen.members} members, {seen.calls} calls: ledger = rollups = counters")
    return OK


@spend.command("close")
@click.argument("month", metavar="MONTH", callback=_read_month)
@click.option("--to", "file", type=FILE, required=True, help="The file that the month is kept in.")
@click.option(
    "--after-days",
    type=click.IntRange(MIN_CLOSE_AFTER_DAYS, MAX_DAYS),
    help="How many days ago it ended at least; without it: GOVBUDGET_CLOSE_AFTER_DAYS.",
)
def spend_close(month: datetime, file: Path, after_days: int | None) -> None:
    """Write the calls and holds of MONTH (YYYY-MM) to FILE, and take them out of the database.

    Sums, reports and limits stay as they are. Keep FILE: it is the only record of these calls.
    Months are closed in their order. If it is interrupted, run it again with the same FILE: nothing
    is lost. It needs a role that may delete from the tables, such as their owner.

    From then on, usage that comes for the month counts in the month in which it comes, and its row
    says so. An event of the month that is sent again is recorded again, as its id is not known any
    more; so let nothing replay what is older than --after-days. Its holds are not found, and its
    calls can't be corrected.
    """
    with open_gov() as gov:
        days = gov.settings.close_after_days if after_days is None else after_days
        done = close_month(gov, month.date().replace(day=1), file, days)
    click.echo(f"{done.month:%Y-%m}: {done.ai_usage} calls, {done.ai_holds} holds in {file}")
    click.echo(f"sha256 {done.sha256}")


@prices.command("gaps")
@format_option("text", "json", "csv")
def prices_gaps(form: str) -> None:
    """List the models that were used without a price, the most used first.

    Calls whose cost is not wholly known: how many, their tokens by category, which of these had no
    price, and which prices are missing now. A price that is set later is for later calls: these
    stay as they were recorded.
    """
    gaps = run_as_operator(lambda unit: list_gaps(unit.authorize("update", prices=True)))
    columns = [field.name for field in fields(PriceGap)]
    print_answer(form, map(asdict, gaps), _show_gaps(gaps), columns)


def _show_gaps(gaps: Sequence[PriceGap]) -> Iterator[str]:
    for gap in gaps:
        counts = {name.removesuffix("_tokens"): getattr(gap, name) for name in TOKENS}
        counts |= gap.further_tokens
        tokens = ", ".join(f"{count} {unit}" for unit, count in counts.items())
        yield (
            f"{gap.provider}/{gap.model}: {gap.calls} calls stay unpriced; tokens: {tokens};"
            f" had no price: {', '.join(gap.unpriced)};"
            f" missing now: {', '.join(gap.missing) or 'none'}"
        )
    if not gaps:
        yield "every call that was recorded has a price"
