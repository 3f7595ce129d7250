"""Compare govbudget's exact costs with those of `genai-prices`, model by model.

    python -m tools.compare_prices

writes docs/prices-compared.md: the models of the package whose cost is not compared, and why. A
test holds it equal, and demands that every other model costs the same to the pico (10^-12 USD). It
reads the data that the installed package carries, never the network.

The package counts cached tokens among the input, and charges a category that has no rate of its
own as another. So a usage is compared that has tokens in the categories with a rate, and its input
is given to the package with the cached tokens added.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from genai_prices.data import providers
from genai_prices.types import ModelPrice, TieredPrices, TimeOfDateConstraint, Usage
from tools.make_price_seed import RATES, SEED, SEED_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    from genai_prices.types import ModelInfo

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "prices-compared.md"

HEAD = """\
# Costs compared with genai-prices

On the same usage govbudget's cost of a model is that of
[genai-prices](https://github.com/pydantic/genai-prices) {version}, to the pico (10^-12 USD), for
the {plain} models of the shipped price book whose rates are plain. The others are listed here, with
what makes the two differ; where that matters to you, set a custom price. Where a category of tokens
has no rate, the package charges another's; govbudget calls such usage unpriced.

Written by `python -m tools.compare_prices`, and held true by the tests.
"""

SECTION = """
## {title}: {count}

{sentence}

```text
{models}
```
"""

# key -> title and sentence
REASONS = {
    "tiers": ("Long prompts cost more", "The book has the rate of a prompt below the first tier."),
    "date": ("Rates that change by date", "The book has those of the day that it was made for."),
    "hours": ("Rates that change by the hour", "The book has the highest of the day."),
    "request": ("A charge for each request", "The book has prices of tokens only."),
    "noise": ("Rates of broken micros", "0.13999999999999999 USD is 140,000 micros in the book."),
    "none": ("No price of tokens", "These are not in the book, and so unpriced, not free."),
}


def find_reason(model: ModelInfo, row: Sequence[int | None] | None) -> str | None:
    """Say why a model is not compared, as a key of REASONS, or give None."""
    if row is None:
        return "none"
    if not isinstance(model.prices, ModelPrice):
        hourly = any(isinstance(item.constraint, TimeOfDateConstraint) for item in model.prices)
        return "hours" if hourly else "date"
    rates = [getattr(model.prices, name) for name in RATES]
    if any(isinstance(rate, TieredPrices) for rate in rates):
        return "tiers"
    if getattr(model.prices, "requests_kcount", None):
        return "request"
    if any(rate is not None and rate.scaleb(6) % 1 for rate in rates):
        return "noise"
    return None


def read_book() -> dict[tuple[str, str], tuple[int | None, ...]]:
    """Read the shipped price book."""
    return {
        (row["provider"], row["model"]): tuple(row[name] for name in RATES.values())
        for row in json.loads(SEED.read_bytes())
    }


def sort_models() -> Iterator[tuple[str, ModelInfo, tuple[int | None, ...] | None, str | None]]:
    """Give each model: its name, the package's, the book's prices, and why it is not compared."""
    book = read_book()
    for provider in sorted(providers, key=lambda provider: provider.id):
        for model in sorted(provider.models, key=lambda model: model.id):
            row = book.get((provider.id, model.id))
            yield f"{provider.id}/{model.id}", model, row, find_reason(model, row)


def cost_by_package(prices: ModelPrice, counts: Sequence[int]) -> Decimal:
    """Give the package's cost, in picos, of tokens of input, output, cache read and cache write."""
    plain, output, read, written = counts
    usage = Usage(
        input_tokens=plain + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    return prices.calc_price(usage)["total_price"].scaleb(12)


def write_document() -> str:
    """Write the document."""
    models: dict[str | None, list[str]] = {}
    for name, *_, reason in sort_models():
        models.setdefault(reason, []).append(ascii(name)[1:-1])
    sections = [
        SECTION.format(
            title=title, sentence=sentence, count=len(models[key]), models="\n".join(models[key])
        )
        for key, (title, sentence) in REASONS.items()
    ]
    head = HEAD.format(version=SEED_VERSION, plain=f"{len(models[None]):,}")
    return head + "".join(sections)


if __name__ == "__main__":
    DOCUMENT.write_text(write_document())
