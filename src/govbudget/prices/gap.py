"""Models that were used and have no price: what unpriced usage is waiting for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from govbudget.authz.grant import Grant, require_grant
from govbudget.identity import Action, PriceBook
from govbudget.tables import PRICES, TOKENS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from govbudget.tables import Tables


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
    """List the models with calls that have no cost and would have none now, most used first.

    Needs a grant for `update`: it tells what the whole site uses. One statement.
    """
    require_grant(grant, Action.UPDATE, book, connection.get_transaction())
    return [_gap(row) for row in connection.execute(_select_gaps(tables))]


def _gap(row: Row[Any]) -> PriceGap:
    provider, model, calls, *values = tuple(row)
    counts, lacks = map(int, values[: len(TOKENS)]), values[len(TOKENS) :]
    missing = tuple(name for name, is_missing in zip(PRICES, lacks, strict=True) if is_missing)
    tokens = dict(zip(TOKENS, counts, strict=True))
    return PriceGap(provider, model, calls, **tokens, missing=missing)


def _select_gaps(tables: Tables) -> sa.Select[Any]:
    usage, prices = tables.ai_usage, tables.ai_model_prices
    other = prices.alias("other")
    first = sa.select(sa.func.max(other.c.source)).where(  # custom before book
        other.c.provider == prices.c.provider, other.c.model == prices.c.model
    )
    in_force = sa.select(prices).where(prices.c.source == first.scalar_subquery()).subquery()
    lacks = [
        sa.and_(usage.c[count] > 0, in_force.c[price].is_(None))
        for count, price in zip(TOKENS, PRICES, strict=True)
    ]
    model = usage.c.provider, usage.c.model
    same = sa.and_(*(in_force.c[key.name] == key for key in model))
    calls = sa.func.count()
    return (
        sa.select(
            *model,
            calls,
            *(sa.func.sum(usage.c[count]) for count in TOKENS),
            *(sa.func.bool_or(lack) for lack in lacks),
        )
        .select_from(usage.outerjoin(in_force, same))
        .where(usage.c.cost_picos.is_(None), sa.or_(*lacks))
        .group_by(*model)
        .order_by(calls.desc(), *model)
    )
