"""The types of what is answered, as JSON has it: the functions that write answers give them.

mypy holds the functions to them, `web/openapi.py` shows them, and the tests compare every answer.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

# pydantic brings `typing_extensions` and demands its TypedDict before Python 3.12.
from typing_extensions import TypeAliasType, TypedDict

# What these are, `web/openapi.py` says; an id is of the installation's type.
Id = TypeAliasType("Id", int | str)
Time = TypeAliasType("Time", str)
Uuid = TypeAliasType("Uuid", str)
LimitSource = TypeAliasType("LimitSource", Literal["group", "user_override"])
Values = TypeAliasType("Values", dict[str, Any])


class BudgetAnswer(TypedDict):
    """What each member of the group may spend in a month, in micros (1 USD is 1,000,000)."""

    group_id: Id
    spend_limit_micros: int
    created_at: Time
    updated_at: Time


class BudgetPage(TypedDict):
    """Budgets that the caller may read, by group id; no token: there are no more."""

    budgets: list[BudgetAnswer]
    next_page_token: str | None


class EntryAnswer(TypedDict):
    """One change: its values before and after, null where there was or is nothing; by whom, why."""

    id: str
    at: Time
    object_type: str
    object_id: str
    before: Values | None
    after: Values | None
    actor: str | None
    roles: list[str] | None
    lines: list[str] | None
    policy_digest: str | None
    request_id: str | None
    cause: str


class EntryPage(TypedDict):
    """Entries of the audit trail, the newest first; no token: there are no more."""

    entries: list[EntryAnswer]
    next_page_token: str | None


class PriceAnswer(TypedDict):
    """What a model costs, in micros per one million tokens; null: it is not known."""

    provider: str
    model: str
    input_price: int | None
    output_price: int | None
    cache_read_price: int | None
    cache_write_price: int | None


class BatchAnswer(TypedDict):
    """How many prices were sent, and how many of them are other than they were."""

    received: int
    changed: int


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


class FieldProblem(TypedDict):
    """What is wrong at one place: a JSON pointer into the body or a parameter's name."""

    pointer: str
    detail: str


class Problem(TypedDict):
    """Any failure (RFC 9457). `code` is stable; `detail` is for people and may change."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: NotRequired[list[FieldProblem]]
    # Of `budget-exceeded`: the member's own figures, and what set the limit.
    spend_limit_micros: NotRequired[int]
    limit_source: NotRequired[LimitSource]
    group_id: NotRequired[Id]
    current_spend_micros: NotRequired[int]
    held_micros: NotRequired[int]
    cost_micros: NotRequired[int]
    period_end: NotRequired[Time]
