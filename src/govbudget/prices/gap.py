"""Models that were used and have no price: what unpriced usage is waiting for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from govbudget.authz.grant import Grant, require_grant
from govbudget.db.sql import prepare
from govbudget.db.tables import PRICES, TOKENS
from govbudget.identity import Action, PriceBook

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from govbudget.db.tables import Tables


# What a call lacked when it was booked, which the index `ai_usage_unpriced_idx` finds, and now.
LACKED, LACKS = (
    [f"u.{n} > 0 AND {row}.{price} IS NULL" for n, price in zip(TOKENS, PRICES, strict=True)]
    for row in ("u", "p")
)
GAPS = f"""
SELECT u.provider, u.model, count(*), {", ".join(f"sum(u.{count})" for count in TOKENS)},
       {", ".join(f"bool_or({lacks})" for lacks in LACKS)}
FROM {{s}}.ai_usage u LEFT JOIN LATERAL (
  SELECT * FROM {{s}}.ai_model_prices p
  WHERE p.provider = u.provider AND p.model = u.model
  ORDER BY p.source DESC LIMIT 1  -- custom before book
) p ON true
WHERE ({" OR ".join(LACKED)}) AND ({" OR ".join(LACKS)})
GROUP BY u.provider, u.model
ORDER BY count(*) DESC, u.provider, u.model
"""


@dataclass(frozen=True, slots=True)
class PriceGap:
    """A model, its calls that the prices of now would leave unpriced, and their tokens.

    `missing` names the prices that these calls lack, such as `output_price`.
    """

    provider: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    missing: tuple[str, ...]


def list_gaps(
    connection: Connection, tables: Tables, grant: Grant, book: PriceBook
) -> list[PriceGap]:
    """List the models with calls that lacked a price and would lack one now, most used first.

    Needs a grant for `update`: it tells what the whole site uses. One statement.
    """
    require_grant(grant, Action.UPDATE, book, connection.get_transaction())
    return [_gap(row) for row in connection.execute(prepare(GAPS, tables.layout))]


def _gap(row: Row[Any]) -> PriceGap:
    provider, model, calls, *values = tuple(row)
    counts, lacks = map(int, values[: len(TOKENS)]), values[len(TOKENS) :]
    missing = tuple(name for name, is_missing in zip(PRICES, lacks, strict=True) if is_missing)
    tokens = dict(zip(TOKENS, counts, strict=True))
    return PriceGap(provider, model, calls, **tokens, missing=missing)
