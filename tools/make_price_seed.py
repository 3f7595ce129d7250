"""Make the seed price book, `src/govbudget/prices/seed.json`, from the package `genai-prices`.

Source: https://github.com/pydantic/genai-prices, MIT. The seed in this tree was made from the
version and for the day that SEED_VERSION and SEED_AS_OF name; set them when you refresh it. The
package is needed here only, in development; govbudget itself never imports it, and this script
reads the data that the package carries, never the network.

    python tools/make_price_seed.py [--as-of 2026-11-23] [--check] [--verbose]

The file is a JSON array, sorted by provider and model, a row a line. A price is an integer of
micros (1 USD = 1,000,000 micros) per one million tokens, or null for "not known". No date stands
in it: the same package and the same `--as-of` (a UTC day, by default today) give the same bytes.
`--check` writes nothing and exits 1 when the file is not what would be written.

What is chosen where the package knows more than one price, and why:

- By date: the prices in force on the day, as the package's own `ModelInfo.get_prices` finds them
  (the last entry whose constraint holds, else the first). A price that starts later waits for the
  next refresh; those to come are listed.
- By time of day (peak hours): each rate at its highest of the day, since the book has one price
  for all hours and a budget must not be overspent at peak; null if it is not known at some hour.
- By length of the prompt (tiers): the base rate, the price of a prompt below the first threshold,
  which most calls are. A long prompt costs more than the book says; the models are listed, so
  that a custom price can be set for those that matter.
- By request (`price_variants`: batch, flex, priority, fast, another route): none of them. They
  hold only for a caller that asked for one, and the plain call has the standard price.
- By kind of token (audio, image, one-hour cache writes) or by anything but tokens (searches,
  pages, seconds): not in the book, whose four categories are those of plain tokens. A cache write
  has the plain rate, that of five minutes.

A rate that the package does not state is null, never zero and never guessed from another: unknown
is refused, zero is free. Left out, and listed: models that have none of the four rates (the row
would be four nulls, which says no more than no row; here many are free variants whose price
nobody wrote down), models whose tokens are free but something else is charged, and names or rates
that the price book does not take. Rates that are no whole micros (0.13999999999999999 USD) are
rounded, half to even, and listed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import ROUND_HALF_EVEN, Decimal
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from genai_prices.data import providers as known_providers
from genai_prices.types import StartDateConstraint, TieredPrices, TimeOfDateConstraint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from genai_prices.types import ModelInfo, ModelPrice, Provider

SEED_VERSION = "0.2.3"
SEED_AS_OF = date(2026, 11, 23)

SEED = Path(__file__).resolve().parent.parent / "src" / "govbudget" / "prices" / "seed.json"

# What the price book takes (govbudget.prices.price).
MAX_PRICE = 10**12
MAX_NAME = 256
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# The package's rates, in USD per million tokens, and the row's fields, in the row's order.
RATES = {
    "input_mtok": "input_price",
    "output_mtok": "output_price",
    "cache_read_mtok": "cache_read_price",
    "cache_write_mtok": "cache_write_price",
}

Key = tuple[str, str]  # provider, model
Prices = tuple[int | None, ...]  # in the order of RATES
Book = dict[Key, Prices]


class UnusableError(Exception):
    """A model that cannot stand in the price book, and why."""


@dataclass
class Notes:
    """What was not plain, a line each."""

    left_out: list[str] = field(default_factory=list)
    quantised: list[str] = field(default_factory=list)
    tiered: list[str] = field(default_factory=list)
    dated: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    hourly: list[str] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)
    other_charges: list[str] = field(default_factory=list)

    def titled(self) -> Iterable[tuple[str, list[str]]]:
        """Return each list with what it says."""
        return (
            ("models left out", self.left_out),
            ("rates rounded to whole micros", self.quantised),
            ("rates with tiers, of which the base is taken", self.tiered),
            ("models with prices by date, of which those of the day are taken", self.dated),
            ("prices that start after the day, not taken", self.later),
            ("models with prices by time of day, of which the highest are taken", self.hourly),
            ("models with prices by request, not taken", self.variants),
            ("models with charges that the book has no field for", self.other_charges),
        )


def prices_of_the_day(model: ModelInfo, day: date) -> list[ModelPrice]:
    """Return the prices in force on the day: one, or one for each part of it."""
    moments = {time(0, tzinfo=UTC)}
    if isinstance(model.prices, list):
        for entry in model.prices:
            if isinstance(entry.constraint, TimeOfDateConstraint):
                moments.add(utc_time(entry.constraint.start_time, day))
                moments.add(utc_time(entry.constraint.end_time, day))
    found: list[ModelPrice] = []
    for moment in sorted(moments):
        prices = model.get_prices(datetime.combine(day, moment))
        if prices not in found:
            found.append(prices)
    return found


def utc_time(value: time, day: date) -> time:
    """Return a time of day in UTC; one without a zone is UTC, as in the package."""
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return datetime.combine(day, value).astimezone(UTC).timetz()


def base_rate(value: Decimal | TieredPrices | None) -> Decimal | None:
    """Return the rate that holds below the first tier."""
    return value.base if isinstance(value, TieredPrices) else value


def micros(rate: Decimal) -> int:
    """Return USD as whole micros, half to even; the shift by six digits is exact."""
    if not rate.is_finite():
        raise UnusableError(f"the rate {rate} is not a number")
    shifted = rate.scaleb(6)
    if not 0 <= shifted <= MAX_PRICE:
        raise UnusableError(f"the rate {rate} is out of range")
    whole = int(shifted.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
    if whole == 0 and rate != 0:
        raise UnusableError(f"the rate {rate} would be rounded to free")
    return whole


def check_names(provider: str, model: str) -> None:
    """Raise UnusableError for names that the price book does not take."""
    if "/" in provider:
        raise UnusableError("the provider holds a slash")
    for what, name in (("provider", provider), ("model", model)):
        if not 1 <= len(name) <= MAX_NAME:
            raise UnusableError(f"the {what} has {len(name)} characters")
        if CONTROL.search(name):
            raise UnusableError(f"the {what} holds a control character")


def other_charges(prices: ModelPrice) -> list[str]:
    """Return the package's names of the charges that a row has no field for."""
    return sorted(
        name
        for name, value in vars(prices).items()
        if name not in RATES and not name.startswith("_") and base_rate(value)
    )


