"""The views of prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.errors import GovBudgetError
from govbudget.web.paging import read_flag

if TYPE_CHECKING:
    from govbudget.identity import PriceBook
    from govbudget.prices.price import NamedPrice
    from govbudget.prices.store import BatchResult
    from govbudget.web.call import AuthorizedRequest


def get_price(asked: AuthorizedRequest[PriceBook]) -> NamedPrice:
    """Answer with the model's price in force, in micros per one million tokens."""
    return asked.gov.prices.get(asked.grant, asked.path["provider"], asked.path["model"])


def put_prices(asked: AuthorizedRequest[PriceBook]) -> BatchResult:
    """Store an array of custom prices, which go before the book's; all or nothing."""
    if asked.gov.databases is not None:
        sentence = "here are several databases; `govbudget prices load` writes to each of them"
        raise GovBudgetError("several-databases", sentence)
    return asked.gov.prices.upsert(asked.grant, asked.body, allow_jumps=read_flag("allow_jumps"))
