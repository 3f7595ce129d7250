"""The prices in force, in pages: one statement, run by a grant."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from govbudget.db.governed import Governed
from govbudget.identity import Action, PriceBook
from govbudget.prices.statements import DAY, P_COLUMNS
from govbudget.prices.store import PriceSource, read_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from govbudget.db.unit import Grant
    from govbudget.prices.price import Price

# Of each model the first: custom before book, and the latest day that has come.
LIST = Governed(
    "prices.list",
    Action.READ,
    PriceBook,
    f"""
WITH today AS (SELECT {DAY.format("coalesce(:now, statement_timestamp())")} AS day)
SELECT {P_COLUMNS} FROM (
  SELECT DISTINCT provider, model FROM {{s}}.ai_model_prices
  WHERE effective_from <= (SELECT day FROM today) {{after}}
  ORDER BY provider, model LIMIT :page_size
) n, LATERAL (
  SELECT * FROM {{s}}.ai_model_prices p
  WHERE p.provider = n.provider AND p.model = n.model
    AND p.effective_from <= (SELECT day FROM today)
  ORDER BY p.source DESC, p.effective_from DESC LIMIT 1
) p ORDER BY n.provider, n.model
""",
    past=("provider", "(provider, model) > (:provider, :model)"),
)


class ListedPrice(NamedTuple):
    """A price that is in force, and where it is from."""

    source: PriceSource
    price: Price


def list_prices(
    grant: Grant[PriceBook], *, limit: int, after: tuple[str, ...] | None = None
) -> Sequence[ListedPrice]:
    """List the prices in force by provider and model, at most `limit`, those after one.

    Needs a grant to `read` the prices. One statement; never commits.
    """
    provider, model = after or (None, None)
    rows = grant.run(LIST, page_size=limit, provider=provider, model=model)
    return [ListedPrice(PriceSource(row.source), read_row(row)) for row in rows]
