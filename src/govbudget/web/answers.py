"""The answers: each is a model, made from a store's value and written as JSON has it.

A route names its model; the blueprint makes and writes it. `web/openapi.py` shows the same models.
pydantic makes them, so this module is loaded with the first answer.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, NotRequired
from uuid import UUID

from pydantic import (
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SkipValidation,
    WithJsonSchema,
)

# pydantic demands this TypedDict before Python 3.12.
from typing_extensions import TypeAliasType, TypedDict

from govbudget import identity
from govbudget.budgets.budget import LimitSource
from govbudget.text import write_id, write_time

# `web/openapi.py` says what these are; an id is of the installation's type.
Id = TypeAliasType(
    "Id",
    Annotated[identity.Id, SkipValidation, PlainSerializer(write_id), WithJsonSchema({})],
)
Time = TypeAliasType(
    "Time", Annotated[datetime, PlainSerializer(write_time), WithJsonSchema({"type": "string"})]
)
Uuid = TypeAliasType("Uuid", Annotated[UUID, PlainSerializer(str)])
Values = TypeAliasType("Values", dict[str, Any])


class Answer(BaseModel):
    """An answer, made from the attributes of a value."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


def read(*path: str) -> Any:  # noqa: ANN401 - as pydantic's Field
    """Read a field from another attribute of the value, or from what that holds."""
    return Field(validation_alias=AliasPath(*path))


class BudgetAnswer(Answer):
    """What each member of the group may spend in a month, in micros (1 USD is 1,000,000)."""

    group_id: Id
    spend_limit_micros: int
    created_at: Time
    updated_at: Time


class BudgetPage(Answer):
    """Budgets that the caller may read, by group id; no token: there are no more."""

    budgets: list[BudgetAnswer]
    next_page_token: str | None


class EntryAnswer(Answer):
    """One change: its values before and after, null where there was or is nothing; by whom, why."""

    id: Annotated[UUID, PlainSerializer(str), WithJsonSchema({"type": "string"})]
    at: Time
    object_type: str
    object_id: str
    before: Values | None
    after: Values | None
    actor: str | None = read("receipt", "actor")
    roles: list[str] | None = read("receipt", "roles")
    lines: list[str] | None = read("receipt", "lines")
    policy_digest: str | None = read("receipt", "policy_digest")
    request_id: str | None = read("receipt", "request_id")
    cause: str = read("receipt", "cause")


class EntryPage(Answer):
    """Entries of the audit trail, the newest first; no token: there are no more."""

    entries: list[EntryAnswer]
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
    limit_expires_at: NotRequired[Time]
    group_id: NotRequired[Id]
    current_spend_micros: NotRequired[int]
    held_micros: NotRequired[int]
    cost_micros: NotRequired[int]
    period_end: NotRequired[Time]
    # Of `event-corrected`: the event that corrected it.
    event_id: NotRequired[str]
