"""SQL as text: the templates of the stores, with a layout's and a directory's names put in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.sql import ClauseElement

from govbudget.db.tables import id_sql_type
from govbudget.db.times import IN_MICROSECONDS, Time
from govbudget.db.triggers import quote
from govbudget.layout import Layout
from govbudget.money import TOKENS

DIALECT = pg.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
# SQLAlchemy 2.0 doubles backslashes in constants until it has asked a server, which needs that only
# where somebody has switched `standard_conforming_strings` off.
DIALECT._backslash_escapes = False  # noqa: SLF001 - there is no public way

# Selected under these names, a time is in microseconds, and is read as a time in UTC.
TIMES = {
    name: Time()
    for name in (
        *("created_at", "updated_at", "expires_at", "recorded_at"),
        *("limit_expires_at", "period_start", "period_end", "at"),
    )
}


class Whole(sa.TypeDecorator[int]):
    """A whole number, which PostgreSQL has as NUMERIC where it is worked out."""

    impl = sa.BigInteger
    cache_ok = True

    def process_result_value(self, value: Any, dialect: object) -> int | None:  # noqa: ANN401, ARG002 - as overridden
        """Make an int of what was selected."""
        return None if value is None else int(value)


# Selected under these names, amounts in picos and numbers of calls are ints.
_SUMS = ("cost_picos", "difference_picos", "spent_picos", "held_picos", "calls", "unpriced_calls")
_READ_AS: Mapping[str, sa.TypeDecorator[Any]] = {**TIMES, **dict.fromkeys(_SUMS, Whole())}
# The types of parameters, by their names; those of ids are the layout's.
_IDS = ("organization_id", "user_id", "group_id", "after", "after_organization")
_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("hold_id", "body_digest", "entry_id", "revision"), sa.Uuid()),
    **dict.fromkeys(("must_be", "must_not_be"), pg.ARRAY(sa.Uuid())),
    **dict.fromkeys(("now", "occurred_at", "expires_at", "at"), sa.DateTime(timezone=True)),
    **dict.fromkeys(
        ("event_id", "corrects", "reason", "provider", "model", "source", "batch", "code"),
        sa.Text(),
    ),
    **dict.fromkeys((*TOKENS, "limit", "page_size", "boundary", "cost_picos"), sa.BigInteger()),
    **dict.fromkeys(
        ("allowed_elsewhere", "any_revision", "allow_jumps", "may_be_past"), sa.Boolean()
    ),
    **dict.fromkeys(("month", "since", "until", "months_since", "months_until"), sa.Date()),
    **dict.fromkeys(("days", "threshold"), sa.Integer()),
    **dict.fromkeys(("by", "position"), pg.ARRAY(sa.Text)),
    "ttl": sa.Interval(),
    **dict.fromkeys(("receipt", "facts", "sums"), pg.JSONB()),
    "candidate": pg.ARRAY(sa.Text),
    "further_tokens": pg.JSONB(none_as_null=True),
}


def write(expression: ClauseElement) -> str:
    """Write an expression as SQL for a template, the host's own constants within it.

    Raises CompileError where one of them can't be written.
    """
    text = expression.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True})
    return str(text).replace(":", r"\:")


def read_time(expression: str, name: str) -> str:
    """Select a time, under one of the names in `TIMES`, in a form that no setting changes."""
    return f"{IN_MICROSECONDS.format(expression)} AS {name}"


def prepare(
    template: str, layout: Layout, answer: Sequence[str] = (), **parts: object
) -> sa.Executable:
    """Make a statement: `{s}` is the schema, `{id}` the type of ids, the rest are `parts`.

    Its parameters have the type that their name has everywhere. `{answer}` is what it selects;
    SQLAlchemy, which gets the names, does not work them out for each answer anew.
    """
    selected = {part.split()[-1].rpartition(".")[2]: part for part in answer}
    for name in TIMES.keys() & selected.keys():
        selected[name] = read_time(selected[name].removesuffix(f" AS {name}"), name)
    # psycopg keeps what it has read of a text of up to 4,096 characters, and else reads it anew at
    # every call; the host's own constants, which the parts hold, stay as they are.
    lines = template.replace("{answer}", ", ".join(selected.values())).splitlines()
    text = "\n".join(line.strip() for line in lines)
    statement = sa.text(text.format(s=quote(layout.schema), id=layout.id_type, **parts))
    id_type = id_sql_type(layout)
    types = {**_TYPES, **dict.fromkeys(_IDS, id_type), "exceptions": pg.ARRAY(id_type)}
    types |= dict.fromkeys(("named", "places"), types["exceptions"])
    names = statement._bindparams  # noqa: SLF001 - its parameters
    typed = statement.bindparams(*(sa.bindparam(name, type_=types[name]) for name in names))
    columns = [sa.column(name, _READ_AS.get(name)) for name in selected]
    return typed.columns(*columns) if columns else typed.columns(**_READ_AS)
