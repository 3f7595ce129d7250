"""What keeps a call from being held or recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from govbudget.errors import GovBudgetError
from govbudget.identity import Id
from govbudget.money import round_up_to_micros
from govbudget.text import write_id, write_time


@dataclass(eq=False, repr=False, kw_only=True)
class BudgetExceeded(GovBudgetError):
    """A call does not fit under the member's limit; nothing was held.

    `limit_source` is `group` or `user_override`, `group_id` the group that it names;
    `limit_expires_at` is when such an override ends (None: it has no end). Costs are picos (1 USD =
    10^12). It says nothing about anybody else.
    """

    limit_micros: int
    limit_source: str
    group_id: Id
    spent_picos: int
    held_picos: int
    cost_picos: int
    period_end: datetime
    limit_expires_at: datetime | None = None

    def __post_init__(self) -> None:
        """Say the figures."""
        costs = self.spent_picos, self.held_picos, self.cost_picos
        spent, held, asked = map(round_up_to_micros, costs)
        super().__init__(
            "budget-exceeded",
            f"this call does not fit under the member's limit: limit {self.limit_micros}, spent "
            f"{spent}, held {held}, asked {asked} micros; the period ends at "
            f"{self.period_end.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        )

    @property
    def members(self) -> dict[str, Any]:
        """The member's own figures, in micros, and what set the limit."""
        ends = self.limit_expires_at
        return {
            "spend_limit_micros": self.limit_micros,
            "limit_source": self.limit_source,
            **({} if ends is None else {"limit_expires_at": write_time(ends)}),
            "group_id": write_id(self.group_id),
            "current_spend_micros": round_up_to_micros(self.spent_picos),
            "held_micros": round_up_to_micros(self.held_picos),
            "cost_micros": round_up_to_micros(self.cost_picos),
            "period_end": write_time(self.period_end),
        }


class UnpricedModel(GovBudgetError):
    """The cost of a call is not wholly known, and the member has a limit; nothing was held.

    `unpriced` names the units that have no price, such as `output`.
    """

    def __init__(self, provider: str, model: str, unpriced: Sequence[str]) -> None:
        units = ", ".join(f"`{unit}`" for unit in unpriced)
        super().__init__(
            "unpriced-model",
            f"`{provider}` `{model}` has no price for {units}; set one, or let unpriced calls pass"
            " with the setting GOVBUDGET_UNPRICED",
        )
        self.unpriced = tuple(unpriced)


class NotAMember(GovBudgetError):
    """The user is not a member of the organization or group that was named."""

    def __init__(self) -> None:
        super().__init__("not-a-member", "the user is not a member there")


class EventConflict(GovBudgetError):
    """The event is known with other contents, or its hold was settled by another event."""

    def __init__(self, event_id: str) -> None:
        super().__init__(
            "event-conflict",
            f"the event `{event_id}` is recorded with other contents, or another event settled its"
            " hold; a new call needs an event id of its own",
        )


class HoldConflict(GovBudgetError):
    """The id is of a hold that was asked for with another body."""

    def __init__(self, hold_id: UUID) -> None:
        super().__init__(
            "hold-conflict",
            f"`{hold_id}` is the id of a hold that was asked for otherwise; a new call needs an id"
            " of its own",
        )


class HoldClosed(GovBudgetError):
    """The hold was settled or released."""

    def __init__(self, hold_id: UUID, state: str) -> None:
        super().__init__(
            "hold-closed", f"the hold `{hold_id}` was {state}; a new call needs a new hold"
        )


@dataclass(eq=False, repr=False)
class EventCorrected(GovBudgetError):
    """The event was corrected by the event `event_id`; to correct again, name that one."""

    corrects: str
    event_id: str

    def __post_init__(self) -> None:
        """Say which one."""
        super().__init__(
            "event-corrected",
            f"the event `{self.corrects}` was corrected by `{self.event_id}`; to correct it again,"
            " name that one",
        )

    @property
    def members(self) -> dict[str, Any]:
        """Which event corrected it."""
        return {"event_id": self.event_id}
