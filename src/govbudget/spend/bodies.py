"""The bodies of spend's requests; loaded with the first one."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from govbudget.ids import PRINTABLE
from govbudget.prices.price import Model, Provider
from govbudget.spend import usage
from govbudget.spend.tokens import Tokens
from govbudget.web.bodies import Body, IdField, Limit, Uuid

_RFC_3339 = re.compile(
    r"[0-9-]{10}[Tt]([01][0-9]|2[0-3])[0-9:]{6}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-5][0-9])"
)


def _read_time(value: object) -> datetime:
    """Read an RFC 3339 time with its offset from UTC."""
    message = "must be a time with its offset from UTC, such as 2026-01-31T12:00:00Z"
    if not _RFC_3339.fullmatch(str(value)):
        raise ValueError(message)
    try:
        time = datetime.fromisoformat(str(value).upper())  # 3.11 knows no small `z`
    except ValueError:
        raise ValueError(message) from None
    if not usage.FIRST <= time < usage.END:
        raise ValueError(f"must be of the years {usage.FIRST_YEAR} to {usage.LAST_YEAR} in UTC")
    return time


EventId = Annotated[str, Field(min_length=1, max_length=usage.MAX_EVENT_ID, pattern=PRINTABLE)]
TimeField = Annotated[
    datetime,
    BeforeValidator(_read_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Ttl = Annotated[
    int,
    Field(
        ge=1,
        le=usage.MAX_TTL_SECONDS,
        description="the longest that the call can take, with its retries, and a minute more. A"
        " hold that expires holds no money: extend it before `expires_at` where the call runs on",
    ),
]
HoldId = Annotated[
    Uuid,
    Field(description="an id of your own: the same request again is answered with the same hold"),
]


class _CallBody(Body):
    organization_id: IdField
    user_id: IdField
    provider: Provider
    model: Model
    tokens: Tokens

    @property
    def call(self) -> usage.Call:
        """The call that it is about."""
        return usage.Call(self.organization_id, self.user_id, self.provider, self.model)


class HoldBody(_CallBody):
    """The body that asks for a hold: the most that the call can take."""

    ttl_seconds: Ttl = usage.DEFAULT_TTL_SECONDS
    hold_id: HoldId | None = None


class ExtendBody(Body):
    """The body that extends a hold."""

    ttl_seconds: Ttl
    organization_id: IdField | None = None


class SettleBody(Body):
    """The body that settles a hold: what the call took."""

    event_id: EventId
    tokens: Tokens
    occurred_at: TimeField | None = None
    provider: Provider | None = None
    model: Model | None = None
    organization_id: IdField | None = None


class UsageBody(_CallBody):
    """The body that records a call that no hold was made for."""

    event_id: EventId
    occurred_at: TimeField | None = None


Reason = Annotated[str, Field(min_length=1, max_length=usage.MAX_REASON, pattern=PRINTABLE)]


class CorrectionBody(Body):
    """The body that corrects an event: all tokens that its call took, and why."""

    event_id: EventId
    organization_id: IdField
    corrects: EventId
    tokens: Tokens
    reason: Reason


class OverrideBody(Body):
    """The body of a PUT of an override: it is all of it, so what is left out is not kept."""

    group_id: IdField
    spend_limit_micros: Limit
    expires_at: Annotated[
        TimeField | None,
        Field(description="when it ends, which is later than now; without it, it has no end"),
    ] = None
    reason: Reason | None = None
