"""What a batch of prices would change, and what is wrong with one: doubles, and wrong units."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from govbudget.errors import FieldError, InvalidInput
from govbudget.money import find_price

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from govbudget.prices.price import Price

# A price in the wrong unit is off by a thousand or a million; a real one seldom moves this far.
MAX_FACTOR = 20


@dataclass(frozen=True, slots=True)
class PriceChange:
    """A price of a batch: `was` is what it replaces, `guide` what it is compared with.

    The guide is the price of its source that is in force on its day, or, where its source has
    none, the one of the other source; else that of the name which a rule says that it means.
    """

    price: Price
    was: Price | None
    guide: Price | None

    @property
    def is_needed(self) -> bool:
        """Whether the batch says anything else than what is stored."""
        return self.price != self.was

    def list_moves(self) -> Iterator[tuple[str, int | None, int | None]]:
        """Give name, old and new of each price that is another than the guide's.

        The name is a path into the row: `input_price`, `further/web_searches`, or, where prices
        change with the length of the prompt, `tiers/0/input_price`.
        """
        found = [one for one in (self.price, self.guide) if one is not None]
        above = {tier.input_above for one in found for tier in one.tiers}
        before: dict[str, tuple[int | None, int | None]] = {}
        for level in (0, *sorted(above)):
            old = {} if self.guide is None else self.guide.find_rates(level)
            new = self.price.find_rates(level)
            both = {unit: (old.get(unit), new.get(unit)) for unit in {**old, **new}}
            for unit, (was, is_now) in both.items():
                if was != is_now and before.get(unit) != (was, is_now):
                    yield self._find_place(level) + "/".join(find_price(unit)), was, is_now
            before = both

    def _find_place(self, level: int) -> str:
        """Give where in the row the prices of a length of the prompt are."""
        reached = sum(tier.input_above <= level for tier in self.price.tiers)
        return f"tiers/{reached - 1}/" if reached else ""

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
    """Raise InvalidInput that names the models that are more than once in a batch, for one day."""
    counts = Counter(price.key for price in prices)
    if len(counts) == len(prices):
        return
    errors = [
        FieldError(
            f"/{index}",
            f"`{price.provider}` `{price.model}` is there more than once for one day",
        )
        for index, price in enumerate(prices)
        if counts[price.key] > 1
    ]
    raise InvalidInput(
        f"{len(errors)} rows name a model and a day that another row names too; keep one of each",
        errors,
    )
