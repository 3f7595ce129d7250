"""The SQL of prices: a batch in one statement, a look-up by key; each behind a grant."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from govbudget.audit.entry import write_receipt
from govbudget.authz.grant import Grant, require_grant
from govbudget.errors import NotFound
from govbudget.identity import Action, PriceBook
from govbudget.prices.change import PriceChange, refuse_duplicates, refuse_jumps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from govbudget.prices.price import Price
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
        self._table = table = tables.ai_model_prices
        self._keys = [table.c.provider, table.c.model]
        self._prices = [
            table.c.input_price,
            table.c.output_price,
            table.c.cache_read_price,
            table.c.cache_write_price,
        ]
        self._columns = [*self._keys, *self._prices]
        self._batch = (
            sa.func.jsonb_to_recordset(sa.cast(sa.bindparam("batch", type_=sa.Text), pg.JSONB))
            .table_valued(*(sa.column(c.name, c.type) for c in self._columns))
            .render_derived(with_types=True)
        )
        self._receipt = sa.bindparam("receipt", type_=pg.JSONB)
        self._is_named = sa.and_(*(key == sa.bindparam(key.name) for key in self._keys))
        read = sa.select(table.c.source, *self._columns)
        # Custom before book: the first is the one in force.
        self._find = read.where(self._is_named).order_by(table.c.source.desc())
        same = (key == self._batch.c[key.name] for key in self._keys)
        self._find_all = read.join(self._batch, sa.and_(*same)).order_by(table.c.source.desc())
        self._upsert = self._prepare_upsert()
        self._remove = self._prepare_remove(tables.audit_log)

    def _prepare_upsert(self) -> sa.Select[Any]:
        table, batch = self._table, self._batch
        source = sa.bindparam("source", type_=sa.Text)
        # Locks are taken in key order, so that two batches never wait for each other.
        rows = sa.select(*batch.c, source, self._receipt).order_by(batch.c.provider, batch.c.model)
        insert = pg.insert(table).from_select(
            [c.name for c in (*self._columns, table.c.source, table.c.receipt)], rows
        )
        given = [insert.excluded[c.name] for c in self._prices]
        factor = sa.bindparam("factor", type_=sa.BigInteger)
        jumps = sa.or_(
            *(
                sa.and_(low > 0, high > low * factor)
                for old, new in zip(self._prices, given, strict=True)
                for low, high in ((old, new), (new, old))
            )
        )
        changed = insert.on_conflict_do_update(
            index_elements=[*self._keys, table.c.source],
            set_={
                **{c.name: insert.excluded[c.name] for c in (*self._prices, table.c.receipt)},
                "updated_at": sa.func.greatest(
                    sa.func.clock_timestamp(),
                    table.c.updated_at + sa.text("interval '1 microsecond'"),
                ),
            },
            where=sa.and_(
                sa.tuple_(*self._prices).is_distinct_from(sa.tuple_(*given)),
                jumps.is_not(sa.true()),
            ),
        )
        changed_rows = changed.returning(table.c.model).cte("changed")
        return sa.select(sa.func.count()).select_from(changed_rows)

    def _prepare_remove(self, log: sa.Table) -> sa.Select[Any]:
        """Delete and write the entry: a deleted row can't carry its receipt to the trigger."""
        table = self._table
        removed = (
            sa.delete(table)
            .where(self._is_named, table.c.source == PriceSource.CUSTOM.value)
            .returning(table.c.source, *self._columns)
            .cte("removed")
        )
        row = removed.c
        before = sa.func.jsonb_build_object(
            *(
                part
                for c in (row.source, *(row[p.name] for p in self._prices))
                for part in (sa.literal(c.name, sa.Text), c)
            )
        )
        entry = sa.insert(log).from_select(
            ["object_type", "object_id", "before", "receipt"],
            sa.select(
                sa.literal_column("'ai_model_price'"),
                row.provider + "/" + row.model,
                before,
                self._receipt,
            ),
            include_defaults=False,
        )
        return sa.select(removed).add_cte(entry.cte("entry"))

    def get(
        self, connection: Connection, grant: Grant, book: PriceBook, provider: str, model: str
    ) -> Price:
        """Give the price in force. Needs a grant for `read`. Raises NotFound."""
        found = self.find(connection, grant, book, provider, model)
        return next(iter(found.values()))

    def find(
        self, connection: Connection, grant: Grant, book: PriceBook, provider: str, model: str
    ) -> dict[PriceSource, Price]:
        """Give a model's prices by source, the one in force first. Needs a grant for `read`.

        Raises NotFound.
        """
        require_grant(grant, Action.READ, book, connection.get_transaction())
        rows = connection.execute(self._find, _write_key(provider, model))
        found = dict(map(_price, rows))
        if not found:
            raise NotFound("price")
        return found

    def compare(
        self,
        connection: Connection,
        grant: Grant,
        book: PriceBook,
        prices: Sequence[Price],
        *,
        source: PriceSource,
    ) -> list[PriceChange]:
        """Say what `upsert` would change, a value for each price in order. Needs `update`."""
        require_grant(grant, Action.UPDATE, book, connection.get_transaction())
        refuse_duplicates(prices)
        stored: dict[tuple[str, str], dict[PriceSource, Price]] = {}
        for row in connection.execute(self._find_all, {"batch": _write_batch(prices)}):
            stored.setdefault((row.provider, row.model), {}).update([_price(row)])
        changes = []
        for price in prices:
            found = stored.get((price.provider, price.model), {})
            was = found.get(source)
            changes.append(PriceChange(price, was, was or next(iter(found.values()), None)))
        return changes

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
        return self._store(connection, prices, source, write_receipt(grant, None, request_id), None)

    def upsert_without_jumps(
        self,
        connection: Connection,
        grant: Grant,
        book: PriceBook,
        prices: Sequence[Price],
        *,
        source: PriceSource,
        factor: int,
    ) -> BatchResult:
        """Store a batch where no price moves by more than the factor; like `upsert`, in more steps.

        Raises InvalidInput that names what jumps, and has then written nothing; except where
        somebody wrote the same model meanwhile: roll back, whatever it raises.
        """
        changes = self.compare(connection, grant, book, prices, source=source)
        refuse_jumps(changes, factor)
        receipt = write_receipt(grant, None, None)
        result = self._store(connection, prices, source, receipt, factor)
        if result.changed != sum(change.is_needed for change in changes):
            refuse_jumps(self.compare(connection, grant, book, prices, source=source), factor)
        return result

    def remove(
        self,
        connection: Connection,
        grant: Grant,
        book: PriceBook,
        provider: str,
        model: str,
        *,
        request_id: str | None = None,
    ) -> Price:
        """Take a model's custom price away and give it; the book's, if any, is in force then.

        Needs a grant for `update`. Leaves an entry in the audit trail, with `request_id`. Raises
        NotFound.
        """
        require_grant(grant, Action.UPDATE, book, connection.get_transaction())
        values = {
            **_write_key(provider, model),
            "receipt": write_receipt(grant, None, request_id),
        }
        row = connection.execute(self._remove, values).one_or_none()
        if row is None:
            raise NotFound("price")
        return _price(row)[1]

    def _store(
        self,
        connection: Connection,
        prices: Sequence[Price],
        source: PriceSource,
        receipt: dict[str, Any],
        factor: int | None,
    ) -> BatchResult:
        """Write what changed; with a factor, leave a stored price that would jump as it is."""
        values = {
            "batch": _write_batch(prices),
            "source": source,
            "receipt": receipt,
            "factor": factor,
        }
        changed = connection.execute(self._upsert, values).scalar_one()
        return BatchResult(received=len(prices), changed=changed)


def _write_batch(prices: Sequence[Price]) -> str:
    from govbudget.prices.price import BATCH  # noqa: PLC0415 - pydantic, loaded when first needed

    return BATCH.dump_json(list(prices)).decode()


def _write_key(provider: str, model: str) -> dict[str, str]:
    if "\0" in provider + model:  # PostgreSQL's text can't hold it, so no price has it
        raise NotFound("price")
    return {"provider": provider, "model": model}


def _price(row: Row[Any]) -> tuple[PriceSource, Price]:
    from govbudget.prices.price import Price  # noqa: PLC0415 - pydantic, loaded when first needed

    source, *_ = row
    values = dict(row._mapping)  # noqa: SLF001 - a public name of Row
    del values["source"]
    return PriceSource(source), Price.model_construct(**values)
