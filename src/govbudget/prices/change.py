"""What a batch of prices would change, and what is wrong with one: doubles, and wrong units."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from govbudget.errors import FieldError, InvalidInput
from govbudget.money import PRICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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

    def list_jumps(self) -> Iterator[tuple[str, int, int]]:
        """Give name, old and new of each price that moves by more than MAX_FACTOR, up or down.

        From a price to 0 is a jump: a free model is admitted whatever was spent, and a price in too
        large a unit is rounded to 0. From 0, and from and to null (not known), there is no factor,
        and the new price counts or the call is refused: these are not jumps.
        """
        for name, old, new in self.list_moves():
            if old and new is not None and (new > old * MAX_FACTOR or old > new * MAX_FACTOR):
                yield name, old, new


def refuse_jumps(changes: Iterable[PriceChange]) -> None:
    """Raise InvalidInput (`price-jump`) that names each price that jumps, with both values."""
    errors = [
        FieldError(
            f"/{index}/{name}",
            f"`{change.price.provider}` `{change.price.model}` would go from {old} to {new}",
        )
        for index, change in enumerate(changes)
        for name, old, new in change.list_jumps()
    ]
    if errors:
        raise InvalidInput(
            f"{len(errors)} prices move by more than a factor of {MAX_FACTOR}, and nothing was"
            " stored. Check that they are micros per million tokens. If they are, allow the jumps:"
            " `?allow_jumps=true`, or `--allow-jumps` for the command",
            errors,
            "price-jump",
        )


def refuse_duplicates(prices: Sequence[Price]) -> None:
    """Raise InvalidInput that names the models that are more than once in a batch."""
    counts = Counter((price.provider, price.model) for price in prices)
    if len(counts) == len(prices):
        return
    errors = [
        FieldError(f"/{index}", f"`{price.provider}` `{price.model}` is there more than once")
        for index, price in enumerate(prices)
        if counts[price.provider, price.model] > 1
    ]
    raise InvalidInput(
        f"{len(errors)} rows name a model that another row names too; keep one of each",
        errors,
    )
