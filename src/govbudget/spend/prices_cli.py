"""What the ledger adds to `govbudget prices`: which models were used without a price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields

from govbudget.cli.each_database import each_database
from govbudget.cli.environment import run_as_operator
from govbudget.cli.formats import format_option, print_answer
from govbudget.cli.prices import prices
from govbudget.money import TOKENS
from govbudget.spend.price_gaps import PriceGap, list_gaps

__all__ = ["prices"]


@prices.command("gaps")
@format_option("text", "json", "csv")
@each_database
def prices_gaps(form: str) -> None:
    """List the models that were used without a price, the most used first.

    Calls whose cost is not wholly known: how many, their tokens by category, which of these had no
    price, and which prices are missing now. A price that is set later is for later calls: these
    stay as they were recorded.
    """
    gaps = run_as_operator(lambda unit: list_gaps(unit.authorize("update", prices=True)))
    columns = [field.name for field in fields(PriceGap)]
    print_answer(form, map(asdict, gaps), _show_gaps(gaps), columns)


def _show_gaps(gaps: Sequence[PriceGap]) -> Iterator[str]:
    for gap in gaps:
        counts = {name.removesuffix("_tokens"): getattr(gap, name) for name in TOKENS}
        counts |= gap.further_tokens
        tokens = ", ".join(f"{count} {unit}" for unit, count in counts.items())
        yield (
            f"{gap.provider}/{gap.model}: {gap.calls} calls stay unpriced; tokens: {tokens};"
            f" had no price: {', '.join(gap.unpriced)};"
            f" missing now: {', '.join(gap.missing) or 'none'}"
        )
    if not gaps:
        yield "every call that was recorded has a price"
