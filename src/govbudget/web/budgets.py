"""The views of budgets.

A view runs after the decision. It is given an `AuthorizedRequest`, which holds the grant and the
body; it reads the query, sends its one statement and gives the value of the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, request

from govbudget.web.paging import read_id_page
from govbudget.web.preconditions import is_unchanged, read_condition
from govbudget.web.problems import answer_empty

if TYPE_CHECKING:
    from govbudget.budgets.budget import Budget
    from govbudget.identity import Group, Organization
    from govbudget.web.bodies import BudgetBody
    from govbudget.web.call import AuthorizedRequest


def get_budget(asked: AuthorizedRequest[Group]) -> Budget | Response:
    """Answer with the group's budget, or 304 where the caller has it."""
    budget = asked.gov.budgets.get(asked.grant)
    if is_unchanged(request, budget):
        response = answer_empty(304)
        response.set_etag(budget.etag)
        return response
    return budget


def put_budget(asked: AuthorizedRequest[Group]) -> Budget:
    """Create or change the group's budget."""
    body: BudgetBody = asked.body
    condition = read_condition(request)
    return asked.gov.budgets.set(asked.grant, body.spend_limit_micros, condition)


def delete_budget(asked: AuthorizedRequest[Group]) -> None:
    """Delete the group's budget: no limit is set then."""
    asked.gov.budgets.delete(asked.grant, read_condition(request))


def list_budgets(asked: AuthorizedRequest[Organization]) -> dict[str, Any]:
    """Answer with a page of the budgets that the caller may read."""
    page = read_id_page(asked.object.id, asked.gov.settings.id_type)
    found = asked.gov.budgets.list(asked.grant, limit=page.limit, after=page.after)
    return page.cut(found, lambda budget: (budget.group_id,), "budgets")
