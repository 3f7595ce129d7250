"""The prices of models: stored in batches, looked up by key; only a grant runs their SQL."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from govbudget.errors import NotFound
from govbudget.money import PRICES
from govbudget.prices import statements
from govbudget.prices.change import PriceChange, refuse_duplicates, refuse_jumps
from govbudget.prices.names import Match, find_candidate, find_match

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Row

    from govbudget.db.unit import Grant
    from govbudget.identity import PriceBook
    from govbudget.prices.price import NamedPrice, Price


_COLUMNS = ("provider", "model", *PRICES)


class PriceSource(StrEnum):
    """Where a price comes from; of two prices of one model, the custom one is in force."""

    BOOK = "book"
    CUSTOM = "custom"


# What is stored of each name.
_Stored = dict[tuple[str, ...], list[tuple[PriceSource, "Price"]]]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How many rows a batch had, and how many models were new or got another price."""

    received: int
    changed: int


@dataclass(frozen=True, slots=True)
class DatedPrice:
    """A price of one source, and whether its day has come."""

    source: PriceSource
    price: Price
    has_come: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a batch would change, a value a row in order; and the rows that it would delete."""

    changes: list[PriceChange]
    removed: list[Price]


class Prices:
    """The functions on prices: one statement each, run by a grant. They never commit."""

    @staticmethod
    def get(grant: Grant[PriceBook], provider: str, model: str) -> NamedPrice:
        """Give the price in force: of the exact name, else of the one that a rule says it means.

        Needs a grant to `read` the prices. Raises NotFound.
        """
        from govbudget.prices.price import NamedPrice, PricedAsField  # noqa: PLC0415 - pydantic

        found, match = Prices.find_named(grant, provider, model)
        whose = match and PricedAsField(**match.priced_as._asdict())
        named = {"provider": provider, "model": model, "priced_as": whose}
        return NamedPrice.model_construct(**{**dict(next(iter(found.values()))), **named})

    @staticmethod
    def find_named(
        grant: Grant[PriceBook], provider: str, model: str
    ) -> tuple[dict[PriceSource, Price], Match | None]:
        """Give what `find` does: of the exact name, else by a rule, which is given with it.

        Needs a grant to `read` the prices. Raises NotFound.
        """
        try:
            return Prices.find(grant, provider, model), None
        except NotFound:
            match = find_match(provider, model)
            if match is None:
                raise
            return Prices.find(grant, *match.priced_as), match

    @staticmethod
    def find(grant: Grant[PriceBook], provider: str, model: str) -> dict[PriceSource, Price]:
        """Give a model's prices by source, the one in force first.

        Needs a grant to `read` the prices. Raises NotFound.
        """
        found: dict[PriceSource, Price] = {}
        for dated in Prices.list_days(grant, provider, model):
            if dated.has_come:
                found.setdefault(dated.source, dated.price)
        if not found:
            raise NotFound("price")
        return found

    @staticmethod
    def list_days(grant: Grant[PriceBook], provider: str, model: str) -> Sequence[DatedPrice]:
        """List a model's prices of all days: custom ones first, of each source the latest first.

        The first that has come is in force. Needs a grant to `read` the prices. Raises NotFound.
        """
        rows = grant.run(statements.FIND, **_write_key(provider, model)).all()
        if not rows:
            raise NotFound("price")
        return [DatedPrice(PriceSource(row.source), read_row(row), row.has_come) for row in rows]

    @staticmethod
    def list(
        grant: Grant[PriceBook], *, limit: int, after: tuple[str, ...] | None = None
    ) -> Sequence[DatedPrice]:
        """List the prices in force by provider and model, at most `limit`, those after one.

        Needs a grant to `read` the prices.
        """
        provider, model = after or (None, None)
        rows = grant.run(statements.LIST, page_size=limit, provider=provider, model=model)
        return [DatedPrice(PriceSource(row.source), read_row(row), has_come=True) for row in rows]

    @staticmethod
    def compare(
        grant: Grant[PriceBook], prices: Sequence[Price], *, source: PriceSource
    ) -> Comparison:
        """Say what `upsert` would change. Needs a grant to `update` the prices."""
        refuse_duplicates(prices)
        stored: _Stored = {}
        own: dict[tuple[object, ...], Price] = {}
        names = {price.key[:2] for price in prices}
        for row in grant.run(statements.FIND_ALL, batch=_write_batch(prices)):
            price = read_row(row)
            stored.setdefault(price.key[:2], []).append((PriceSource(row.source), price))
            if row.source == source and price.key[:2] in names:
                own[price.key] = price
        changes = [
            PriceChange(price, own.pop(price.key, None), _find_guide(stored, price, source))
            for price in prices
        ]
        return Comparison(changes, list(own.values()) if source is PriceSource.BOOK else [])

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
        is, `updated_at` too; each other one adds an entry to the audit trail. The book replaces all
        days of the models that it names; a custom price those of its own day alone. Raises
        InvalidInput where a model is twice in the batch for one day, and (code `price-jump`, see
        `PriceChange.list_jumps`) where a price jumps, unless `allow_jumps`.
        """
        refuse_duplicates(prices)
        values = {"batch": _write_batch(prices), "source": source, "allow_jumps": allow_jumps}
        rows = grant.run(statements.UPSERT, **values).all()
        if rows[0].source is not None:
            guides = {(row.provider, row.model, row.day): read_row(row) for row in rows}
            guided = ((price, guides.get(price.key)) for price in prices)
            refuse_jumps(PriceChange(price, None, guide) for price, guide in guided)
        return BatchResult(received=len(prices), changed=rows[0].changed)

    @staticmethod
    def remove(grant: Grant[PriceBook], provider: str, model: str) -> Price:
        """Take a model's custom prices of all days away and give the last one.

        The book's, if any, is in force then. Needs a grant to `update` the prices. Adds an entry to
        the audit trail for each. Raises NotFound.
        """
        row = grant.run(statements.REMOVE, **_write_key(provider, model)).first()
        if row is None:
            raise NotFound("price")
        return read_row(row)


def _find_guide(stored: _Stored, price: Price, source: PriceSource) -> Price | None:
    """Find what a new price is compared with, as the statement that stores it does."""
    named, meant = price.key[:2], tuple(find_candidate(*price.key[:2]) or ())
    for name, first in ((named, source), (meant, PriceSource.CUSTOM)):
        found = stored.get(name, ())
        come = [one for one in found if one[1].effective_from <= price.effective_from]
        if come:
            return max(come, key=lambda one: (one[0] is first, one[1].effective_from))[1]
    return None


def _write_batch(prices: Iterable[Price]) -> str:
    """Write the rows as their table has them; what a plain price does not say is left out."""
    rows = []
    for price in prices:
        row: dict[str, object] = {name: getattr(price, name) for name in _COLUMNS}
        if price.effective_from != date.min:
            row["effective_from"] = price.effective_from.isoformat()
        if price.further or price.tiers:
            row["more"] = price.more
        if meant := find_candidate(price.provider, price.model):
            row["candidate"] = meant
        rows.append(row)
    return json.dumps(rows)


def _write_key(provider: str, model: str) -> dict[str, str]:
    if "\0" in provider + model:  # PostgreSQL's text can't hold it, so no price has it
        raise NotFound("price")
    return {"provider": provider, "model": model}


def read_row(row: Row[Any]) -> Price:
    """Read a row of the table."""
    from govbudget.prices.price import read_price  # noqa: PLC0415 - pydantic, when first needed

    return read_price(row.provider, row.model, row.effective_from, row._asdict())
