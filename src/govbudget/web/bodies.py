"""The bodies of requests. pydantic reads them; this module is loaded with the first one."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    WithJsonSchema,
)

from govbudget.db.tables import MAX_LIMIT_MICROS
from govbudget.ids import PRINTABLE
from govbudget.prices.price import BATCH, Model, Provider
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import (
    DEFAULT_TTL_SECONDS,
    MAX_EVENT_ID,
    MAX_TTL_SECONDS,
    check_time,
)
from govbudget.web.answers import Id

if TYPE_CHECKING:
    from pydantic import ValidationInfo

    from govbudget import identity
    from govbudget.ids import IdType


_RFC_3339 = re.compile(r"[0-9-]{10}[Tt][0-9:]{8}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")


def _accept_id(value: object, info: ValidationInfo) -> identity.Id:
    """Read an id of a body; the context is the type of ids."""
    id_type: IdType = info.context  # type: ignore[assignment]
    try:
        return id_type.accept(value)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _read_time(value: object) -> datetime:
    """Read an RFC 3339 time with its offset from UTC."""
    message = "must be a time with its offset from UTC, such as 2026-01-31T12:00:00Z"
    if not _RFC_3339.fullmatch(str(value)):
        raise ValueError(message)
    try:
        return check_time(datetime.fromisoformat(str(value)))
    except (ValueError, OverflowError):
        raise ValueError(message) from None


_Id = Annotated[Id, PlainValidator(_accept_id, json_schema_input_type=Id)]
_Limit = Annotated[int, Field(ge=0, le=MAX_LIMIT_MICROS)]
_EventId = Annotated[str, Field(min_length=1, max_length=MAX_EVENT_ID, pattern=PRINTABLE)]
_Time = Annotated[
    datetime,
    BeforeValidator(_read_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class BudgetBody(_Body):
    """The body of a PUT of a budget."""

    spend_limit_micros: _Limit


class _CallBody(_Body):
    organization_id: _Id
    user_id: _Id
    provider: Provider
    model: Model
    tokens: Tokens


class HoldBody(_CallBody):
    """The body that asks for a hold: the most that the call can take."""

    ttl_seconds: Annotated[int, Field(ge=1, le=MAX_TTL_SECONDS)] = DEFAULT_TTL_SECONDS


class SettleBody(_Body):
    """The body that settles a hold: what the call took."""

    event_id: _EventId
    tokens: Tokens
    occurred_at: _Time | None = None


class UsageBody(_CallBody):
    """The body that records a call that no hold was made for."""

    event_id: _EventId
    occurred_at: _Time | None = None


class OverrideBody(_Body):
    """The body of a PUT of an override."""

    group_id: _Id
    spend_limit_micros: Annotated[int, Field(ge=0, le=MAX_LIMIT_MICROS)]


# By the name that a route gives.
BODIES: dict[str, TypeAdapter[Any]] = {
    "budget": TypeAdapter(BudgetBody),
    "prices": BATCH,
    "hold": TypeAdapter(HoldBody),
    "settle": TypeAdapter(SettleBody),
    "usage": TypeAdapter(UsageBody),
    "override": TypeAdapter(OverrideBody),
}
