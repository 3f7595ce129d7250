"""Money as integers: the bounds of what is stored, and micros from picos.

1 USD is 1,000,000 micros, or 10^12 picos. Tokens times micros per one million tokens is picos.
"""

from __future__ import annotations

import re

MAX_LIMIT_MICROS = 10**12
MAX_PRICE = 10**12
MAX_TOKENS = 10**12
MAX_COST_PICOS = 10**18
PICOS_PER_MICRO = 10**6
# What a price and a count of tokens are of, as a caller of the API calls them.
UNITS = ("input", "output", "cache_read", "cache_write")
# Their columns: micros per one million tokens (NULL: not known), and the tokens of a call.
PRICE_OF = {unit: f"{unit}_price" for unit in UNITS}
PRICES = tuple(PRICE_OF.values())
TOKENS = tuple(f"{unit}_tokens" for unit in UNITS)
# Units without a column: their prices and counts are JSON. Those of the input count for a tier.
FURTHER_INPUT = (
    *("cache_write_1h", "input_audio", "cache_read_audio"),
    *("input_image", "cache_read_image", "input_video"),
)
FURTHER = (*FURTHER_INPUT, "output_audio", "output_image", "output_video", "web_searches")


def find_price(unit: str) -> tuple[str, ...]:
    """Find where in a row the price of a unit is: `input_price`, or `further`, `web_searches`."""
    return (PRICE_OF[unit],) if unit in PRICE_OF else ("further", unit)


def check_limit(limit_micros: int) -> int:
    """Give a limit back; raise ValueError unless it is an int from 0 to 10^12 micros."""
    if type(limit_micros) is not int or not 0 <= limit_micros <= MAX_LIMIT_MICROS:
        message = f"limit_micros must be an int from 0 to {MAX_LIMIT_MICROS}: {limit_micros!r}"
        raise ValueError(message)
    return limit_micros


def round_up_to_micros(picos: int) -> int:
    """Give whole micros for showing, rounded up: nothing that cost something is shown as 0."""
    return -(-picos // PICOS_PER_MICRO)


def parse_usd(text: str) -> int:
    """Give the micros of an amount in USD, such as `20` or `0.5`, without rounding.

    Raises ValueError unless it is plain digits with at most six of them after the point, and at
    most 10^12 micros.
    """
    found = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?", text)
    micros = int(found[1] + (found[2] or "").ljust(6, "0")) if found else -1
    if not 0 <= micros <= MAX_LIMIT_MICROS:
        message = f"`{text}` is not an amount in USD; write one such as 20 or 0.50, of at most "
        raise ValueError(f"{message}{write_usd(MAX_LIMIT_MICROS)} and to six decimal places")
    return micros


def write_usd(micros: int) -> str:
    """Write micros as USD, exactly: 20500000 is `20.5`."""
    text = f"{micros // 10**6}.{micros % 10**6:06}"
    return text.rstrip("0").rstrip(".")
