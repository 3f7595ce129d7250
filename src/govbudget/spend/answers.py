"""The answers of spend; see `web/answers.py`."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import BeforeValidator, Field

# pydantic demands this TypedDict before Python 3.12.
from typing_extensions import TypedDict

from govbudget.budgets.budget import LimitSource
from govbudget.money import round_up_to_micros
from govbudget.prices.price import PricedAsField
from govbudget.spend.usage import HoldState
from govbudget.web.answers import Answer, Id, Time, Uuid, read

# Micros, rounded up from picos.
Micros = Annotated[int, BeforeValidator(round_up_to_micros)]


# Of an override: shown where it has one.
End = Annotated[Time | None, Field(exclude_if=lambda time: time is None)]
Reason = Annotated[str | None, Field(exclude_if=lambda reason: reason is None)]


# Further units are shown where there are some.
Some = Annotated[int, Field(exclude_if=lambda count: not count)]


class TokensAnswer(Answer):
    """Tokens by category, as they were sent; of further categories those that are not 0."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: Some = 0
    input_audio: Some = 0
    cache_read_audio: Some = 0
    output_audio: Some = 0
    input_image: Some = 0
    cache_read_image: Some = 0
    output_image: Some = 0
    input_video: Some = 0
    output_video: Some = 0
    web_searches: Some = 0


class HoldAnswer(Answer):
    """Money set aside until it is settled, released, or expires.

    `cost_micros` is what is known of the cost, null where nothing is; `unpriced` names the keys of
    `tokens` that had no price. From `expires_at` on nothing is set aside, until it is extended;
    it can still be settled.
    """

    hold_id: Uuid = read("id")
    organization_id: Id
    user_id: Id
    group_id: Id | None
    priced_as: PricedAsField | None
    cost_micros: Micros | None = read("cost_picos")
    unpriced: list[str]
    state: HoldState
    expires_at: Time


class UsageAnswer(Answer):
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
    priced_as: PricedAsField | None
    tokens: TokensAnswer
    cost_micros: Micros | None = read("cost_picos")
    unpriced: list[str]
    occurred_at: Time
    recorded_at: Time


class CorrectionAnswer(Answer):
    """What the event `corrects` should have said, and why; a row of the ledger beside it.

    `cost_micros` is what is known of what the call should have cost, and `difference_micros` how
    much more that is than before, below 0 where it is less.
    """

    event_id: str
    organization_id: Id
    corrects: str
    user_id: Id
    group_id: Id | None
    provider: str
    model: str
    tokens: TokensAnswer
    cost_micros: Micros | None = read("cost_picos")
    difference_micros: Micros = read("difference_picos")
    unpriced: list[str]
    reason: str
    recorded_at: Time


class OverrideAnswer(Answer):
    """What one member may spend in a month, whatever the groups' budgets say.

    From `expires_at` on it counts for nothing, and the groups' budgets hold again; where it is left
    out, the override has no end.
    """

    organization_id: Id
    user_id: Id
    group_id: Id
    spend_limit_micros: int
    expires_at: End = None
    reason: Reason = None
    created_at: Time
    updated_at: Time


class MemberSpendAnswer(Answer):
    """A member's limit (null: none holds) and what set it, and the spend of the month.

    `limit_expires_at` is when the override that sets the limit ends; it is left out where it has no
    end, and where a group sets the limit.
    """

    organization_id: Id
    user_id: Id
    effective_group_id: Id | None = read("group_id")
    spend_limit_micros: int | None = read("limit_micros")
    limit_source: LimitSource | None
    limit_expires_at: End = None
    current_spend_micros: Micros = read("spent_picos")
    held_micros: Micros = read("held_picos")
    period_start: Time = read("period", "start")
    period_end: Time = read("period", "end")


class GroupSpendAnswer(Answer):
    """What was spent in the month and attributed to the group; some calls may have no price."""

    group_id: Id
    current_spend_micros: Micros = read("sum", "cost_picos")
    calls: int = read("sum", "calls")
    unpriced_calls: int = read("sum", "unpriced_calls")
    period_start: Time = read("period", "start")
    period_end: Time = read("period", "end")


class GroupSpendPage(Answer):
    """Groups that the caller may read, by id; no token: there are no more."""

    groups: list[GroupSpendAnswer]
    next_page_token: str | None


class SpendRow(TypedDict):
    """What was spent under the keys that were asked for; the group is null where it is none."""

    day: NotRequired[str]
    month: NotRequired[str]
    provider: NotRequired[str]
    model: NotRequired[str]
    group: NotRequired[Id | None]
    user: NotRequired[Id]
    cost_micros: int
    calls: int
    unpriced_calls: int


class SpendPage(Answer):
    """Rows in the order of their keys: day, month, provider, model, group, user.

    No token: there are no more.
    """

    rows: list[SpendRow]
    next_page_token: str | None


class SpenderAnswer(Answer):
    """What one user spent in the month that is attributed to the group."""

    user_id: Id
    current_spend_micros: Micros = read("sum", "cost_picos")
    calls: int = read("sum", "calls")
    unpriced_calls: int = read("sum", "unpriced_calls")


class SpenderPage(Answer):
    """Who spent for the group, as far as the caller may see, by id; no token: no more."""

    members: list[SpenderAnswer]
    period_start: Time
    period_end: Time
    next_page_token: str | None


class NoticeAnswer(Answer):
    """A member's spend has crossed a threshold, in percent of the limit that held then.

    `group_id` is the group whose budget or override set the limit; `spent_micros` is what was spent
    when it was noticed.
    """

    id: Uuid
    created_at: Time
    organization_id: Id
    user_id: Id
    month: str
    threshold: int
    spend_limit_micros: int = read("limit_micros")
    limit_source: LimitSource
    group_id: Id
    spent_micros: int


class NoticePage(Answer):
    """Notices that the caller may read, the newest first; no token: there are no more."""

    notices: list[NoticeAnswer]
    next_page_token: str | None
