"""The SQL of prices: a batch in one statement, a look-up by key; each behind a grant."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from govbudget.audit.entry import write_receipt
from govbudget.authz.grant import Grant, require_grant
from govbudget.errors import NotFound
from govbudget.identity import Action, PriceBook
from govbudget.prices.price import BATCH, Price, refuse_duplicates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from govbudget.tables import Tables


class PriceSource(StrEnum):
    """Where a price comes from; of two prices of one model, the custom one is in force."""

    BOOK = "book"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How many rows a batch had, and how many models were new or got another price."""

    received: int
    changed: int


class PriceStore:
    """The prices of one layout. Its functions send one statement each, on the caller's connection.

    They never commit, roll back, close or SET anything.
    """

    def __init__(self, tables: Tables) -> None:
        """Prepare the statements."""
        table = tables.ai_model_prices
        keys = [table.c.provider, table.c.model]
        prices = [
            table.c.input_price,
            table.c.output_price,
            table.c.cache_read_price,
            table.c.cache_write_price,
        ]
        batch = (
            sa.func.jsonb_to_recordset(sa.cast(sa.bindparam("batch", type_=sa.Text), pg.JSONB))
            .table_valued(*(sa.column(c.name, c.type) for c in (*keys, *prices)))
            .render_derived(with_types=True)
        )
        # Locks are taken in key order, so that two batches never wait for each other.
        receipt = sa.bindparam("receipt", type_=pg.JSONB)
        source = sa.bindparam("source", type_=sa.Text)
        rows = sa.select(*batch.c, source, receipt).order_by(batch.c.provider, batch.c.model)
        insert = pg.insert(table).from_select(
            [c.name for c in (*keys, *prices, table.c.source, table.c.receipt)], rows
        )
        given = sa.tuple_(*(insert.excluded[c.name] for c in prices))
        changed = insert.on_conflict_do_update(
            index_elements=[*keys, table.c.source],
            set_={
                **{c.name: insert.excluded[c.name] for c in (*prices, table.c.receipt)},
                "updated_at": sa.func.greatest(
                    sa.func.clock_timestamp(),
                    table.c.updated_at + sa.text("interval '1 microsecond'"),
                ),
            },
            where=sa.tuple_(*prices).is_distinct_from(given),
        )
        changed_rows = changed.returning(table.c.model).cte("changed")
        self._upsert = sa.select(sa.func.count()).select_from(changed_rows)
        self._get = (
            sa.select(*keys, *prices)
            .where(
                table.c.provider == sa.bindparam("provider"), table.c.model == sa.bindparam("model")
            )
            .order_by(table.c.source.desc())  # custom before book
            .limit(1)
        )

    def get(
        self, connection: Connection, grant: Grant, book: PriceBook, provider: str, model: str
    ) -> Price:
        """Give the price in force. Needs a grant for `read`. Raises NotFound."""
        require_grant(grant, Action.READ, book, connection.get_transaction())
        if "\0" in provider + model:  # PostgreSQL's text can't hold it, so no price has it
            raise NotFound("price")
        key = {"provider": provider, "model": model}
        row = connection.execute(self._get, key).one_or_none()
        if row is None:
            raise NotFound("price")
        return Price.model_construct(**row._mapping)  # noqa: SLF001 - a public name of Row

    def upsert(
        self,
        connection: Connection,
        grant: Grant,
        book: PriceBook,
        prices: Sequence[Price],
        *,
        source: PriceSource = PriceSource.CUSTOM,
        request_id: str | None = None,
    ) -> BatchResult:
        """Store a batch of prices of one source, all or nothing. Needs a grant for `update`.

        Those of the other source are not touched. A price that is the same as before is left as
        it is, `updated_at` too; each other one leaves an entry in the audit trail, with
        `request_id`. Raises InvalidInput where a model stands twice in the batch.
        """
        require_grant(grant, Action.UPDATE, book, connection.get_transaction())
        refuse_duplicates(prices)
        batch = BATCH.dump_json(list(prices)).decode()
        receipt = write_receipt(grant, None, request_id)
        values = {"batch": batch, "source": source, "receipt": receipt}
        changed = connection.execute(self._upsert, values).scalar_one()
        return BatchResult(received=len(prices), changed=changed)
