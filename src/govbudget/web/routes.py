"""The endpoints: each one's path, object, action and view, in one place.

A view runs after the decision. It gets a `Call`, which holds the grant; it reads the body or the
query first and then sends its one statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from werkzeug.exceptions import RequestEntityTooLarge

from govbudget.authz.grant import Grant, ListGrant
from govbudget.errors import GovBudgetError
from govbudget.identity import Action, Group, Organization, PriceBook
from govbudget.prices.price import BATCH, Price, parse_prices
from govbudget.strict_json import parse_json
from govbudget.tables import MAX_LIMIT_MICROS
from govbudget.web.answers import BatchAnswer, BudgetAnswer, BudgetPage, EntryAnswer, EntryPage
from govbudget.web.paging import PageQuery, read_page, write_token
from govbudget.web.preconditions import is_unchanged, read_condition
from govbudget.web.problems import answer, answer_empty
from govbudget.web.requestlog import request_id
from govbudget.web.signals import budget_changed, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from govbudget.audit.entry import Entry
    from govbudget.budgets.budget import Budget
    from govbudget.identity import Id
    from govbudget.ids import IdType
    from govbudget.installation import Installation

MIB = 1024 * 1024
MAX_BUDGET_BODY = MIB
MAX_PRICES_BODY = 16 * MIB

GrantT = TypeVar("GrantT", Grant, ListGrant)
ObjectT = TypeVar("ObjectT", Group, Organization, PriceBook)


class Target(StrEnum):
    """What a route is about, and so what is loaded before the decision."""

    GROUP = "group"
    GROUPS_OF_ORGANIZATION = "organization"
    PRICE_BOOK = "price book"


@dataclass(frozen=True, slots=True)
class Call(Generic[GrantT, ObjectT]):
    """An authorized request: the grant, and what its view needs to do the work."""

    home: Installation
    connection: Connection
    grant: GrantT
    object: ObjectT
    path: dict[str, str]
    # What is done when the connection is given back, in this order.
    later: list[Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: method and path, what is authorized, and the view that runs after it.

    The rest is for the OpenAPI document (`web/openapi.py`): the type of the answer (None: 204), of
    the body and of the query; the codes of errors that are this endpoint's own; its statuses when
    all is well; whether it has an `ETag` and heeds preconditions.
    """

    method: str
    path: str
    target: Target
    action: Action
    view: Callable[[Any], Response]
    answer: type | None = None
    body: TypeAdapter[Any] | None = None
    query: type | None = None
    codes: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)
    tagged: bool = False


class BudgetBody(BaseModel):
    """The body of a PUT of a budget."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    spend_limit_micros: Annotated[int, Field(ge=0, le=MAX_LIMIT_MICROS)]


BUDGET_BODY = TypeAdapter(BudgetBody)


def read_body(max_bytes: int) -> bytes:
    """Read a JSON body; raise `unsupported-media-type` or 413."""
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if request.mimetype != "application/json" or charset != "utf-8" or encoding != "identity":
        raise GovBudgetError(
            "unsupported-media-type", "send `Content-Type: application/json`, UTF-8, not compressed"
        )
    # One byte more than is taken: of a body without a length Flask reads this much and no more, and
    # does not say that there was more. The host may also have read the body, under its own limit.
    request.max_content_length = max_bytes + 1
    content = request.get_data()
    if len(content) > max_bytes:
        raise RequestEntityTooLarge
    return content


def get_budget(call: Call[Grant, Group]) -> Response:
    """Answer with the group's budget, or 304 where the caller has it."""
    budget = call.home.budgets.get(call.connection, call.grant, call.object)
    if is_unchanged(request, budget):
        response = answer_empty(304)
        response.set_etag(budget.etag)
        return response
    return _answer_budget(budget)


def put_budget(call: Call[Grant, Group]) -> Response:
    """Create or change the group's budget."""
    body = parse_json(read_body(MAX_BUDGET_BODY), BUDGET_BODY)
    budget = call.home.budgets.set(
        call.connection,
        call.grant,
        call.object,
        body.spend_limit_micros,
        read_condition(request),
        request_id=request_id(),
    )
    _signal_change(call, budget)
    return _answer_budget(budget)


def delete_budget(call: Call[Grant, Group]) -> Response:
    """Delete the group's budget."""
    condition = read_condition(request)
    call.home.budgets.delete(
        call.connection, call.grant, call.object, condition, request_id=request_id()
    )
    _signal_change(call, None)
    return answer_empty()


def list_budgets(call: Call[ListGrant, Organization]) -> Response:
    """Answer with a page of the budgets that the caller may read."""
    organization = call.object
    id_type = call.home.settings.id_type
    size, after = read_page(
        request.args, organization.id, lambda text: _read_group_position(text, id_type)
    )
    budgets = call.home.budgets.list(
        call.connection, call.grant, organization, limit=size + 1, after=after
    )
    page = budgets[:size]
    token = write_token(organization.id, page[-1].group_id) if len(budgets) > size else None
    written = [_write_budget(budget) for budget in page]
    return _answer_page(BudgetPage(budgets=written, next_page_token=token))


