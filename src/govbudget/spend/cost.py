"""What tokens cost, exactly: tokens times micros per million tokens is picos."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from govbudget.spend.tokens import Tokens

PICOS_PER_MICRO = 10**6


def cost_in_picos(tokens: Tokens, prices: Sequence[int | None]) -> int | None:
    """Give the cost in picos (1 USD = 10^12), never rounded; None where it is not known.

    `prices` are micros per one million tokens, in the order input, output, cache read, cache write.
    A price that is not known (None) makes the cost unknown where its category has tokens.
    """
    cost = 0
    for count, price in zip(tokens.counts, prices, strict=True):
        if count and price is None:
            return None
        cost += count * (price or 0)
    return cost


def round_up_to_micros(picos: int) -> int:
    """Give whole micros for showing, rounded up: nothing that cost something is shown as 0."""
    return -(-picos // PICOS_PER_MICRO)
