"""`govbudget spend`: what was spent, by whom, under which limit, and the proof of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from govbudget.budgets.budget import LimitSource
from govbudget.cli import NOT_SO, OK
from govbudget.cli.each_database import each_database, name_file
from govbudget.cli.environment import open_gov, require_known, run_as_operator
from govbudget.cli.formats import format_option, print_answer, reading, wrong_usage
from govbudget.cli.host import find_settings
from govbudget.db.retries import T
from govbudget.db.unit import Unit
from govbudget.identity import OPERATOR, Id
from govbudget.settings import MAX_DAYS, MIN_CLOSE_AFTER_DAYS
from govbudget.spend.closing import close_month, verify_closings
from govbudget.spend.closing_file import prove_file
from govbudget.spend.export import COLUMNS, list_closed, read_ledger
from govbudget.spend.report import (
    FIRST_DAY,
    LAST_DAY,
    Key,
    Line,
    Question,
    Sum,
    ask,
    describe_line,
    find_month,
    list_columns,
    read_day,
    read_keys,
    span_month,
)
from govbudget.spend.this_month import MemberSpend, Reports
from govbudget.spend.verify import Verification, verify_spend
from govbudget.text import write_time

ROWS_AT_ONCE = 1000
SHOWN = ("cost_micros", "calls", "unpriced_calls")


@click.group()
def spend() -> None:
    """What was spent: the ledger, and what is added up from it."""


FILE = click.Path(dir_okay=False, path_type=Path)


def read_month(text: str) -> date:
    """Give the first day of a month in which calls may be; ValueError: it is not one."""
    with suppress(ValueError):
        found = read_day(f"{text}-01")
        if FIRST_DAY <= found < LAST_DAY:
            return found
    raise ValueError(f"`{text}` is not a month; write YYYY-MM")


def _range_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which days of which organization are asked about."""
    day: dict[str, Any] = {"metavar": "DAY", "type": reading(read_day)}
    month = reading(read_month)
    for option in (
        click.option("--month", metavar="YYYY-MM", type=month, help="All its days."),
        click.option("--to", "until", help="The day after the last one.", **day),
        click.option("--from", "since", help="The first day, in GOVBUDGET_TIME_ZONE.", **day),
        click.option("--organization", required=True, help="An organization's id."),
    ):
        command = option(command)
    return command


def _read_range(
    *, organization: str, since: date | None, until: date | None, month: date | None
) -> tuple[Id, Question]:
    """Give whom and what is asked: of a range, a month, or, where none is named, this month."""
    if (since is None) is not (until is None) or (month and since):
        raise click.UsageError("write --from and --to, or --month alone")
    settings = find_settings()
    if since is None or until is None:
        since, until = span_month(month) if month else find_month(settings.time_zone)
    with wrong_usage():
        return settings.id_type.parse(organization), Question(since, until)


@spend.command("report")
@_range_options
@click.option(
    "--by",
    metavar="KEY,KEY",
    type=reading(read_keys),
    help=f"What it is summed by, some of {','.join(Key)}; without it: all in one row.",
)
@format_option("text", "csv", "jsonl")
@each_database
def spend_report(by: tuple[Key, ...] | None, form: str, **span: Any) -> None:  # noqa: ANN401 - of `_read_range`
    """Print what the organization spent in a range of days; without one: in this month.

    Costs are micros (1 USD is 1,000,000), each rounded up from the exact sum of the ledger, which
    CSV and JSON give too: `cost_picos` (1 micro is 1,000,000). Unpriced calls are those whose cost
    is not wholly known. Status 1 where there is neither spend nor a group of the organization.
    """
    organization, question = _read_range(**span)
    question = replace(question, by=by or ())

    def report(unit: Unit) -> Sequence[Line]:
        found = ask(unit.authorize("read", organization=organization), question)
        if not found:
            require_known(unit, organization)
        return found

    lines = run_as_operator(report)
    print_answer(form, map(describe_line, lines), _lay_out(question, lines), list_columns(question))


