"""Holds and usage as values, and what a caller says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from govbudget.ids import PRINTABLE

if TYPE_CHECKING:
    from govbudget.identity import Id
    from govbudget.prices.names import PricedAs
    from govbudget.spend.tokens import Tokens

DEFAULT_TTL_SECONDS = 600
MAX_TTL_SECONDS = 86_400
MAX_EVENT_ID, MAX_REASON = 255, 1000
# Before 2010 there were days that began twice, or in part: the ledger could not be cut at one time.
FIRST_YEAR, LAST_YEAR = 2010, 2999
FIRST, END = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC)


def check_event_id(event_id: str) -> str:
    """Give an event's id back; raise ValueError unless it is 1 to 255 printable characters."""
    return _check_text("an event's id", event_id, MAX_EVENT_ID)


def check_reason(reason: str) -> str:
    """Give a reason back; raise ValueError unless it is 1 to 1,000 printable characters."""
    return _check_text("a reason", reason, MAX_REASON)


def _check_text(what: str, text: str, most: int) -> str:
    if not re.fullmatch(PRINTABLE, text) or len(text) > most:
        raise ValueError(f"{what} is 1 to {most} characters without control characters")
    text.encode()  # a lone surrogate is not a character: a ValueError
    return text


def check_hold_id(hold_id: object) -> UUID:
    """Give the id of a hold, also of its text; ValueError for anything else."""
    if isinstance(hold_id, UUID):
        return hold_id
    try:
        return UUID(str(hold_id))
    except ValueError:
        message = f"`hold_id` is `{hold_id}`, not a UUID; make one of your own id with `uuid5`"
        raise ValueError(message) from None


def check_ttl(seconds: int) -> timedelta:
    """Give a hold's time to live; raise ValueError unless it is an int from 1 to 86,400 seconds."""
    if type(seconds) is not int or not 1 <= seconds <= MAX_TTL_SECONDS:
        raise ValueError(f"ttl_seconds must be an int from 1 to {MAX_TTL_SECONDS}: {seconds!r}")
    return timedelta(seconds=seconds)


def check_time(time: object) -> datetime:
    """Give a time back; raise ValueError without a time zone, or outside of 2010 to 2999 in UTC."""
    if not isinstance(time, datetime) or time.utcoffset() is None or not FIRST <= time < END:
        raise ValueError(f"a time has a time zone and is of the years {FIRST_YEAR} to {LAST_YEAR}")
    return time


@dataclass(frozen=True, slots=True)
class Call:
    """Whose call it is, and to which model. Raises TypeError unless the latter two are texts."""

    organization_id: Id
    user_id: Id
    provider: str
    model: str

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) for name in (self.provider, self.model)):
            raise TypeError("the provider and the model of a call are texts")


class HoldState(StrEnum):
    """What became of a hold. One that expired can be extended; it counts for nothing till then."""

    OPEN = "open"
    EXPIRED = "expired"
    SETTLED = "settled"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one call until it is settled, released, or expires.

    `group_id` is the group that the spend is attributed to (None: the organization alone);
    `cost_picos` is what is known of the cost, None where nothing is; `unpriced` names the units
    that have no price, such as `output`. `priced_as` is the provider and the model whose price it
    is, where a rule found them for the name; None: its own. `was_known`: it was held before, by the
    same request.
    """

    id: UUID
    organization_id: Id
    user_id: Id
    group_id: Id | None
    cost_picos: int | None
    unpriced: tuple[str, ...]
    expires_at: datetime
    priced_as: PricedAs | None = None
    state: HoldState = HoldState.OPEN
    was_known: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A row of the ledger.

    `cost_picos` is what is known of the cost, None where nothing is: unpriced, not free. `unpriced`
    names the units that were used and had no price, such as `output`. `priced_as` is as a hold's.
    """

    event_id: str
    organization_id: Id
    user_id: Id
    group_id: Id | None
    provider: str
    model: str
    priced_as: PricedAs | None
    tokens: Tokens
    cost_picos: int | None
    unpriced: tuple[str, ...]
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Recorded):
    """One call that was made, as the ledger has it."""

    hold_id: UUID | None
    # When the caller says that it was; None: not said.
    reported_occurred_at: datetime | None

    @property
    def occurred_at(self) -> datetime:
        """When the call was: as its caller says, else when it was recorded."""
        return self.reported_occurred_at or self.recorded_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction(Recorded):
    """What the event `corrects` should have said, and why.

    Its cost is what that should have cost, and `difference_picos` how much more that is than it
    was, below 0 where it is less.
    """

    corrects: str
    difference_picos: int
    reason: str