def list_audit(call: Call[ListGrant, Organization]) -> Response:
    """Answer with a page of the organization's audit trail, the newest entry first."""
    organization = call.object
    size, after = read_page(request.args, organization.id, _read_entry_position)
    entries = call.home.audit.list(
        call.connection, call.grant, organization, limit=size + 1, after=after
    )
    page = entries[:size]
    token = (
        write_token(organization.id, page[-1].at.isoformat(), page[-1].id)
        if len(entries) > size
        else None
    )
    written = [_write_entry(entry) for entry in page]
    return _answer_page(EntryPage(entries=written, next_page_token=token))


def get_price(call: Call[Grant, PriceBook]) -> Response:
    """Answer with the price in force."""
    price = call.home.prices.get(
        call.connection, call.grant, call.object, call.path["provider"], call.path["model"]
    )
    return answer(price.model_dump())


def put_prices(call: Call[Grant, PriceBook]) -> Response:
    """Store a batch of prices, all or nothing."""
    prices = parse_prices(read_body(MAX_PRICES_BODY))
    result = call.home.prices.upsert(
        call.connection, call.grant, call.object, prices, request_id=request_id()
    )
    return answer(BatchAnswer(received=result.received, changed=result.changed))


_BUDGET = "/groups/<group>/ai/budget"
_LIST = "/organizations/<organization>/ai/budgets"
_AUDIT = "/organizations/<organization>/ai/audit"

_PRICE = "/ai/prices/<provider>/<rest:model>"
_GROUP, _GROUPS, _BOOK = Target.GROUP, Target.GROUPS_OF_ORGANIZATION, Target.PRICE_BOOK
_READ, _UPDATE = Action.READ, Action.UPDATE
_UNSET, _UNKNOWN = ("budget-not-set",), ("price-not-found",)

ROUTES: tuple[Route, ...] = (
    Route("GET", _BUDGET, _GROUP, _READ, get_budget, BudgetAnswer, codes=_UNSET, tagged=True),
    Route("PUT", _BUDGET, _GROUP, _UPDATE, put_budget, BudgetAnswer, BUDGET_BODY, tagged=True),
    Route("DELETE", _BUDGET, _GROUP, _UPDATE, delete_budget, codes=_UNSET, tagged=True),
    Route("GET", _LIST, _GROUPS, _READ, list_budgets, BudgetPage, query=PageQuery),
    Route("GET", _AUDIT, _GROUPS, _UPDATE, list_audit, EntryPage, query=PageQuery),
    Route("GET", _PRICE, _BOOK, _READ, get_price, Price, codes=_UNKNOWN),
    Route("PUT", "/ai/prices", _BOOK, _UPDATE, put_prices, BatchAnswer, BATCH),
)


def _write_budget(budget: Budget) -> BudgetAnswer:
    return {
        "group_id": budget.group_id if isinstance(budget.group_id, int) else str(budget.group_id),
        "spend_limit_micros": budget.spend_limit_micros,
        "created_at": _write_time(budget.created_at),
        "updated_at": _write_time(budget.updated_at),
    }


def _write_entry(entry: Entry) -> EntryAnswer:
    receipt = entry.receipt
    return {
        "id": str(entry.id),
        "at": _write_time(entry.at),
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "before": entry.before,
        "after": entry.after,
        "actor": receipt.get("actor"),
        "roles": receipt.get("roles"),
        "lines": receipt.get("lines"),
        "policy_digest": receipt.get("policy_digest"),
        "request_id": receipt.get("request_id"),
        "cause": receipt["cause"],
    }


def _read_group_position(text: str, id_type: IdType) -> Id:
    group_id = id_type.parse(text)
    if str(group_id) != text:  # another spelling of it: no token of ours
        raise ValueError(text)
    return group_id


def _read_entry_position(at: str, entry_id: str) -> tuple[datetime, UUID]:
    time = datetime.fromisoformat(at)
    if time.tzinfo is None:
        raise ValueError(at)
    return time, UUID(entry_id)


def _answer_page(page: BudgetPage | EntryPage) -> Response:
    """Answer with a page; where there is a next one, the `Link` header names it too (RFC 8288)."""
    response = answer(page)
    if (token := page["next_page_token"]) is not None:
        path = quote(request.script_root + request.path)
        query = urlencode({**request.args, "page_token": token})
        response.headers["Link"] = f'<{path}?{query}>; rel="next"'
    return response


def _signal_change(call: Call[Grant, Group], budget: Budget | None) -> None:
    announce = partial(
        send,
        budget_changed,
        call.home.app,
        subject=call.grant.subject,
        group=call.object,
        budget=budget,
        request_id=request_id(),
    )
    call.later.append(announce)


def _write_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _answer_budget(budget: Budget) -> Response:
    response = answer(_write_budget(budget))
    response.set_etag(budget.etag)
    return response
