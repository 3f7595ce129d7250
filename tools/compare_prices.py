"""Compare govbudget's exact costs with those of `genai-prices`: every model, at random usage.

    python -m tools.compare_prices

writes docs/prices-compared.md: how many models of the shipped book cost the same to the pico
(10^-12 USD), and how many do not, by what makes them differ. A test holds it equal. It reads the
data that the installed package carries, never the network.

The package counts every kind of input among the input, and charges what has no rate of its own as
another kind. So a usage is compared that has tokens of the kinds with a rate.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from genai_prices.data import providers
from genai_prices.types import Usage
from tools.make_price_seed import (
    RATES,
    SEED,
    SEED_VERSION,
    list_contexts,
    list_days,
    make_book,
    other_charges,
    prices_of_the_day,
)

from govbudget.prices.price import parse_prices

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from decimal import Decimal

    from genai_prices.types import ModelInfo, ModelPrice

    from govbudget.prices.price import Price

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "prices-compared.md"

HEAD = """\
# Costs compared with genai-prices

The shipped price book is made from [genai-prices](https://github.com/pydantic/genai-prices)
{version}. Of its {all:,} names, {same:,} cost what the package says, to the pico (10^-12 USD), at
random usage in the categories that they have a rate for: with long prompts, on every day, with
one-hour cache writes, audio, images, video and web searches, and as `@batch`, `@flex`, `@priority`
or `@fast`. The others differ:

| names | what makes them differ | what the book has |
|---|---|---|
"""

FOOT = """
Beside that:

- {cached:,} names have no rate for cached tokens. Both charge them as plain input.
- {others:,} names also charge what no key of `tokens` counts, such as storage searches, hours of
  audio, pages, or reasoning at a rate of its own. They look fully priced and are not.
- Any other category without a rate is unpriced here. The package charges it as another category.
- {left:,} names of the package have no price that a row can say. They are not in the book, and so
  unpriced, not free.

`python -m tools.make_price_seed --check --verbose` lists all of them by name. Where one matters to
you, set a custom price. Written by `python -m tools.compare_prices`, and held true by the tests.
"""

# key -> what makes a name differ, and what the book has
REASONS = {
    "hours": ("rates that change by the hour", "the highest of the day"),
    "request": ("a fee for each request", "the tokens and searches alone"),
    "noise": ("rates of broken micros", "0.13999999999999999 USD is 140,000 micros"),
}

# What the package counts, and the units that it counts among it.
COUNTED = {
    "input_tokens": (
        *("input", "cache_read", "cache_write", "cache_write_1h", "input_audio"),
        *("cache_read_audio", "input_image", "cache_read_image", "input_video"),
    ),
    "output_tokens": ("output", "output_audio", "output_image", "output_video"),
    "cache_read_tokens": ("cache_read", "cache_read_audio", "cache_read_image"),
    "cache_write_tokens": ("cache_write", "cache_write_1h"),
    "cache_write_1h_tokens": ("cache_write_1h",),
    "input_audio_tokens": ("input_audio", "cache_read_audio"),
    "cache_audio_read_tokens": ("cache_read_audio",),
    "output_audio_tokens": ("output_audio",),
    "input_image_tokens": ("input_image", "cache_read_image"),
    "cache_image_read_tokens": ("cache_read_image",),
    "output_image_tokens": ("output_image",),
    "input_video_tokens": ("input_video",),
    "output_video_tokens": ("output_video",),
    "web_searches": ("web_searches",),
}
SIZES = (0, 1, 999, 31_337, 150_000, 280_000)


def read_book() -> dict[tuple[str, str], list[Price]]:
    """Read the shipped price book: the rows of each name, the latest day first."""
    book: dict[tuple[str, str], list[Price]] = {}
    for price in sorted(parse_prices(SEED.read_bytes()), key=lambda price: price.key, reverse=True):
        book.setdefault((price.provider, price.model), []).append(price)
    return book


def cost_by_book(rows: list[Price], day: date, counts: Mapping[str, int]) -> int:
    """Give the cost in picos; every unit has a price."""
    price = next(row for row in rows if row.effective_from <= day)
    total = sum(counts.get(unit, 0) for unit in COUNTED["input_tokens"])
    rates = price.find_rates(total - 1)
    return sum(count * (rates[unit] or 0) for unit, count in counts.items())


def cost_by_package(prices: ModelPrice, counts: Mapping[str, int]) -> Decimal:
    """Give the package's cost in picos."""
    sums = {name: sum(counts.get(unit, 0) for unit in units) for name, units in COUNTED.items()}
    return prices.calc_price(Usage(**sums))["total_price"].scaleb(12)


def find_reason(of_the_day: Sequence[ModelPrice]) -> str:
    """Say what makes the cost of a name differ, as a key of REASONS."""
    if len(of_the_day) > 1:
        return "hours"
    return "request" if "requests_kcount" in other_charges(of_the_day[0]) else "noise"


def compare(rounds: int = 4) -> Iterator[tuple[str, str | None]]:
    """Give each name of the book, and what makes its cost differ (a key of REASONS), or None."""
    chance, book = random.Random(16), read_book()  # noqa: S311 - no secret
    for provider in sorted(providers, key=lambda provider: provider.id):
        for model in sorted(provider.models, key=lambda model: model.id):
            for name, context in list_contexts(model):
                rows = book.get((provider.id, name), [])
                reason = None
                for day in _choose_days(model) if rows else ():
                    of_the_day = prices_of_the_day(model, day, context)
                    for _ in range(rounds):
                        counts = {
                            unit: chance.choice(SIZES)
                            for rate, (unit, _) in RATES.items()
                            if getattr(of_the_day[0], rate) is not None
                        }
                        ours = cost_by_book(rows, day, counts)
                        if any(ours != cost_by_package(prices, counts) for prices in of_the_day):
                            reason = find_reason(of_the_day)
                if rows:
                    yield f"{provider.id}/{name}", reason


def _choose_days(model: ModelInfo) -> Iterator[date]:
    """Give a day for each of the model's rows: the first one before any start."""
    starts = list_days(model)[1:]
    yield starts[0] - timedelta(days=1) if starts else date(2026, 1, 1)
    yield from starts


def write_document(compared: Iterable[tuple[str, str | None]]) -> str:
    """Write the document of what `compare` gave."""
    found = Counter(reason for _, reason in compared)
    _, notes = make_book(providers)
    rows = "".join(f"| {found[key]:,} | {what} | {has} |\n" for key, (what, has) in REASONS.items())
    head = HEAD.format(version=SEED_VERSION, same=found[None], all=found.total())
    return (head + rows + FOOT).format(
        cached=len(notes.cached), others=len(notes.other_charges), left=len(notes.left_out)
    )


if __name__ == "__main__":
    DOCUMENT.write_text(write_document(compare()))
