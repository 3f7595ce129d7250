"""Models that were used without a price: usage that stays unpriced, and what is missing now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import compress
from typing import Any

from sqlalchemy import Row

from govbudget.db.governed import Governed
from govbudget.db.unit import Grant
from govbudget.identity import Action, PriceBook
from govbudget.money import FURTHER, PRICES, TOKENS, UNITS, find_price
from govbudget.prices.names import find_candidate
from govbudget.prices.statements import DAY, find_in_force

# What a call lacked when it was recorded, which the index `ai_usage_unpriced_idx` finds, and now.
NAMES = (*UNITS, *FURTHER)
LACKED = [f"'{unit}' = ANY (u.unpriced)" for unit in NAMES]
NOW = (*(f"p.{price}" for price in PRICES), *(f"p.more ->> '{unit}'" for unit in FURTHER))
LACKS = [f"{was} AND ({now}) IS NULL" for was, now in zip(LACKED, NOW, strict=True)]
USED = (
    *(f"u.{count}" for count in TOKENS),
    *(f"(u.further_tokens ->> '{unit}')::bigint" for unit in FURTHER),
)
UNPRICED_NAMES = Governed(
    "prices.unpriced_names",
    Action.UPDATE,
    PriceBook,
    "SELECT DISTINCT provider, model FROM {s}.ai_usage WHERE unpriced IS NOT NULL",
)
GAPS = Governed(
    "prices.gaps",
    Action.UPDATE,
    PriceBook,
    f"""
SELECT u.provider, u.model, count(*), {", ".join(f"coalesce(sum({used}), 0)" for used in USED)},
       {", ".join(f"bool_or({lacks})" for lacks in (*LACKED, *LACKS))}
FROM {{s}}.ai_usage u
  JOIN jsonb_to_recordset(CAST(:batch AS jsonb)) AS n(provider text, model text, candidate text[])
    ON n.provider = u.provider AND n.model = u.model
  {find_in_force("u", DAY.format("coalesce(:now, statement_timestamp())"), "n.candidate")}
WHERE u.unpriced IS NOT NULL AND NOT EXISTS (
  SELECT FROM {{s}}.ai_usage c
  WHERE c.organization_id = u.organization_id AND c.corrects = u.event_id
)
GROUP BY u.provider, u.model
ORDER BY count(*) DESC, u.provider, u.model
""",
)


@dataclass(frozen=True, slots=True)
class PriceGap:
    """A model, its calls that were recorded without a price for all of their units, their tokens.

    `further_tokens` are the counts of further units, by name. `unpriced` names the units that had
    no price, such as `output`; `missing` the prices of them that are missing now, such as
    `output_price` or `further/web_searches`. A price that came later changes no call.
    """

    provider: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    unpriced: tuple[str, ...]
    missing: tuple[str, ...]
    further_tokens: dict[str, int]


def list_gaps(grant: Grant[PriceBook]) -> list[PriceGap]:
    """List the models with calls that were recorded without a price, most used first.

    Needs a grant to `update` the prices: it shows what the whole site uses. Two statements: what is
    missing now is looked up as a call's price is, by the rules of names too.
    """
    names = [
        {"provider": provider, "model": model, "candidate": find_candidate(provider, model)}
        for provider, model in grant.run(UNPRICED_NAMES)
    ]
    return [_gap(row) for row in grant.run(GAPS, batch=json.dumps(names))]


def _gap(row: Row[Any]) -> PriceGap:
    provider, model, calls, *values = tuple(row)
    size = len(NAMES)
    counts, lacked, lacks = values[:size], values[size : 2 * size], values[2 * size :]
    used = dict(zip((*TOKENS, *FURTHER), map(int, counts), strict=True))
    tokens: dict[str, Any] = {name: used.pop(name) for name in TOKENS}
    further = {unit: count for unit, count in used.items() if count}
    prices = ["/".join(find_price(unit)) for unit in NAMES]
    unpriced, missing = tuple(compress(NAMES, lacked)), tuple(compress(prices, lacks))
    lists: dict[str, Any] = {"unpriced": unpriced, "missing": missing}
    return PriceGap(provider, model, calls, **tokens, further_tokens=further, **lists)
