"""What tokens cost, exactly: tokens times micros per million tokens is picos."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from govbudget.spend.tokens import Tokens


def cost_in_picos(tokens: Tokens, prices: Sequence[int | None]) -> int | None:
    """Give what is known of the cost in picos (1 USD = 10^12), never rounded; None: nothing is.

    `prices` are micros per one million tokens, in the order input, output, cache read, cache write;
    None is not known. No tokens cost 0.
    """
    used = [(count, price) for count, price in zip(tokens.counts, prices, strict=True) if count]
    known = [count * price for count, price in used if price is not None]
    return sum(known) if known or not used else None
