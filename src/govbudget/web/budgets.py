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

from govbudget.text import write_id, write_time
from govbudget.web.answers import BatchAnswer, BudgetPage, EntryPage
from govbudget.web.call import answer_page
from govbudget.web.paging import read_flag, read_id_page, read_page
from govbudget.web.preconditions import is_unchanged, read_condition
from govbudget.web.problems import answer, answer_empty
from govbudget.web.requestlog import request_id
from govbudget.web.signals import budget_changed, send

if TYPE_CHECKING:
    from flask import Response

    from govbudget.audit.entry import Entry
    from govbudget.budgets.budget import Budget
    from govbudget.identity import Group, Organization, PriceBook
    from govbudget.web.answers import BudgetAnswer, EntryAnswer
    from govbudget.web.bodies import BudgetBody
    from govbudget.web.call import AuthorizedRequest


def get_budget(asked: AuthorizedRequest[Group]) -> Response:
    """Answer with the group's budget, or 304 where the caller has it."""
    budget = asked.gov.budgets.get(asked.grant)
    if is_unchanged(request, budget):
        response = answer_empty(304)
        response.set_etag(budget.etag)
        return response
    return _answer_budget(budget)


def put_budget(asked: AuthorizedRequest[Group]) -> Response:
    """Create or change the group's budget."""
    body: BudgetBody = asked.body
    condition = read_condition(request)
    budget = asked.gov.budgets.set(asked.grant, body.spend_limit_micros, condition)
    _signal_change(asked, budget)
    return _answer_budget(budget)


def delete_budget(asked: AuthorizedRequest[Group]) -> Response:
    """Delete the group's budget: no limit is set then."""
    asked.gov.budgets.delete(asked.grant, read_condition(request))
    _signal_change(asked, None)
    return answer_empty()


def list_budgets(asked: AuthorizedRequest[Organization]) -> Response:
    """Answer with a page of the budgets that the caller may read."""
    page = read_id_page(asked.object.id, asked.gov.settings.id_type)
    found = asked.gov.budgets.list(asked.grant, limit=page.limit, after=page.after)
    budgets, token = page.cut(found, lambda budget: (budget.group_id,))
    written = [_write_budget(budget) for budget in budgets]
    return answer_page(BudgetPage(budgets=written, next_page_token=token))


def list_audit(asked: AuthorizedRequest[Organization]) -> Response:
    """Answer with a page of the organization's audit trail, the newest entry first."""
    page = read_page(asked.object.id, _read_entry_position)
    found = asked.gov.audit.list(asked.grant, limit=page.limit, after=page.after)
    entries, token = page.cut(found, lambda entry: (entry.at.isoformat(), entry.id))
    return answer_page(EntryPage(entries=list(map(_write_entry, entries)), next_page_token=token))


def get_price(asked: AuthorizedRequest[PriceBook]) -> Response:
    """Answer with the model's price in force, in micros per one million tokens."""
    price = asked.gov.prices.get(asked.grant, asked.path["provider"], asked.path["model"])
    return answer(price.model_dump())


def put_prices(asked: AuthorizedRequest[PriceBook]) -> Response:
    """Store an array of custom prices, which go before the book's; all or nothing."""
    result = asked.gov.prices.upsert(asked.grant, asked.body, allow_jumps=read_flag("allow_jumps"))
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


def _signal_change(asked: AuthorizedRequest[Group], budget: Budget | None) -> None:
    announce = partial(
        send,
        budget_changed,
        asked.gov.app,
        subject=asked.grant.allowed.subject,
        group=asked.object,
        budget=budget,
        request_id=request_id(),
    )
    asked.later.append(announce)


def _answer_budget(budget: Budget) -> Response:
    response = answer(_write_budget(budget))
    response.set_etag(budget.etag)
    return response