def _lay_out(question: Question, lines: Sequence[Line]) -> Iterator[str]:
    """Write the rows under each other, and last what they are together."""
    keys = question.keys
    rows = [(*keys, *SHOWN)]
    rows += [tuple("none" if x is None else str(x) for x in _show(line)) for line in lines if keys]
    total = Line({}, Sum(*(sum(line.sum[place] for line in lines) for place in range(len(SHOWN)))))
    label = ("total", *[""] * len(keys))[: len(keys)]
    rows.append((*label, *map(str, _show(total))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = list(zip(row, widths, strict=True))
        names = [text.ljust(width) for text, width in padded[: len(keys)]]
        yield "  ".join([*names, *(text.rjust(width) for text, width in padded[len(keys) :])])


def _show(line: Line) -> list[object]:
    row = describe_line(line)
    return [row[name] for name in (*line.keys, *SHOWN)]


@spend.command("export")
@_range_options
@format_option("csv", "jsonl")
@each_database
def spend_export(form: str, **span: Any) -> None:  # noqa: ANN401 - of `_read_range`
    """Print the ledger of a range of days, without one of this month: each call and correction.

    In the order of days and events, with exact costs: `cost_picos` (1 USD is 10^12). That of a
    correction is the difference that it makes. The rows of a closed month are in its file alone: a
    line on stderr says which months these are, with the SHA-256 of each file. Status 1 where there
    is neither a row nor a group of the organization.
    """
    organization, question = _read_range(**span)
    with open_gov() as gov, gov.unit(OPERATOR, atomic=True) as unit:
        grant = unit.authorize("read", organization=organization)
        closed = list(list_closed(grant, question))
        unit.connection.execution_options(yield_per=ROWS_AT_ONCE)
        rows = read_ledger(grant, question)
        first = list(islice(rows, 1))
        if not first and not any(calls for _, _, calls in closed):
            require_known(unit, organization)
        for month, digest, calls in closed:
            click.echo(f"{month} is closed: {calls} calls are in the file {digest}", err=True)
        print_answer(form, _count(chain(first, rows)), columns=COLUMNS)


def _count(rows: Iterable[T]) -> Iterator[T]:
    """Give the rows, and say on a terminal how many there were."""
    shown, number = sys.stderr.isatty(), 0
    for number, row in enumerate(rows, 1):
        yield row
        if shown and number % ROWS_AT_ONCE == 0:
            click.echo(f"\r{number} rows", err=True, nl=False)
    if shown:
        click.echo(f"\r{number} rows", err=True)


@spend.command("member")
@click.argument("organization")
@click.argument("user")
@format_option("text", "json")
@each_database
def spend_member(organization: str, user: str, form: str) -> None:
    """Print which limit holds for USER in ORGANIZATION (ids) and why, and the spend of this month.

    What is left is the limit less what is spent and what calls under way hold; it is whole again
    when the month ends. Amounts are micros (1 USD is 1,000,000). Status 1 where the user is not a
    member of the organization.
    """
    from govbudget.spend.answers import MemberSpendAnswer  # noqa: PLC0415 - a tenth of a second

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
@each_database
def spend_verify(organization: str | None, file: Path | None) -> int:
    """Prove that ledger, rollups, counters and holds agree.

    Of a closed month it compares rollups and counters with what was stored when it was closed, and
    with FILE: its digest, its rows, and their sums with the rollups. Prints a line for each
    disagreement, and has status 1 then. It locks nothing, so it may run at any time. Status 1 too
    where the organization is not known and has no spend.
    """
    asked = None if organization is None else find_settings().id_type.parse(organization)

    def verify(unit: Unit) -> tuple[Verification, list[str]]:
        seen = verify_spend(unit.authorize("create", ledger=True), asked)
        if asked is not None and not seen.members:
            require_known(unit, asked)
        grant = unit.authorize("update", ledger=True)
        closed = list(verify_closings(grant, asked))
        return seen, closed + ([] if file is None else list(prove_file(grant, name_file(file))))

    seen, closed = run_as_operator(verify)
    findings = seen.findings + closed
    for finding in findings:
        click.echo(finding)
    if findings:
        return NOT_SO
    click.echo(f"{seen.members} members, {seen.calls} calls: ledger = rollups = counters")
    if file is not None:
        click.echo(f"{name_file(file)}: as it was written, and its rows add up to the rollups")
    return OK


@spend.command("close")
@click.argument("month", metavar="MONTH", type=reading(read_month))
@click.option("--to", "file", type=FILE, required=True, help="The file that the month is kept in.")
@click.option(
    "--after-days",
    type=click.IntRange(MIN_CLOSE_AFTER_DAYS, MAX_DAYS),
    help="How many days ago it ended at least; without it: GOVBUDGET_CLOSE_AFTER_DAYS.",
)
@each_database
def spend_close(month: date, file: Path, after_days: int | None) -> None:
    """Write the calls and holds of MONTH (YYYY-MM) to FILE, and take them out of the database.

    Sums, reports and limits stay as they are. Keep FILE: it is the only record of these calls.
    Months are closed in their order. If it is interrupted, run it again with the same FILE: nothing
    is lost. It needs a role that may delete from the tables, such as their owner.

    From then on, usage that comes for the month counts in the month in which it comes, and its row
    says so. An event of the month that is sent again is recorded again, as its id is not known any
    more; so let nothing replay what is older than --after-days. Its holds are not found, and its
    calls can't be corrected.
    """
    if str(file) == "-":
        raise click.UsageError("the month is read from its file before it is deleted; name a file")
    file = name_file(file)
    with open_gov() as gov:
        days = gov.settings.close_after_days if after_days is None else after_days
        done = close_month(gov, month, file, days)
    click.echo(f"{month:%Y-%m}: {done.ai_usage} calls, {done.ai_holds} holds in {file}")
    click.echo(f"sha256 {done.sha256}")
