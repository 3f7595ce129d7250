"""The SQL of prices: a batch in one statement, a look-up by key; each behind a grant."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from govbudget.audit.entry import write_receipt
from govbudget.authz.grant import Grant, require_grant
from govbudget.errors import NotFound
from govbudget.identity import Action, PriceBook
from govbudget.prices.change import MAX_FACTOR, PriceChange, refuse_duplicates, refuse_jumps
from govbudget.sql import prepare
from govbudget.tables import PRICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from govbudget.prices.price import Price
    from govbudget.tables import Tables


COLUMNS = ", ".join(("provider", "model", *PRICES))
P_COLUMNS = ", ".join(f"p.{name}" for name in ("source", "provider", "model", *PRICES))
STORED = ", ".join(f"p.{price}" for price in PRICES)
GIVEN = ", ".join(f"excluded.{price}" for price in PRICES)
BATCH = f"""
jsonb_to_recordset(CAST(:batch AS jsonb)) AS b
  (provider text, model text, {", ".join(f"{price} bigint" for price in PRICES)})
"""
IS_NAMED = "p.provider = :provider AND p.model = :model"

# Custom before book: the first is the one in force.
FIND = f"""
SELECT {P_COLUMNS} FROM {{s}}.ai_model_prices p WHERE {IS_NAMED} ORDER BY p.source DESC
"""
FIND_ALL = f"""
SELECT {P_COLUMNS} FROM {{s}}.ai_model_prices p
JOIN {BATCH} ON b.provider = p.provider AND b.model = p.model ORDER BY p.source DESC
"""

# As `PriceChange.list_jumps` says it.
JUMPS = " OR ".join(
    f"p.{price} > 0 AND {high} > {low} * {MAX_FACTOR}"
    for price in PRICES
    for low, high in ((f"p.{price}", f"b.{price}"), (f"b.{price}", f"p.{price}"))
)
# What a batch is measured by is the snapshot of this statement: what was when it began. Locks are
# taken in key order, so that two batches never wait for each other.
UPSERT = f"""
WITH jumps AS (
  SELECT {P_COLUMNS} FROM {BATCH} JOIN LATERAL (
    SELECT * FROM {{s}}.ai_model_prices p WHERE p.provider = b.provider AND p.model = b.model
    -- what it replaces, else what is in force
    ORDER BY p.source = CAST(:source AS text) DESC LIMIT 1
  ) p ON true
  WHERE NOT CAST(:allow_jumps AS boolean) AND ({JUMPS})
), changed AS (
  INSERT INTO {{s}}.ai_model_prices AS p ({COLUMNS}, source, receipt)
  SELECT {COLUMNS}, CAST(:source AS text), CAST(:receipt AS jsonb)
  FROM {BATCH} WHERE NOT EXISTS (SELECT FROM jumps) ORDER BY provider, model
  ON CONFLICT (provider, model, source) DO UPDATE
    SET {", ".join(f"{price} = excluded.{price}" for price in PRICES)}, receipt = excluded.receipt,
        updated_at = greatest(clock_timestamp(), p.updated_at + interval '1 microsecond')
    WHERE ({STORED}) IS DISTINCT FROM ({GIVEN})
  RETURNING p.model
)
SELECT c.changed, {P_COLUMNS} FROM (SELECT count(*) AS changed FROM changed) c
LEFT JOIN jumps p ON true
"""

# A deleted row can't carry its receipt to the trigger: the entry is written here.
REMOVE = f"""
WITH p AS (
  DELETE FROM {{s}}.ai_model_prices p WHERE {IS_NAMED} AND p.source = 'custom'
  RETURNING {P_COLUMNS}
), entry AS (
  INSERT INTO {{s}}.audit_log (object_type, object_id, before, receipt)
  SELECT 'ai_model_price', p.provider || '/' || p.model,
         jsonb_build_object('source', p.source, {", ".join(f"'{c}', p.{c}" for c in PRICES)}),
         CAST(:receipt AS jsonb)
  FROM p
)
SELECT {P_COLUMNS} FROM p
"""


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
        self._find, self._find_all, self._upsert, self._remove = (
            prepare(template, tables.layout) for template in (FIND, FIND_ALL, UPSERT, REMOVE)
        )

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
        allow_jumps: bool = False,
        request_id: str | None = None,
    ) -> BatchResult:
        """Store a batch of prices of one source, all or nothing. Needs a grant for `update`.

        Those of the other source are not touched. A price that is the same as before is left as
        it is, `updated_at` too; each other one leaves an entry in the audit trail, with
        `request_id`. Raises InvalidInput where a model stands twice in the batch, and (code
        `price-jump`, see `PriceChange.list_jumps`) where a price jumps, unless `allow_jumps`.
        """
        require_grant(grant, Action.UPDATE, book, connection.get_transaction())
        refuse_duplicates(prices)
        values = {
            "batch": _write_batch(prices),
            "source": source,
            "receipt": write_receipt(grant, None, request_id),
            "allow_jumps": allow_jumps,
        }
        rows = connection.execute(self._upsert, values).all()
        if rows[0].source is not None:
            guides = {(row.provider, row.model): _price(row)[1] for row in rows}
            guided = ((price, guides.get((price.provider, price.model))) for price in prices)
            refuse_jumps(PriceChange(price, None, guide) for price, guide in guided)
        return BatchResult(received=len(prices), changed=rows[0].changed)

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


def _write_batch(prices: Sequence[Price]) -> str:
    from govbudget.prices.price import BATCH  # noqa: PLC0415 - pydantic, loaded when first needed

    return BATCH.dump_json(list(prices)).decode()


def _write_key(provider: str, model: str) -> dict[str, str]:
    if "\0" in provider + model:  # PostgreSQL's text can't hold it, so no price has it
        raise NotFound("price")
    return {"provider": provider, "model": model}


def _price(row: Row[Any]) -> tuple[PriceSource, Price]:
    from govbudget.prices.price import Price  # noqa: PLC0415 - pydantic, loaded when first needed

    values = {name: getattr(row, name) for name in ("provider", "model", *PRICES)}
    return PriceSource(row.source), Price.model_construct(**values)
