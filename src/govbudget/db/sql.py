"""SQL as text: the templates of the stores, with a layout's and a directory's names put in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from govbudget.db.tables import TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.sql import ClauseElement

    from govbudget.db.tables import Layout

_DIALECT = pg.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
_COLON = re.compile(r"(?<!:):(?=\w)")

NOW = "coalesce(CAST(:now AS timestamptz), statement_timestamp())"


def write(expression: ClauseElement) -> str:
    """Write an expression as SQL for a template, the host's own constants within it."""
    text = expression.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True})
    return _COLON.sub(r"\\:", str(text))


def quote(name: str) -> str:
    """Give a name as SQL writes it."""
    return _DIALECT.identifier_preparer.quote(name)


def prepare(
    template: str, layout: Layout, answer: Sequence[str] = (), **parts: object
) -> sa.Executable:
    """Make a statement: `{s}` is the schema, `{id}` the type of ids, the rest are `parts`.

    Its parameters have the type that their name has everywhere. `{answer}` is what it selects;
    SQLAlchemy, which is told the names, does not work them out for each answer anew.
    """
    text = template.replace("{answer}", ", ".join(answer))
    statement = sa.text(text.format(s=quote(layout.schema), id=layout.id_type, **parts))
    types: dict[str, Any] = {
        **dict.fromkeys(("organization_id", "user_id", "group_id", "after"), layout.id_sql_type),
        **dict.fromkeys(("hold_id", "entry_id", "revision"), sa.Uuid()),
        **dict.fromkeys(("now", "occurred_at", "at"), sa.DateTime(timezone=True)),
        **dict.fromkeys(("event_id", "provider", "model", "time_zone"), sa.Text()),
        **dict.fromkeys(("source", "batch"), sa.Text()),
        **dict.fromkeys((*TOKENS, "limit", "page_size"), sa.BigInteger()),
        **dict.fromkeys(("must_be", "must_not_be"), pg.ARRAY(sa.Uuid())),
        **dict.fromkeys(("allowed_elsewhere", "any_revision", "allow_jumps"), sa.Boolean()),
        "ttl": sa.Interval(),
        "receipt": pg.JSONB(),
        "exceptions": pg.ARRAY(layout.id_sql_type),
    }
    names = statement._bindparams  # noqa: SLF001 - its parameters
    typed = statement.bindparams(*(sa.bindparam(name, type_=types[name]) for name in names))
    columns: list[sa.ColumnClause[Any]] = [
        sa.column(part.split()[-1].rpartition(".")[2]) for part in answer
    ]
    return typed.columns(*columns) if columns else typed
