"""The views of prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    return asked.gov.prices.upsert(asked.grant, asked.body, allow_jumps=read_flag("allow_jumps"))
