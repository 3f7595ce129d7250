"""What a batch of prices would change, and what is wrong with one: doubles, and wrong units."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from govbudget.db.tables import PRICES
from govbudget.errors import FieldError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from govbudget.prices.price import Price

# A price in the wrong unit is off by a thousand or a million; a real one seldom moves this far.
MAX_FACTOR = 20


@dataclass(frozen=True, slots=True)
class PriceChange:
    """A price of a batch: `was` is what it replaces, `guide` what it is compared with.

    The guide is the price that it replaces, or, where its source has none, the one in force.
    """

    price: Price
    was: Price | None
    guide: Price | None

    @property
    def is_needed(self) -> bool:
        """Whether the batch says anything else than what is stored."""
        return self.price != self.was

    def list_moves(self) -> Iterator[tuple[str, int | None, int | None]]:
        """Give name, old and new of each of the four prices that is another than the guide's."""
        for name in PRICES:
            old: int | None = getattr(self.guide, name, None)
            new: int | None = getattr(self.price, name)
            if old != new:
                yield name, old, new

    def list_jumps(self, factor: int) -> Iterator[tuple[str, int, int]]:
        """Give name, old and new of each price that moves by more than the factor, up or down.

        To and from null (not known) and 0 (free) no factor leads: those are no jumps.
        """
        for name, old, new in self.list_moves():
            if old and new and (new > old * factor or old > new * factor):
                yield name, old, new


def refuse_jumps(changes: Sequence[PriceChange], factor: int) -> None:
    """Raise InvalidInput that names each price that jumps, with both values."""
    errors = [
        FieldError(
            f"/{index}/{name}",
            f"`{change.price.provider}` `{change.price.model}` would go from {old} to {new}",
        )
        for index, change in enumerate(changes)
        for name, old, new in change.list_jumps(factor)
    ]
    if errors:
        raise InvalidInput(
            f"nothing is loaded: {len(errors)} prices move by more than a factor of {factor}; are"
            " they micros per million tokens? --allow-jumps takes them as they are",
            errors,
            "input-invalid",
        )


def refuse_duplicates(prices: Sequence[Price]) -> None:
    """Raise InvalidInput that names the models that stand more than once in a batch."""
    counts = Counter((price.provider, price.model) for price in prices)
    if len(counts) == len(prices):
        return
    errors = [
        FieldError(f"/{index}", f"`{price.provider}` `{price.model}` stands more than once")
        for index, price in enumerate(prices)
        if counts[price.provider, price.model] > 1
    ]
    raise InvalidInput(
        f"{len(errors)} rows name a model that another row names too; keep one of each",
        errors,
    )
