"""Make the seed price book, `src/govbudget/prices/seed.json`, from the package `genai-prices`.

Source: https://github.com/pydantic/genai-prices, MIT. The seed in this tree was made from the
version that SEED_VERSION names; set it when you refresh it. The book needs the package here only,
in development. This script reads the data that the package carries, never the network.

    python -m tools.make_price_seed [--check] [--verbose]

The file is a JSON array, sorted by provider, model and day, a row a line, as `prices load` reads
it. The same package gives the same bytes. `--check` writes nothing and exits 1 when the file is not
what would be written.

What is chosen where the package knows more than one price, and why:

- By date: a row for each day on which a price changes, also those to come.
- By time of day (peak hours): each rate at its highest of the day, since the book has one price
  for all hours and a budget must not be overspent at peak; null if it is not known at some hour.
- By length of the prompt (tiers): a tier for each threshold, with all rates above it.
- By request (`price_variants`): batch, flex, priority and Anthropic's fast mode are models of
  their own, such as `gpt-4o@batch`. Other choices, such as a route, are not in the book.
- Cached tokens that have no rate of their own cost what plain input costs, as in the package.
- What no key of `tokens` counts (a fee a request, storage searches, hours, pages) is not in the
  book; the models that charge it are listed.

Any other rate that the package does not state is null, never zero: unknown is refused, zero is
free. Left out, and listed: models that have no rate that a row can say (here many are free
variants whose price nobody wrote down), models whose tokens are free but something else is
charged, and names or rates that the price book does not take. Rates that are no whole micros
(0.13999999999999999 USD) are rounded, half to even, and listed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_prices.data import providers as known_providers
from genai_prices.types import (
    ClauseAnd,
    ClauseOr,
    ClauseRegex,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from genai_prices.types import MatchLogic, ModelInfo, ModelPrice, PriceVariant, Provider

    Context = dict[str, str] | None

SEED_VERSION = "0.2.3"

NAMES = Path(__file__).resolve().parent.parent / "src" / "govbudget" / "prices" / "names.json"
SEED = Path(__file__).resolve().parent.parent / "src" / "govbudget" / "prices" / "seed.json"

# What the price book takes (govbudget.prices.price).
MAX_PRICE = 10**12
MAX_NAME = 256
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# The package's rates in USD, the unit that a row has of each, and how many of it a rate is for.
RATES = {
    "input_mtok": ("input", 10**6),
    "output_mtok": ("output", 10**6),
    "cache_read_mtok": ("cache_read", 10**6),
    "cache_write_mtok": ("cache_write", 10**6),
    "cache_write_1h_mtok": ("cache_write_1h", 10**6),
    "input_audio_mtok": ("input_audio", 10**6),
    "cache_audio_read_mtok": ("cache_read_audio", 10**6),
    "output_audio_mtok": ("output_audio", 10**6),
    "input_image_mtok": ("input_image", 10**6),
    "cache_image_read_mtok": ("cache_read_image", 10**6),
    "output_image_mtok": ("output_image", 10**6),
    "input_video_mtok": ("input_video", 10**6),
    "output_video_mtok": ("output_video", 10**6),
    "web_searches_kcount": ("web_searches", 10**3),
}
FOUR = ("input", "output", "cache_read", "cache_write")
# What a request asks for, and the end of the name of the model that it is in the book.
VARIANTS = (
    ("processing", "batch"),
    ("service_tier", "flex"),
    ("service_tier", "priority"),
    ("speed", "fast"),
)

# Names of providers in other tools, by equality.
ALIASES = {
    "xai": "x-ai",
    "grok": "x-ai",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "amazon-bedrock": "aws",
    "aws-bedrock": "aws",
    "vertex_ai": "google",
    "vertexai": "google",
    "google-vertex": "google",
    "google-gla": "google",
    "gemini": "google",
    "azure_ai": "azure",
    "azure-openai": "azure",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "moonshot": "moonshotai",
    "mistralai": "mistral",
}
# What providers write before every name of a model.
PREFIXES = {
    "google": ["publishers/google/models/", "publishers/anthropic/models/", "models/"],
    "aws": ["bedrock/", "converse/"],
}
# Where a model runs at the price of its row, and who made it.
REGIONS = [
    *("us.", "anthropic.", "us.anthropic.", "eu.anthropic.", "apac.anthropic."),
    *("jp.anthropic.", "au.anthropic."),
]
# Where it costs more than its row says: these rules of the package are not taken.
DEARER = ("us-gov.", "eu.amazon.nova-2-lite", "jp.amazon.nova-2-lite")
# Names that its provider charges like a model, and that no rule of the package says closely enough.
ALSO = {
    ("google", "gemini-3.1-pro-preview-customtools"): "gemini-3.1-pro-preview",
    ("openai", "computer-use-preview"): "computer-use",
    ("openai", "computer-use-preview-2025-03-11"): "computer-use",
}

Rules = dict[str, Any]
Row = dict[str, Any]  # as the price file has it, without its key
Key = tuple[str, str, date]  # provider, model, the day on which it takes effect
Book = dict[Key, Row]
ALWAYS = date.min


class UnusableError(Exception):
    """A model that cannot stand in the price book, and why."""


@dataclass
class Notes:
    """What was not plain, a line each."""

    left_out: list[str] = field(default_factory=list)
    quantised: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    hourly: list[str] = field(default_factory=list)
    other_charges: list[str] = field(default_factory=list)

    def titled(self) -> Iterable[tuple[str, list[str]]]:
        """Return each list with what it says."""
        return (
            ("models left out", self.left_out),
            ("rates rounded to whole micros", self.quantised),
            ("models whose cached tokens cost what plain input costs", self.cached),
            ("models with prices by time of day, of which the highest are taken", self.hourly),
            ("models with charges that no key of tokens counts", self.other_charges),
        )


def prices_of_the_day(model: ModelInfo, day: date, context: Context) -> list[ModelPrice]:
    """Return the prices in force on the day: one, or one for each part of it."""
    moments = {time(0, tzinfo=UTC)}
    if isinstance(model.prices, list):
        for entry in model.prices:
            if isinstance(entry.constraint, TimeOfDateConstraint):
                moments.add(utc_time(entry.constraint.start_time, day))
                moments.add(utc_time(entry.constraint.end_time, day))
    found: list[ModelPrice] = []
    for moment in sorted(moments):
        prices = model.get_prices(datetime.combine(day, moment), context)
        if prices not in found:
            found.append(prices)
    return found


def list_days(model: ModelInfo) -> list[date]:
    """Return the days on which a price of the model changes: the first is always."""
    entries = [*(model.prices if isinstance(model.prices, list) else ()), *variants_of(model)]
    constraints = [entry.constraint for entry in entries]
    starts = {c.start_date for c in constraints if isinstance(c, StartDateConstraint)}
    return [ALWAYS, *sorted(starts)]


def variants_of(model: ModelInfo) -> list[PriceVariant]:
    """Return the model's prices by request."""
    return list(model.price_variants or ())


