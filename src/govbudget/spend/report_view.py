"""The view of the report: a question read from a query, answered in pages or as CSV."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from flask import Response, request

from govbudget.errors import FieldError, GovBudgetError, InvalidInput
from govbudget.spend.report import (
    FIRST_DAY,
    LAST_DAY,
    Key,
    Question,
    ask,
    describe_line,
    list_cells,
    list_columns,
    read_day,
    read_keys,
)
from govbudget.text import write_csv
from govbudget.web.paging import PARAMETERS as OF_PAGES, read_name, read_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from govbudget.db.unit import Grant
    from govbudget.identity import Organization
    from govbudget.ids import IdType
    from govbudget.web.call import AuthorizedRequest

MAX_CSV_ROWS = 50_000
# Of one process, whose time and memory they take.
MAX_CSVS_AT_A_TIME = 2
TURN_SECONDS = 2
JSON, CSV = "json", "csv"
CODE = "invalid-query"
_DAY = {"type": "string", "format": "date"}
_ID = {"$ref": "#/components/schemas/Id"}
_KEYS = {"type": "array", "items": {"enum": [*Key]}, "uniqueItems": True}
PARAMETERS: tuple[dict[str, Any], ...] = (
    {"name": "from", "required": True, "schema": _DAY},
    {"name": "to", "required": True, "schema": _DAY, "description": "the day after the last"},
    {"name": "group_by", "schema": _KEYS, "style": "form", "explode": False},
    *({"name": name, "schema": {"type": "string"}} for name in ("provider", "model")),
    *({"name": name, "schema": _ID} for name in ("group_id", "user_id")),
    {"name": "format", "schema": {"enum": [JSON, CSV], "default": JSON}},
)
NAMES = tuple(parameter["name"] for parameter in PARAMETERS)


_turns = BoundedSemaphore(MAX_CSVS_AT_A_TIME)


@contextmanager
def take_turn() -> Iterator[None]:
    """Let few requests at a time be answered with CSV; raise `unavailable` where others take long.

    The longest takes a second of the process, and a connection all the while. Whoever waits here
    has none, so that other callers find one.
    """
    if request.args.get("format") != CSV:
        yield
        return
    if not _turns.acquire(timeout=TURN_SECONDS):
        raise GovBudgetError("unavailable", "other reports are being written; try again later")
    try:
        yield
    finally:
        _turns.release()


def get_organization_spend(asked: AuthorizedRequest[Organization]) -> dict[str, Any] | Response:
    """Answer with what the organization spent in a range of days, as far as the caller may see.

    In pages, or as CSV: the whole of at most 50,000 rows, with exact picos (`cost_picos`) too.
    """
    question, errors = read_question(request.args, asked.gov.settings.id_type)
    keys, form = question.keys, request.args.get("format", JSON)
    if form not in {JSON, CSV}:
        errors.append(FieldError("format", "must be `json` or `csv`"))
    errors += [
        FieldError(name, "CSV has no pages; leave it out")
        for name in OF_PAGES
        if form == CSV and name in request.args
    ]

    def read_position(*texts: str) -> dict[Key, str | None]:
        after = dict(zip(keys, texts, strict=True))
        for key, text in after.items():
            if key in {Key.DAY, Key.MONTH}:
                read_day(f"{text}-01" if key is Key.MONTH else text)
            elif text or key is not Key.GROUP:
                read_name(text)
        return {key: text or None for key, text in after.items()}

    # A token is of one question alone.
    page = read_page(f"{asked.object.id} {question}", read_position, NAMES, errors)
    if form == CSV:
        return answer_csv(asked.grant, question)
    rows = [
        describe_line(x) for x in ask(asked.grant, question, limit=page.limit, after=page.after)
    ]
    return page.cut(rows, lambda row: tuple(row[key] or "" for key in keys), "rows")


def read_question(query: Mapping[str, str], id_type: IdType) -> tuple[Question, list[FieldError]]:
    """Read a question; where there are errors, it is another one."""
    readers: dict[str, Callable[[str], Any]] = {
        "from": read_day,
        "to": read_day,
        "group_by": read_keys,
        "provider": read_name,
        "model": read_name,
        "group_id": id_type.parse,
        "user_id": id_type.parse,
    }
    found: dict[str, Any] = {"from": FIRST_DAY, "to": LAST_DAY, "group_by": ()}
    errors = []
    for name, reader in readers.items():
        try:
            if name in query:
                found[name] = reader(query[name])
            elif name in {"from", "to"}:
                errors.append(FieldError(name, "missing; write a day such as 2026-10-01"))
        except (ValueError, GovBudgetError) as error:
            errors.append(FieldError(name, getattr(error, "detail", str(error))))
    days_and_keys = [found.pop(name) for name in ("from", "to", "group_by")]
    try:
        return Question(*days_and_keys, **found), errors
    except ValueError as error:
        errors.append(FieldError("from", str(error)))
    return Question(FIRST_DAY, LAST_DAY), errors


def answer_csv(grant: Grant[Organization], question: Question) -> Response:
    """Answer with the whole report as CSV; raise `invalid-query` where that is too long."""
    lines = ask(grant, question, limit=MAX_CSV_ROWS + 1)
    if len(lines) > MAX_CSV_ROWS:
        detail = f"the report has more than {MAX_CSV_ROWS} rows; ask for fewer days or keys"
        raise InvalidInput("the report is too long", [FieldError("format", detail)], CODE)
    rows: Iterable[Sequence[object]] = chain([list_columns(question)], map(list_cells, lines))
    text = "".join(f"{write_csv(row)}\n" for row in rows)
    name = f"spend-{question.since}-{question.until}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, content_type="text/csv; charset=utf-8", headers=headers)