def row_of(provider: Provider, model: ModelInfo, day: date, notes: Notes) -> Prices:
    """Return a model's four prices, noting what was not plain; raise UnusableError if none."""
    name = f"{provider.id}/{model.id}"
    check_names(provider.id, model.id)
    of_the_day = prices_of_the_day(model, day)
    others = sorted({other for prices in of_the_day for other in other_charges(prices)})

    # Notes are kept only for a model that gets a row.
    tiered: list[str] = []
    quantised: list[str] = []
    row: list[int | None] = []
    for rate_name, price_name in RATES.items():
        values = [getattr(prices, rate_name) for prices in of_the_day]
        rates = [rate for value in values if (rate := base_rate(value)) is not None]
        if len(rates) < len(values):
            row.append(None)
            continue
        rate = max(rates)
        price = micros(rate)
        row.append(price)
        if Decimal(price) != rate.scaleb(6):
            quantised.append(f"{name} {price_name}: {rate} USD -> {price}")
        for value in values:
            if isinstance(value, TieredPrices):
                steps = ", ".join(f"{tier.price} above {tier.start}" for tier in value.tiers)
                tiered.append(f"{name} {price_name}: {value.base} USD, {steps}")

    if all(price is None for price in row):
        raise UnusableError(
            f"no price of tokens, only {', '.join(others)}" if others else "no price"
        )
    if others and not any(row):
        raise UnusableError(f"tokens are free, but not {', '.join(others)}")

    notes.tiered += tiered
    notes.quantised += quantised
    note_choices(name, model, day, notes)
    if len(of_the_day) > 1:
        notes.hourly.append(f"{name}: {' | '.join(map(str, of_the_day))}")
    if others:
        notes.other_charges.append(f"{name}: {', '.join(others)}")
    return tuple(row)


