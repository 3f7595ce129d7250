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
SELECT DISTINCT ON (p.provider, p.model) {P_COLUMNS} FROM {{s}}.ai_model_prices p
WHERE p.effective_from <= {DAY.format("coalesce(:now, statement_timestamp())")}
  AND (:provider IS NULL OR (p.provider, p.model) > (:provider, :model))
ORDER BY p.provider, p.model, p.source DESC, p.effective_from DESC LIMIT :page_size
""",
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
