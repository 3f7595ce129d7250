"""The endpoints of the core: each one's path, object, action and view, in one place."""

from __future__ import annotations

from govbudget.identity import Action
from govbudget.parts import load_part
from govbudget.web.audit import list_audit
from govbudget.web.budgets import delete_budget, get_budget, list_budgets, put_budget
from govbudget.web.call import MIB, Route, Target
from govbudget.web.prices import get_price, put_prices

_BUDGET = "/groups/<group>/ai/budget"
_LIST = "/organizations/<organization>/ai/budgets"
_AUDIT = "/organizations/<organization>/ai/audit"
_PRICE = "/ai/prices/<provider>/<rest:model>"

_GROUP, _GROUPS, _BOOK = Target.GROUP, Target.GROUPS_OF_ORGANIZATION, Target.PRICE_BOOK
_READ, _UPDATE = Action.READ, Action.UPDATE
_UNSET, _UNKNOWN = ("budget-not-set",), ("price-not-found",)

_ANSWER, _BODY = "web.answers:BudgetAnswer", "web.bodies:BudgetBody"

ROUTES: tuple[Route, ...] = (
    Route("GET", _BUDGET, _GROUP, _READ, get_budget, _ANSWER, codes=_UNSET, tagged=True),
    Route("PUT", _BUDGET, _GROUP, _UPDATE, put_budget, _ANSWER, _BODY, tagged=True),
    Route("DELETE", _BUDGET, _GROUP, _UPDATE, delete_budget, codes=_UNSET, tagged=True),
    Route("GET", _LIST, _GROUPS, _READ, list_budgets, "web.answers:BudgetPage", paged=True),
    Route("GET", _AUDIT, _GROUPS, _UPDATE, list_audit, "web.answers:EntryPage", paged=True),
    Route("GET", _PRICE, _BOOK, _READ, get_price, "prices.price:NamedPrice", codes=_UNKNOWN),
    Route(
        *("PUT", "/ai/prices", _BOOK, _UPDATE, put_prices),
        *("prices.store:BatchResult", "prices.price:BATCH"),
        max_body=16 * MIB,
        max_values=200_000,
        codes=("price-jump", "several-databases"),
        query=({"name": "allow_jumps", "schema": {"type": "boolean", "default": False}},),
    ),
)


def list_routes(*, spend: bool = True) -> tuple[Route, ...]:
    """List the endpoints of the core, and those of spend; SettingsError: it is not installed."""
    return ROUTES + (load_part("spend").ROUTES if spend else ())