def note_choices(name: str, model: ModelInfo, day: date, notes: Notes) -> None:
    """Note prices that hold by date or by request."""
    entries = model.prices if isinstance(model.prices, list) else []
    starts = [
        entry.constraint.start_date
        for entry in entries
        if isinstance(entry.constraint, StartDateConstraint)
    ]
    if starts:
        notes.dated.append(f"{name}: {', '.join(map(str, starts))}")
    notes.later += [f"{name}: {start}" for start in starts if start > day]
    if model.price_variants:
        whens = {
            " ".join(f"{key}={value}" for key, value in sorted(variant.when.items()))
            for variant in model.price_variants
        }
        notes.variants.append(f"{name}: {', '.join(sorted(whens))}")


def make_book(providers: Iterable[Provider], day: date) -> tuple[Book, Notes]:
    """Return the price book of a day, sorted, and what was not plain."""
    notes = Notes()
    book: Book = {}
    for provider in sorted(providers, key=lambda provider: provider.id):
        for model in sorted(provider.models, key=lambda model: model.id):
            key = (provider.id, model.id)
            if key in book:
                raise SystemExit(f"genai-prices has {key[0]}/{key[1]} twice; which one holds?")
            try:
                book[key] = row_of(provider, model, day, notes)
            except UnusableError as error:
                # Escaped: the name may be what is wrong with it.
                notes.left_out.append(f"{ascii('/'.join(key))[1:-1]}: {error}")
    return book, notes


def to_json(book: Book) -> bytes:
    """Return the book as a JSON array, a row a line."""
    lines = [
        json.dumps(
            {"provider": provider, "model": model, **dict(zip(RATES.values(), row, strict=True))},
            ensure_ascii=False,
        )
        for (provider, model), row in sorted(book.items())
    ]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def from_json(content: bytes) -> Book:
    """Read a book that this script wrote."""
    rows = json.loads(content, parse_float=Decimal)
    return {
        (row["provider"], row["model"]): tuple(row[name] for name in RATES.values()) for row in rows
    }


def differences(old: Book, new: Book) -> Iterable[str]:
    """Return a line for each model that was added, removed or changed."""
    fields = tuple(RATES.values())

    def shown(price: int | None) -> str:
        return "null" if price is None else str(price)

    for key in sorted(old.keys() | new.keys()):
        name = "/".join(key)
        if key not in old:
            yield f"+ {name}: " + " ".join(map(shown, new[key]))
        elif key not in new:
            yield f"- {name}: " + " ".join(map(shown, old[key]))
        elif old[key] != new[key]:
            yield f"~ {name}: " + ", ".join(
                f"{field_name} {shown(before)} -> {shown(after)}"
                for field_name, before, after in zip(fields, old[key], new[key], strict=True)
                if before != after
            )


def report_differences(before: bytes | None, new: Book) -> None:
    """Print what the book adds, removes and changes."""
    if before is None:
        print(f"no file before: {len(new)} rows added")
        return
    try:
        old = from_json(before)
    except (ValueError, KeyError, TypeError) as error:
        print(f"the file is not a price book, so it is not compared: {error!r}")
        return
    lines = list(differences(old, new))
    added, removed, changed = (sum(line[0] == sign for line in lines) for sign in "+-~")
    print(f"{added} added, {removed} removed, {changed} changed")
    for line in lines:
        print(f"  {line}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description="Make the seed price book from genai-prices.")
    parser.add_argument(
        "--as-of",
        type=date.fromisoformat,
        default=datetime.now(UTC).date(),
        metavar="DATE",
        help="take the prices in force on this UTC day (default: today)",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the file would change"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="list what was left out, rounded or chosen"
    )
    options = parser.parse_args(arguments)

    book, notes = make_book(known_providers, options.as_of)
    content = to_json(book)
    before = SEED.read_bytes() if SEED.exists() else None

    models = sum(len(provider.models) for provider in known_providers)
    print(f"genai-prices {version('genai-prices')} (MIT), as of {options.as_of}")
    print(f"{models} models of {len(known_providers)} providers")
    print(f"{len(book)} rows of {len({provider for provider, _ in book})} providers")
    report_differences(before, book)
    for title, lines in notes.titled():
        print(f"{len(lines)} {title}")
        if options.verbose:
            for line in lines:
                print(f"  {line}")

    if content == before:
        print(f"{SEED.name} is up to date")
        return 0
    if options.check:
        print(f"{SEED.name} is not what would be written", file=sys.stderr)
        return 1
    SEED.write_bytes(content)
    print(f"{SEED.name} written, {len(content)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
