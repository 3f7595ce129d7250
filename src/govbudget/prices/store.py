"""The prices of models: stored in batches, looked up by key; only a grant runs their SQL."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from govbudget.errors import NotFound
from govbudget.money import PRICES
from govbudget.prices import statements
from govbudget.prices.change import PriceChange, refuse_duplicates, refuse_jumps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from govbudget.db.unit import Grant
    from govbudget.identity import PriceBook
    from govbudget.prices.price import Price


class PriceSource(StrEnum):
    """Where a price comes from; of two prices of one model, the custom one is in force."""

    BOOK = "book"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How many rows a batch had, and how many models were new or got another price."""

    received: int
    changed: int


class Prices:
    """The functions on prices: one statement each, run by a grant. They never commit."""

    @staticmethod
    def get(grant: Grant[PriceBook], provider: str, model: str) -> Price:
        """Give the price in force. Needs a grant to `read` the prices. Raises NotFound."""
        return next(iter(Prices.find(grant, provider, model).values()))

    @staticmethod
    def find(grant: Grant[PriceBook], provider: str, model: str) -> dict[PriceSource, Price]:
        """Give a model's prices by source, the one in force first.

        Needs a grant to `read` the prices. Raises NotFound.
        """
        rows = grant.run(statements.FIND, **_write_key(provider, model))
        found = dict(map(_price, rows))
        if not found:
            raise NotFound("price")
        return found

    @staticmethod
    def compare(
        grant: Grant[PriceBook], prices: Sequence[Price], *, source: PriceSource
    ) -> list[PriceChange]:
        """Say what `upsert` would change, a value for each price in order. Needs `update`."""
        refuse_duplicates(prices)
        stored: dict[tuple[str, str], dict[PriceSource, Price]] = {}
        for row in grant.run(statements.FIND_ALL, batch=_write_batch(prices)):
            stored.setdefault((row.provider, row.model), {}).update([_price(row)])
        changes = []
        for price in prices:
            found = stored.get((price.provider, price.model), {})
            was = found.get(source)
            changes.append(PriceChange(price, was, was or next(iter(found.values()), None)))
        return changes

    @staticmethod
    def upsert(
        grant: Grant[PriceBook],
        prices: Sequence[Price],
        *,
        source: PriceSource = PriceSource.CUSTOM,
        allow_jumps: bool = False,
    ) -> BatchResult:
        """Store a batch of prices of one source, all or nothing. Needs a grant to `update` them.

        Those of the other source are not touched. A price that is the same as before stays as it
        is, `updated_at` too; each other one adds an entry to the audit trail. Raises InvalidInput
        where a model is twice in the batch, and (code `price-jump`, see
        `PriceChange.list_jumps`) where a price jumps, unless `allow_jumps`.
        """
        refuse_duplicates(prices)
        values = {"batch": _write_batch(prices), "source": source, "allow_jumps": allow_jumps}
        rows = grant.run(statements.UPSERT, **values).all()
        if rows[0].source is not None:
            guides = {(row.provider, row.model): _price(row)[1] for row in rows}
            guided = ((price, guides.get((price.provider, price.model))) for price in prices)
            refuse_jumps(PriceChange(price, None, guide) for price, guide in guided)
        return BatchResult(received=len(prices), changed=rows[0].changed)

    @staticmethod
    def remove(grant: Grant[PriceBook], provider: str, model: str) -> Price:
        """Take a model's custom price away and give it; the book's, if any, is in force then.

        Needs a grant to `update` the prices. Adds an entry to the audit trail. Raises NotFound.
        """
        row = grant.run(statements.REMOVE, **_write_key(provider, model)).one_or_none()
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
