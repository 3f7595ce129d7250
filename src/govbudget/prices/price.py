"""The price of a model, as a value, and how a batch of prices is read from JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    with_config,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import TypedDict  # pydantic demands this one before Python 3.12

from govbudget.ids import MAX_NAME, PRINTABLE, PRINTABLE_WITHOUT_SLASH
from govbudget.money import MAX_PRICE, MAX_TOKENS, PRICE_OF, PRICES, find_price
from govbudget.prices.change import refuse_duplicates
from govbudget.strict_json import parse_json

MAX_ROWS = 10_000
MAX_TIERS = 10
# The day from which a price holds that always held.
ALWAYS = date.min

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _read_day(value: object) -> date:
    if isinstance(value, date):
        return value
    message = "must be a day such as 2026-01-31"
    if not (isinstance(value, str) and _DAY.fullmatch(value)):
        raise ValueError(message)
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError(message) from None


Provider = Annotated[str, Field(max_length=MAX_NAME, pattern=PRINTABLE_WITHOUT_SLASH)]
Model = Annotated[str, Field(max_length=MAX_NAME, pattern=PRINTABLE)]
Micros = Annotated[int, Field(ge=0, le=MAX_PRICE)]
Day = Annotated[
    date, BeforeValidator(_read_day), WithJsonSchema({"type": "string", "format": "date"})
]


@with_config(ConfigDict(strict=True, extra="forbid"))
class Further(TypedDict, total=False):
    """Prices of units beside the four, in micros per one million; null is not known."""

    cache_write_1h: Micros | None
    input_audio: Micros | None
    cache_read_audio: Micros | None
    output_audio: Micros | None
    input_image: Micros | None
    cache_read_image: Micros | None
    output_image: Micros | None
    input_video: Micros | None
    output_video: Micros | None
    web_searches: Micros | None


FurtherField = Annotated[Further, Field(exclude_if=lambda further: not further)]


class _Rates(BaseModel):
    """What units cost: the four prices, which are required, and the further ones."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @property
    def rates(self) -> dict[str, int | None]:
        """The price of each unit that is named, by the unit's name."""
        four = {unit: getattr(self, price) for unit, price in PRICE_OF.items()}
        return four | vars(self)["further"]  # type: ignore[no-any-return]


class Tier(_Rates):
    """The prices of all units of a call whose input tokens are more than `input_above`.

    Input tokens of every kind count together, cached ones too.
    """

    input_above: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    input_price: Micros | None
    output_price: Micros | None
    cache_read_price: Micros | None
    cache_write_price: Micros | None
    further: FurtherField = {}


class Price(_Rates):
    """What one model costs from a UTC day on: micros per one million tokens; None is not known.

    The first six keys must be present. The provider holds no slash; the model may. `tiers` ascend,
    and none is cheaper than the one below or lacks the price of a unit that it has.
    """

    provider: Provider
    model: Model
    input_price: Micros | None
    output_price: Micros | None
    cache_read_price: Micros | None
    cache_write_price: Micros | None
    effective_from: Annotated[Day, Field(exclude_if=lambda day: day == ALWAYS)] = ALWAYS
    further: FurtherField = {}
    tiers: Annotated[
        tuple[Tier, ...],
        Field(max_length=MAX_TIERS, exclude_if=lambda tiers: not tiers, strict=False),
    ] = ()

    def __hash__(self) -> int:
        """Equal prices have equal keys."""
        return hash(self.key)

    @property
    def key(self) -> tuple[str, str, date]:
        """What names it, beside its source."""
        return self.provider, self.model, self.effective_from

    @property
    def more(self) -> dict[str, Any] | None:
        """What it says beside the four prices, as it is stored: flat, by units; None: nothing."""
        tiers = [{"above": tier.input_above, **tier.rates} for tier in self.tiers]
        return {**self.further, **({"tiers": tiers} if tiers else {})} or None

    def find_rates(self, input_above: int) -> dict[str, int | None]:
        """Give the price of each unit in a call of just more input tokens than these."""
        reached = [tier for tier in self.tiers if tier.input_above <= input_above]
        return (reached[-1] if reached else self).rates

    @field_validator("tiers")
    @classmethod
    def _check_tiers(cls, tiers: tuple[Tier, ...], info: ValidationInfo) -> tuple[Tier, ...]:
        wrong = list(_list_wrong_tiers(tiers, info.data))
        if wrong:
            raise ValidationError.from_exception_data("Price", wrong)
        return tiers


class PricedAsField(BaseModel):
    """The provider and the model whose price it is, where a rule of the book found them."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    provider: str
    model: str


class NamedPrice(Price):
    """A price by a name; `priced_as` says whose it is, where a rule of the book found it."""

    priced_as: Annotated[PricedAsField | None, Field(exclude_if=lambda named: named is None)] = None


def _list_wrong_tiers(
    tiers: tuple[Tier, ...], row: Mapping[str, Any]
) -> Iterator[InitErrorDetails]:
    """Give each place at which a tier is less than the one below; the row may be incomplete."""
    below = {unit: row.get(price) for unit, price in PRICE_OF.items()} | row.get("further", {})
    above = 0
    for index, tier in enumerate(tiers):
        rates = tier.rates
        for unit, least in below.items():
            place, price = find_price(unit), rates.get(unit)
            if least is not None and price is None:
                yield _wrong(f"is not known, and the tier below has {least}", index, *place)
            elif least is not None and price is not None and price < least:
                yield _wrong(f"must be at least that of the tier below, {least}", index, *place)
        if tier.input_above <= above:
            yield _wrong(f"must be more than that of the tier below, {above}", index, "input_above")
        below, above = rates, tier.input_above


def _wrong(sentence: str, *place: int | str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("tier", sentence), loc=place, input=None)


def read_price(provider: str, model: str, effective_from: date, row: Mapping[str, Any]) -> Price:
    """Give a price as it is stored: the four prices by their names, and `more`."""
    more = dict(row["more"] or {})
    return Price.model_construct(
        provider=provider,
        model=model,
        effective_from=effective_from,
        tiers=tuple(_read_tier(tier) for tier in more.pop("tiers", ())),
        further=more,
        **{name: row[name] for name in PRICES},
    )


def _read_tier(stored: Mapping[str, Any]) -> Tier:
    rates = dict(stored)
    return Tier.model_construct(
        input_above=rates.pop("above"),
        **{price: rates.pop(unit) for unit, price in PRICE_OF.items()},
        further=rates,
    )


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
