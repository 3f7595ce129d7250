"""The names that models go by: which row of the book is meant where none has the exact name.

The rules ship beside the book and are made from the same version of its source
(`tools/make_price_seed.py`). They are matched here, and no request brings a pattern.
"""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

# What a rule that names only a part of a name may leave over: dates, versions, and, in front, where
# the model runs or what its provider writes before every name. Anything else can be a sibling's.
# At most four: digits can be cut in many ways, and time would double with each further piece.
_REST = re.compile(
    r"(?:[-@_:]?(?:20\d\d-?[01]\d-?[0-3]\d|[01]\d-20\d\d|[01]\d-?[0-3]\d|00\d|v\d+(?::\d+)?|:\d)){0,4}"
)
_COMPACT_DATE = re.compile(r"-(20\d\d)([01]\d)([0-3]\d)(?=-|:|$)")
# What follows the base of a fine-tuned model are names of its owner's.
_FINE_TUNED = re.compile(r"(ft:[^:]+):.*")
_VARIANT = re.compile(r"(.+)(@(?:batch|flex|priority|fast))")


class PricedAs(NamedTuple):
    """The provider and the model whose price is meant."""

    provider: str
    model: str


class Match(NamedTuple):
    """The row of the book that a name means, and the rule that says so."""

    priced_as: PricedAs
    rule: str


def find_provider(name: str) -> str:
    """Give the id that a provider has in the book, by equality with an alias; else the name."""
    aliases: dict[str, str] = _read_rules()["aliases"]
    return aliases.get(name.lower(), name.lower())


@lru_cache(maxsize=4096)
def find_match(provider: str, model: str) -> Match | None:
    """Find the row of the shipped book that a name means; None: no rule knows it.

    The provider has to be its id or an alias. A rule that matches only a prefix or a part of the
    model's name counts where the rest is a date, a version or a listed region.
    """
    rules, name, own = _read_rules(), provider.lower(), find_provider(provider)
    asked, variant = model.lower(), ""
    if found := _VARIANT.fullmatch(asked):
        asked, variant = found.groups()
    for prefix in (*rules["prefixes"].get(own, ()), f"{own}/", f"{name}/"):
        asked = asked.removeprefix(prefix)
    if found := _FINE_TUNED.fullmatch(asked):
        asked = found[1]
    dated = _COMPACT_DATE.sub(r"-\1-\2-\3", asked)
    for candidate in dict.fromkeys((asked, dated)):
        for listed_as in (own, *rules["fallbacks"].get(own, ())):
            said = _match(rules["models"].get(listed_as, {}), candidate, tuple(rules["regions"]))
            if said is not None:
                row, rule = said
                listed = row is not None and (
                    not variant or variant in rules["variants"][listed_as][row]
                )
                found_row = PricedAs(listed_as, f"{row}{variant}")
                return Match(found_row, rule) if listed and found_row != (provider, model) else None
    return None


def find_candidate(provider: str, model: str) -> list[str] | None:
    """Find whose price counts where the table has no row of the exact name, as SQL takes it."""
    found = find_match(provider, model)
    return found and list(found.priced_as)


def _match(rules: Any, name: str, regions: tuple[str, ...]) -> tuple[str | None, str] | None:  # noqa: ANN401 - JSON
    """Give the model of the rule that fits best, and the rule; None: no rule does."""
    if name in rules.get("equals", ()):
        return rules["equals"][name], f"`{name}` is one of its names"
    best: tuple[int, str | None, str] | None = None
    for model, kind, text, more in rules.get("parts", ()):
        if kind == "regex":
            fits = re.search(text, name) is not None
            rule = f"its name is like `{text}`"
        else:
            before, found, after = name.partition(text)
            fits = bool(found) and _is_allowed(kind, before, after, regions)
            rule = f"`{text}` {kind} it, and the rest is a date, a version or a region"
        fits = fits and all(re.search(condition, name) for condition in more)
        if fits and (best is None or len(text) > best[0]):
            best = len(text), model, rule
    return None if best is None else best[1:]


def _is_allowed(kind: str, before: str, after: str, regions: tuple[str, ...]) -> bool:
    if (kind == "starts" and before) or (kind == "ends" and after):
        return False
    return (not before or before in regions) and _REST.fullmatch(after) is not None


@cache
def _read_rules() -> dict[str, Any]:
    path = Path(__file__).with_name("names.json")
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
