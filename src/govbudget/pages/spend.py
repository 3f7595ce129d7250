"""The page of what was spent: the report as a chart and a table, and its figures as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Response, request

from govbudget.db.unit import Grant
from govbudget.directory.names import find_names
from govbudget.errors import FieldError
from govbudget.identity import Id, Organization
from govbudget.pages.links import links_of
from govbudget.pages.render import Page
from govbudget.spend.report import FILTERS, Key, Line, Question, ask, find_month
from govbudget.spend.report_view import CSV, answer_csv, read_question
from govbudget.web.call import AuthorizedRequest as Asked
from govbudget.web.paging import refuse_query

MAX_LINES = 500
MAX_BARS = 100


def show_spend(asked: Asked[Organization]) -> Page | Response:
    """Show what was spent in a range, by what the query says; by default this month, by day.

    With `format=csv` it is the CSV that the API gives, for whoever is signed in here alone.
    """
    settings, given = asked.gov.settings, request.args
    query = {name: text for name, text in given.items() if text and name != "by"}
    form, (first, last) = query.pop("format", ""), find_month(settings.time_zone)
    days = {"from": query.pop("from", str(first)), "to": query.pop("to", str(last))}
    by = ",".join(dict.fromkeys(given.getlist("by") or [Key.DAY]))
    question, errors = read_question({**query, **days, "group_by": by}, settings.id_type)
    if form not in {"", CSV}:
        errors.append(FieldError("format", "can be `csv` alone"))
    errors += [
        FieldError(name[:60], "is given more than once")
        for name, texts in given.lists()
        if name != "by" and len(texts) > 1
    ]
    errors += [FieldError(name[:60], "is not known here") for name in query.keys() - {*FILTERS}]
    refuse_query(errors)
    if form == CSV:
        return answer_csv(asked.grant, question)
    lines = ask(asked.grant, question, limit=MAX_LINES + 1)
    return _lay_out(asked, question, lines, query)


def _lay_out(
    asked: Asked[Organization], question: Question, lines: Sequence[Line], query: dict[str, str]
) -> Page:
    shown = lines[:MAX_LINES]
    ids = [line.keys[key] for line in shown for key in (Key.GROUP, Key.USER) if key in line.keys]
    organization = asked.object.id
    names = find_names(asked.grant.unit, {organization, *ids}, [organization])
    keys = question.keys
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
