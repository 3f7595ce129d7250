"""The endpoints: each one's path, object, action and view, in one place."""

from __future__ import annotations

from govbudget.identity import Action
from govbudget.web.answers import (
    BatchAnswer,
    BudgetAnswer,
    BudgetPage,
    EntryPage,
    GroupSpendAnswer,
    GroupSpendPage,
    HoldAnswer,
    MemberSpendAnswer,
    OverrideAnswer,
    PriceAnswer,
    SpenderPage,
    UsageAnswer,
)
from govbudget.web.budgets import (
    delete_budget,
    get_budget,
    get_price,
    list_audit,
    list_budgets,
    put_budget,
    put_prices,
)
from govbudget.web.call import MIB, Route, Target
from govbudget.web.spend import (
    delete_hold,
    delete_override,
    get_group_spend,
    get_member_spend,
    get_override,
    list_groups_spend,
    list_members_spend,
    post_holds,
    post_settle,
    post_usage,
    put_override,
)

_BUDGET = "/groups/<group>/ai/budget"
_LIST = "/organizations/<organization>/ai/budgets"
_AUDIT = "/organizations/<organization>/ai/audit"
_PRICE = "/ai/prices/<provider>/<rest:model>"
_HOLD = "/ai/holds/<hold>"
_MEMBER = "/organizations/<organization>/members/<user>/ai"
_OVERRIDE = f"{_MEMBER}/budget/override"

_GROUP, _GROUPS, _BOOK = Target.GROUP, Target.GROUPS_OF_ORGANIZATION, Target.PRICE_BOOK
_LEDGER, _ONE = Target.LEDGER, Target.MEMBER
_READ, _UPDATE, _CREATE = Action.READ, Action.UPDATE, Action.CREATE
_UNSET, _UNKNOWN, _NO_OVERRIDE = ("budget-not-set",), ("price-not-found",), ("override-not-set",)
_REFUSED = ("budget-exceeded", "unpriced-model", "not-a-member")
_NO_HOLD, _CONFLICT = ("hold-not-found",), ("event-conflict",)

ROUTES: tuple[Route, ...] = (
    Route("GET", _BUDGET, _GROUP, _READ, get_budget, BudgetAnswer, codes=_UNSET, tagged=True),
    Route("PUT", _BUDGET, _GROUP, _UPDATE, put_budget, BudgetAnswer, "budget", tagged=True),
    Route("DELETE", _BUDGET, _GROUP, _UPDATE, delete_budget, codes=_UNSET, tagged=True),
    Route("GET", _LIST, _GROUPS, _READ, list_budgets, BudgetPage, paged=True),
    Route("GET", _AUDIT, _GROUPS, _UPDATE, list_audit, EntryPage, paged=True),
    Route("GET", _PRICE, _BOOK, _READ, get_price, PriceAnswer, codes=_UNKNOWN),
    Route(
        *("PUT", "/ai/prices", _BOOK, _UPDATE, put_prices, BatchAnswer, "prices"),
        max_body=16 * MIB,
        max_values=200_000,
        codes=("price-jump",),
        flags=("allow_jumps",),
    ),
    Route(
        *("POST", "/ai/holds", _LEDGER, _CREATE, post_holds, HoldAnswer, "hold"),
        codes=_REFUSED,
        statuses=(201,),
    ),
    Route(
        *("POST", f"{_HOLD}/settle", _LEDGER, _CREATE, post_settle, UsageAnswer, "settle"),
        codes=(*_NO_HOLD, *_CONFLICT),
    ),
    Route("DELETE", _HOLD, _LEDGER, _CREATE, delete_hold, codes=_NO_HOLD),
    Route(
        *("POST", "/ai/usage", _LEDGER, _CREATE, post_usage, UsageAnswer, "usage"),
        codes=("not-a-member", *_CONFLICT),
        statuses=(201, 200),
    ),
    Route("GET", _OVERRIDE, _ONE, _READ, get_override, OverrideAnswer, codes=_NO_OVERRIDE),
    Route(
        *("PUT", _OVERRIDE, _GROUPS, _UPDATE, put_override, OverrideAnswer, "override"),
        codes=("not-a-member",),
    ),
    Route("DELETE", _OVERRIDE, _GROUPS, _UPDATE, delete_override, codes=_NO_OVERRIDE),
    Route("GET", f"{_MEMBER}/spend", _ONE, _READ, get_member_spend, MemberSpendAnswer),
    Route("GET", "/groups/<group>/ai/spend", _GROUP, _READ, get_group_spend, GroupSpendAnswer),
    Route(
        *("GET", "/groups/<group>/members/ai/spend", _GROUP, _READ),
        *(list_members_spend, SpenderPage),
        paged=True,
    ),
    Route(
        *("GET", "/organizations/<organization>/groups/ai/spend", _GROUPS, _READ),
        *(list_groups_spend, GroupSpendPage),
        paged=True,
    ),
)