def list_contexts(model: ModelInfo) -> Iterable[tuple[str, Context]]:
    """Return each name that the model has in the book, and what its request asks for."""
    yield model.id, None
    asked = [variant.when for variant in variants_of(model)]
    for key, value in VARIANTS:
        if {key: value} in asked:
            yield f"{model.id}@{value}", {key: value}


def utc_time(value: time, day: date) -> time:
    """Return a time of day in UTC; one without a zone is UTC, as in the package."""
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return datetime.combine(day, value).astimezone(UTC).timetz()


def rate_above(value: Decimal | TieredPrices | None, level: int) -> Decimal | None:
    """Return the rate of a call of just more input tokens than the level."""
    if not isinstance(value, TieredPrices):
        return value
    reached = [tier.price for tier in value.tiers if tier.start <= level]
    return reached[-1] if reached else value.base


def micros(rate: Decimal, per: int = 10**6) -> int:
    """Return USD for `per` units as whole micros for a million of them, half to even."""
    if not rate.is_finite():
        raise UnusableError(f"the rate {rate} is not a number")
    shifted = rate * (10**12 // per)
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
    """Return the package's names of the charges that no key of `tokens` counts."""
    return sorted(
        name
        for name, value in vars(prices).items()
        if name not in RATES and not name.startswith("_") and rate_above(value, 0)
    )


def rates_above(of_the_day: Sequence[ModelPrice], level: int, rounded: set[str]) -> Row:
    """Return the price of each unit, where it has one at every hour; note which are rounded."""
    found: Row = {}
    for name, (unit, per) in RATES.items():
        rates = [rate_above(getattr(prices, name), level) for prices in of_the_day]
        known = [rate for rate in rates if rate is not None]
        if len(known) < len(rates):
            continue
        found[unit] = micros(max(known), per)
        if found[unit] != max(known) * (10**12 // per):
            rounded.add(f"{name}: {max(known)} USD -> {found[unit]}")
    if "cache_read" not in found and "input" in found:
        found["cache_read"] = found["input"]
    return found


def write_rates(rates: Row) -> Row:
    """Return prices as a row has them."""
    row: Row = {f"{unit}_price": rates.get(unit) for unit in FOUR}
    further = {unit: price for unit, price in rates.items() if unit not in FOUR}
    return {**row, **({"further": further} if further else {})}


def row_of(name: str, of_the_day: Sequence[ModelPrice], notes: Notes) -> Row:
    """Return a row for the prices of a day; raise UnusableError where it would say nothing."""
    levels = {
        tier.start
        for prices in of_the_day
        for value in vars(prices).values()
        if isinstance(value, TieredPrices)
        for tier in value.tiers
    }
    rounded: set[str] = set()
    rates = rates_above(of_the_day, 0, rounded)
    others = sorted({other for prices in of_the_day for other in other_charges(prices)})
    if not rates:
        raise UnusableError(f"only {', '.join(others)}" if others else "no price")
    if others and not any(rates.values()):
        raise UnusableError(f"tokens are free, but not {', '.join(others)}")
    row, below = write_rates(rates), rates
    tiers = []
    for level in sorted(levels):
        above = rates_above(of_the_day, level, rounded)
        if any(above.get(unit, -1) < price for unit, price in below.items()):
            raise SystemExit(f"{name}: the tier above {level} is cheaper than the one below")
        tiers.append({"input_above": level, **write_rates(above)})
        below = above
    notes.quantised += [f"{name} {line}" for line in sorted(rounded)]
    if others:
        notes.other_charges.append(f"{name}: {', '.join(others)}")
    if any(prices.cache_read_mtok is None for prices in of_the_day) and rates.get("cache_read"):
        notes.cached.append(name)
    if len(of_the_day) > 1:
        notes.hourly.append(f"{name}: {' | '.join(map(str, of_the_day))}")
    return {**row, **({"tiers": tiers} if tiers else {})}


def rows_of(model: ModelInfo, context: Context, name: str, notes: Notes) -> dict[date, Row]:
    """Return the rows of a name, by the day on which each takes effect."""
    rows: dict[date, Row] = {}
    days = list_days(model)
    # before the first start the prices are those of any earlier day
    asked = [(days[1] if len(days) > 1 else date(2026, 1, 1)) - timedelta(days=1), *days[1:]]
    last = None
    for day, at in zip(days, asked, strict=True):
        own = Notes()
        row = row_of(name, prices_of_the_day(model, at, context), own)
        if row != last:
            rows[day] = last = row
            for (_, lines), (_, more) in zip(notes.titled(), own.titled(), strict=True):
                lines += [line for line in more if line not in lines]
    return rows


def make_book(providers: Iterable[Provider]) -> tuple[Book, Notes]:
    """Return the price book, sorted, and what was not plain."""
    notes = Notes()
    book: Book = {}
    for provider in sorted(providers, key=lambda provider: provider.id):
        for model in sorted(provider.models, key=lambda model: model.id):
            for name, context in list_contexts(model):
                whole = f"{provider.id}/{name}"
                try:
                    check_names(provider.id, name)
                    rows = rows_of(model, context, whole, notes)
                except UnusableError as error:
                    # Escaped: the name may be what is wrong with it.
                    notes.left_out.append(f"{ascii(whole)[1:-1]}: {error}")
                    continue
                if (provider.id, name, ALWAYS) in book:
                    raise SystemExit(f"genai-prices has {whole} twice; which one holds?")
                book |= {(provider.id, name, day): row for day, row in rows.items()}
    return book, notes


def to_json(book: Book) -> bytes:
    """Return the book as a JSON array, a row a line."""
    lines = []
    for (provider, model, day), row in sorted(book.items()):
        start = {} if day == ALWAYS else {"effective_from": day.isoformat()}
        whole = {"provider": provider, "model": model, **row, **start}
        lines.append(json.dumps(whole, ensure_ascii=False))
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def make_rules(providers: Iterable[Provider], book: Book) -> Rules:
    """Return the rules by which names are matched, in the package's order.

    A name of a model that is not in the book is kept with no row: it is not another model's.
    """
    names = {(provider, model) for provider, model, _ in book}
    models: Rules = {}
    variants: Rules = {}
    fallbacks = {p.id: p.fallback_model_providers for p in providers if p.fallback_model_providers}
    for provider in providers:
        equals: dict[str, str | None] = {}
        parts: list[list[Any]] = []
        own = variants.setdefault(provider.id, {})
        for model in provider.models:
            row = model.id if (provider.id, model.id) in names else None
            equals.setdefault(model.id.lower(), row)
            for kind, text, more in list_ways(model.match):
                if text.startswith(DEARER):
                    continue
                if kind == "equals":
                    equals.setdefault(text.lower(), row)
                    continue
                parts.append([row, kind, text if kind == "regex" else text.lower(), more])
                if kind == "starts" and model.id.lower().startswith(text.lower()):
                    parts.append([row, kind, model.id.lower(), more])
            own[model.id] = [
                name.removeprefix(model.id)
                for name, context in list_contexts(model)
                if context and (provider.id, name) in names
            ]
        equals |= {name: row for (place, name), row in ALSO.items() if place == provider.id}
        models[provider.id] = {"equals": equals, "parts": parts}
        variants[provider.id] = {model: ends for model, ends in own.items() if ends}
    return {
        "aliases": ALIASES,
        "fallbacks": fallbacks,
        "prefixes": PREFIXES,
        "regions": REGIONS,
        "variants": variants,
        "models": models,
    }


def list_ways(match: MatchLogic) -> Iterable[tuple[str, str, list[str]]]:
    """Return each way to match a name: its kind, its text, and what the name has to be beside."""
    if isinstance(match, ClauseOr):
        for clause in match.or_:
            yield from list_ways(clause)
    elif isinstance(match, ClauseAnd):
        first, *others = match.and_
        more = [one.regex for one in others if isinstance(one, ClauseRegex)]
        if len(more) != len(others):
            raise SystemExit(f"a rule that this script can't write: {match}")
        for kind, text, conditions in list_ways(first):
            yield kind, text, conditions + more
    else:
        for kind in ("equals", "starts_with", "ends_with", "contains", "regex"):
            if (text := getattr(match, kind, None)) is not None:
                yield kind.partition("_")[0], text, []


def write_rules(rules: Rules) -> bytes:
    """Return the rules as JSON, a provider a line."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in rules["models"].items()]
    head = json.dumps({key: value for key, value in rules.items() if key != "models"})[:-1]
    return (head + ', "models": {\n' + ",\n".join(lines) + "\n}}\n").encode()


def from_json(content: bytes) -> Book:
    """Read a book that this script wrote."""
    book: Book = {}
    for row in json.loads(content):
        day = date.fromisoformat(row.pop("effective_from", ALWAYS.isoformat()))
        book[row.pop("provider"), row.pop("model"), day] = row
    return book


def differences(old: Book, new: Book) -> Iterable[str]:
    """Return a line for each row that was added, removed or changed."""
    for key in sorted(old.keys() | new.keys()):
        provider, model, day = key
        name = f"{provider}/{model}{'' if day == ALWAYS else f' from {day}'}"
        if key not in old:
            yield f"+ {name}: {json.dumps(new[key])}"
        elif key not in new:
            yield f"- {name}: {json.dumps(old[key])}"
        elif old[key] != new[key]:
            yield f"~ {name}: " + ", ".join(
                f"{what} {json.dumps(old[key].get(what))} -> {json.dumps(new[key].get(what))}"
                for what in {**old[key], **new[key]}
                if old[key].get(what) != new[key].get(what)
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
        "--check", action="store_true", help="write nothing; exit 1 if the file would change"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="list what was left out, rounded or chosen"
    )
    options = parser.parse_args(arguments)

    book, notes = make_book(known_providers)
    content, rules = to_json(book), write_rules(make_rules(known_providers, book))
    before = SEED.read_bytes() if SEED.exists() else None

    models = sum(len(provider.models) for provider in known_providers)
    print(f"genai-prices {version('genai-prices')} (MIT)")
    print(f"{models} models of {len(known_providers)} providers")
    names = {key[:2] for key in book}
    print(f"{len(book)} rows of {len(names)} names of {len({key[0] for key in book})} providers")
    report_differences(before, book)
    for title, lines in notes.titled():
        print(f"{len(lines)} {title}")
        if options.verbose:
            for line in lines:
                print(f"  {line}")

    status = 0
    for path, new in ((SEED, content), (NAMES, rules)):
        if path.exists() and path.read_bytes() == new:
            print(f"{path.name} is up to date")
        elif options.check:
            print(f"{path.name} is not what would be written", file=sys.stderr)
            status = 1
        else:
            path.write_bytes(new)
            print(f"{path.name} written, {len(new)} bytes")
    return status


if __name__ == "__main__":
    sys.exit(main())
