"""The types of the answers of spend, as JSON has them; see `web/answers.py`."""

from __future__ import annotations

# pydantic brings `typing_extensions` and demands its TypedDict before Python 3.12.
from typing_extensions import TypedDict

from govbudget.web.answers import Id, LimitSource, Time, Uuid


class TokensAnswer(TypedDict):
    """Tokens by category, as they were sent."""

    input: int
    output: int
    cache_read: int
    cache_write: int


class HoldAnswer(TypedDict):
    """Money set aside until it is settled, released, or expires.

    `cost_micros` is what is known of the cost, null where nothing is; `unpriced` names the keys of
    `tokens` that had no price.
    """

    hold_id: Uuid
    organization_id: Id
    user_id: Id
    group_id: Id | None
    cost_micros: int | None
    unpriced: list[str]
    expires_at: Time


class UsageAnswer(TypedDict):
    """One call as the ledger has it.

    `cost_micros` is what is known of the cost, null where nothing is: unpriced, not free.
    `unpriced` names the keys of `tokens` that had no price.
    """

    event_id: str
    organization_id: Id
    user_id: Id
    group_id: Id | None
    hold_id: Uuid | None
    provider: str
    model: str
    tokens: TokensAnswer
    cost_micros: int | None
    unpriced: list[str]
    occurred_at: Time
    recorded_at: Time


class OverrideAnswer(TypedDict):
    """What one member may spend in a month, whatever the groups' budgets say."""

    organization_id: Id
    user_id: Id
    group_id: Id
    spend_limit_micros: int
    created_at: Time
    updated_at: Time


class MemberSpendAnswer(TypedDict):
    """A member's limit (null: none holds) and what set it, and the spend of the month."""

    organization_id: Id
    user_id: Id
    effective_group_id: Id | None
    spend_limit_micros: int | None
    limit_source: LimitSource | None
    current_spend_micros: int
    held_micros: int
    period_start: Time
    period_end: Time


class GroupSpendAnswer(TypedDict):
    """What was spent in the month and attributed to the group; some calls may have no price."""

    group_id: Id
    current_spend_micros: int
    calls: int
    unpriced_calls: int
    period_start: Time
    period_end: Time


class GroupSpendPage(TypedDict):
    """Groups that the caller may read, by id; no token: there are no more."""

    groups: list[GroupSpendAnswer]
    next_page_token: str | None


class SpenderAnswer(TypedDict):
    """What one user spent in the month that is attributed to the group."""

    user_id: Id
    current_spend_micros: int
    calls: int
    unpriced_calls: int


class SpenderPage(TypedDict):
    """Who spent for the group, as far as the caller may see, by id; no token: no more."""

    members: list[SpenderAnswer]
    period_start: Time
    period_end: Time
    next_page_token: str | None
