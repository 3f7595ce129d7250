"""The price of a model, as a value, and how a batch of prices is read from JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from govbudget.ids import PRINTABLE, PRINTABLE_WITHOUT_SLASH
from govbudget.money import MAX_PRICE
from govbudget.prices.change import refuse_duplicates
from govbudget.strict_json import parse_json

MAX_NAME = 256
MAX_ROWS = 10_000

Provider = Annotated[str, Field(max_length=MAX_NAME, pattern=PRINTABLE_WITHOUT_SLASH)]
Model = Annotated[str, Field(max_length=MAX_NAME, pattern=PRINTABLE)]
Micros = Annotated[int, Field(ge=0, le=MAX_PRICE)]


class Price(BaseModel):
    """What one model costs: micros per one million tokens, by category; None is not known.

    All six keys must be present. The provider holds no slash; the model may.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    provider: Provider
    model: Model
    input_price: Micros | None
    output_price: Micros | None
    cache_read_price: Micros | None
    cache_write_price: Micros | None


Batch = Annotated[list[Price], Field(max_length=MAX_ROWS, json_schema_extra={"uniqueItems": True})]
BATCH = TypeAdapter(Batch, config=ConfigDict(strict=True))


def parse_prices(content: bytes) -> list[Price]:
    """Read a JSON array of price rows; raise InvalidInput that names every row that is wrong."""
    prices = parse_json(content, BATCH)
    refuse_duplicates(prices)
    return prices


def read_shipped_prices() -> bytes:
    """Read the price book that comes with govbudget: JSON, as `parse_prices` takes it."""
    return Path(__file__).with_name("seed.json").read_bytes()
