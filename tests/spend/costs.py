"""What tokens cost, exactly: tokens times micros per million tokens is picos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from govbudget.spend.tokens import Tokens


def cost_in_picos(tokens: Tokens, prices: Sequence[int | None]) -> int | None:
    """Give what is known of the cost in picos (1 USD = 10^12), never rounded; None: nothing is.

    `prices` are micros per one million tokens, in the order input, output, cache read, cache write;
    None is not known. No tokens cost 0.
    """
    used = [(count, price) for count, price in zip(tokens.plain, prices, strict=True) if count]
    known = [count * price for count, price in used if price is not None]
    return sum(known) if known or not used else None


INPUT = (
    *("input", "cache_read", "cache_write", "cache_write_1h", "input_audio"),
    *("cache_read_audio", "input_image", "cache_read_image", "input_video"),
)


def cost_of(counts: Mapping[str, int], row: Mapping[str, Any]) -> tuple[int | None, list[str]]:
    """Give what is known of a cost in picos, and the units without a price, in no order.

    `row` is a price row as the API has it. A model of its own: it shares nothing with govbudget.
    """
    total = sum(counts.get(unit, 0) for unit in INPUT)
    rates = row
    for tier in row.get("tiers", []):
        if total > tier["input_above"]:
            rates = tier
    further = rates.get("further", {})
    used = {unit: count for unit, count in counts.items() if count}
    prices = {unit: rates.get(f"{unit}_price", further.get(unit)) for unit in used}
    known = [used[unit] * price for unit, price in prices.items() if price is not None]
    lacking = [unit for unit, price in prices.items() if price is None]
    return (sum(known) if known or not used else None), lacking
