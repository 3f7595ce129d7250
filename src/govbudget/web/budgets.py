"""The views of budgets, prices and the audit trail.

A view runs after the decision. It gets a `Call`, which holds the grant and the body; it reads the
query and then sends its one statement.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from flask import request

from govbudget.web.answers import BatchAnswer, BudgetPage, EntryPage
from govbudget.web.call import answer_page
from govbudget.web.paging import read_flag, read_id_page, read_page
from govbudget.web.preconditions import is_unchanged, read_condition
from govbudget.web.problems import answer, answer_empty, write_id, write_time
from govbudget.web.requestlog import request_id
from govbudget.web.signals import budget_changed, send

if TYPE_CHECKING:
    from flask import Response

    from govbudget.audit.entry import Entry
    from govbudget.authz.grant import Grant, ListGrant
    from govbudget.budgets.budget import Budget
    from govbudget.identity import Group, Organization, PriceBook
    from govbudget.web.answers import BudgetAnswer, EntryAnswer
    from govbudget.web.bodies import BudgetBody
    from govbudget.web.call import Call


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
    body: BudgetBody = call.body
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
    """Delete the group's budget: no limit is set then."""
    condition = read_condition(request)
    call.home.budgets.delete(
        call.connection, call.grant, call.object, condition, request_id=request_id()
    )
    _signal_change(call, None)
    return answer_empty()


def list_budgets(call: Call[ListGrant, Organization]) -> Response:
    """Answer with a page of the budgets that the caller may read."""
    page = read_id_page(call.object.id, call.home.settings.id_type)
    found = call.home.budgets.list(
        call.connection, call.grant, call.object, limit=page.limit, after=page.after
    )
    budgets, token = page.cut(found, lambda budget: (budget.group_id,))
    written = [_write_budget(budget) for budget in budgets]
    return answer_page(BudgetPage(budgets=written, next_page_token=token))


def list_audit(call: Call[ListGrant, Organization]) -> Response:
    """Answer with a page of the organization's audit trail, the newest entry first."""
    page = read_page(call.object.id, _read_entry_position)
    found = call.home.audit.list(
        call.connection, call.grant, call.object, limit=page.limit, after=page.after
    )
    entries, token = page.cut(found, lambda entry: (entry.at.isoformat(), entry.id))
    return answer_page(EntryPage(entries=list(map(_write_entry, entries)), next_page_token=token))


def get_price(call: Call[Grant, PriceBook]) -> Response:
    """Answer with the model's price in force, in micros per one million tokens."""
    price = call.home.prices.get(
        call.connection, call.grant, call.object, call.path["provider"], call.path["model"]
    )
    return answer(price.model_dump())


def put_prices(call: Call[Grant, PriceBook]) -> Response:
    """Store an array of custom prices, which go before the book's; all or nothing."""
    result = call.home.prices.upsert(
        call.connection,
        call.grant,
        call.object,
        call.body,
        allow_jumps=read_flag("allow_jumps"),
        request_id=request_id(),
    )
    return answer(BatchAnswer(received=result.received, changed=result.changed))


def _write_budget(budget: Budget) -> BudgetAnswer:
    return {
        "group_id": write_id(budget.group_id),
        "spend_limit_micros": budget.spend_limit_micros,
        "created_at": write_time(budget.created_at),
        "updated_at": write_time(budget.updated_at),
    }


def _write_entry(entry: Entry) -> EntryAnswer:
    receipt = entry.receipt
    return {
        "id": str(entry.id),
        "at": write_time(entry.at),
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "before": entry.before,
        "after": entry.after,
        "actor": receipt["actor"],
        "roles": receipt["roles"],
        "lines": receipt["lines"],
        "policy_digest": receipt["policy_digest"],
        "request_id": receipt["request_id"],
        "cause": receipt["cause"],
    }


def _read_entry_position(at: str, entry_id: str) -> tuple[datetime, UUID]:
    time, found = datetime.fromisoformat(at), UUID(entry_id)
    if time.tzinfo is None or (time.isoformat(), str(found)) != (at, entry_id):
        raise ValueError(at)
    return time, found


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


def _answer_budget(budget: Budget) -> Response:
    response = answer(_write_budget(budget))
    response.set_etag(budget.etag)
    return response
