"""The page of what was spent: the report as a chart and a table, and its figures as CSV."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from flask import Response, request

from govbudget.directory.names import find_names
from govbudget.errors import FieldError, InvalidInput
from govbudget.pages.links import links_of
from govbudget.pages.render import Page
from govbudget.spend.report import Key, Question, ask, read_day
from govbudget.spend.report_view import CSV, answer_csv
from govbudget.web.paging import read_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from govbudget.db.unit import Grant
    from govbudget.identity import Id, Organization
    from govbudget.spend.report import Line
    from govbudget.web.call import AuthorizedRequest as Asked

MAX_LINES = 500
MAX_BARS = 100
FILTERS = ("provider", "model", "group_id", "user_id")


def find_month(zone: str) -> tuple[date, date]:
    """Give the first day of this month, and that of the next one, in a zone."""
    first = datetime.now(ZoneInfo(zone)).date().replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


def show_spend(asked: Asked[Organization]) -> Page | Response:
    """Show what was spent in a range, by what the query says; by default this month, by day.

    With `format=csv` it is the CSV that the API gives, for whoever is signed in here alone.
    """
    query = {name: text for name, text in request.args.items() if text and name != "by"}
    by, form = request.args.getlist("by") or [Key.DAY], query.pop("format", "")
    first, last = find_month(asked.gov.settings.time_zone)
    since, until = query.pop("from", str(first)), query.pop("to", str(last))
    try:
        for name, texts in request.args.lists():
            if name != "by" and len(texts) > 1:
                raise ValueError(f"`{name[:60]}` is given more than once")  # noqa: TRY301 - as below
        if form not in {"", CSV}:
            raise ValueError("`format` can be `csv` alone")  # noqa: TRY301 - as below
        for name in query.keys() - {*FILTERS}:
            raise ValueError(f"`{name[:60]}` is not known here")  # noqa: TRY301 - as all that is wrong
        question = Question(
            since=read_day(since), until=read_day(until), by=tuple(map(Key, dict.fromkeys(by))),
            **{name: _read(name, text, asked) for name, text in query.items()},
        )  # fmt: skip
    except ValueError as error:
        errors = [FieldError("query", str(error))]
        message = "the query can't be understood"
        raise InvalidInput(message, errors, code="invalid-query") from None
    if form == CSV:
        return answer_csv(asked.grant, question)
    lines = ask(asked.grant, question, limit=MAX_LINES + 1)
    return _lay_out(asked, question, lines, query)


def _read(name: str, text: str, asked: Asked[Organization]) -> Any:  # noqa: ANN401 - an id or a text
    return asked.gov.settings.id_type.parse(text) if name.endswith("_id") else read_name(text)


def _lay_out(
    asked: Asked[Organization], question: Question, lines: Sequence[Line], query: dict[str, str]
) -> Page:
    shown = lines[:MAX_LINES]
    ids = [line.keys[key] for line in shown for key in (Key.GROUP, Key.USER) if key in line.keys]
    organization = asked.object.id
    names = find_names(asked.grant.unit, {organization, *ids}, [organization])
    keys = [key for key in Key if key in question.by]
    sums: dict[Any, int] = {}  # by the key itself: two may have one name
    for line in shown if keys else ():
        bar = line.keys[keys[0]]
        sums[bar] = sums.get(bar, 0) + line.sum.cost_picos
    bars = [(_name(keys[0], bar, names), picos) for bar, picos in sums.items()]
    csv = {"from": question.since, "to": question.until, "by": keys, **query, "format": CSV}
    values = {
        "organization": organization,
        "question": question,
        "keys": keys,
        "all_keys": list(Key),
        "lines": shown,
        "bars": bars[:MAX_BARS],
        "bars_in_all": len(bars),
        "is_cut": len(lines) > MAX_LINES,
        "query": query,
        "total": sum(line.sum.cost_picos for line in shown),
        "csv": csv,
    }
    return Page("spend", "Spend", values, links_of(asked.grant, organization), names)


def _name(key: Key, value: Any, names: Any) -> str:  # noqa: ANN401 - an id or a text
    if value is None:
        return "none"
    return str(names.get((str(key), value), value))


def list_of_month(
    grant: Grant[Organization],
    zone: str,
    *by: Key,
    user_id: Id | None = None,
    group_id: Id | None = None,
) -> Sequence[Line]:
    """List what was spent this month, by what is named, of a user or a group; one statement."""
    question = Question(*find_month(zone), by, user_id=user_id, group_id=group_id)
    return ask(grant, question, limit=MAX_LINES)
