"""What spend adds to an application: its endpoints, and `hold()` of the installation."""

from __future__ import annotations

from govbudget.identity import Action
from govbudget.spend import views
from govbudget.spend.installation import Installation
from govbudget.spend.report_view import PARAMETERS, get_organization_spend, take_turn
from govbudget.web.call import Route, Target
from govbudget.web.destination import ORGANIZATION_ID

__all__ = ["ROUTES", "Installation"]

_HOLD = "/ai/holds/<hold>"
_MEMBER = "/organizations/<organization>/members/<user>/ai"
_OVERRIDE = f"{_MEMBER}/budget/override"

_ANSWER = "spend.answers:OverrideAnswer"

_GROUP, _GROUPS = Target.GROUP, Target.GROUPS_OF_ORGANIZATION
_LEDGER, _ONE = Target.LEDGER, Target.MEMBER
_READ, _UPDATE, _CREATE = Action.READ, Action.UPDATE, Action.CREATE
_NO_HOLD, _NO_OVERRIDE = "hold-not-found", "override-not-set"
_OF_HOLD = (_NO_HOLD, "organization-required")
_WHEN = "required where there are several databases and the hold's id was not made here"
_ID = {"$ref": "#/components/schemas/Id"}
_NAMED = ({"name": ORGANIZATION_ID, "schema": _ID, "description": _WHEN},)

ROUTES: tuple[Route, ...] = (
    Route(
        *("POST", "/ai/holds", _LEDGER, _CREATE, views.post_holds),
        *("spend.answers:HoldAnswer", "spend.bodies:HoldBody"),
        codes=("budget-exceeded", "unpriced-model", "not-a-member", "hold-conflict"),
        statuses=(201, 200),
        note_error=views.note_refused,
    ),
    Route(
        *("POST", f"{_HOLD}/settle", _LEDGER, _CREATE, views.post_settle),
        *("spend.answers:UsageAnswer", "spend.bodies:SettleBody"),
        codes=(*_OF_HOLD, "event-conflict"),
        query=_NAMED,
    ),
    Route(
        *("GET", _HOLD, _LEDGER, _CREATE, views.get_hold, "spend.answers:HoldAnswer"),
        codes=_OF_HOLD,
        query=_NAMED,
    ),
    Route(
        *("POST", f"{_HOLD}/extend", _LEDGER, _CREATE, views.post_extend),
        *("spend.answers:HoldAnswer", "spend.bodies:ExtendBody"),
        codes=(*_OF_HOLD, "hold-closed", "budget-exceeded", "unpriced-model", "not-a-member"),
        query=_NAMED,
        note_error=views.note_refused,
    ),
    Route("DELETE", _HOLD, _LEDGER, _CREATE, views.delete_hold, codes=_OF_HOLD, query=_NAMED),
    Route(
        *("POST", "/ai/usage", _LEDGER, _CREATE, views.post_usage),
        *("spend.answers:UsageAnswer", "spend.bodies:UsageBody"),
        codes=("not-a-member", "event-conflict"),
        statuses=(201, 200),
    ),
    Route(
        *("POST", "/ai/corrections", _LEDGER, _UPDATE, views.post_corrections),
        *("spend.answers:CorrectionAnswer", "spend.bodies:CorrectionBody"),
        codes=("event-not-found", "event-conflict", "event-corrected"),
        statuses=(201, 200),
    ),
    Route("GET", _OVERRIDE, _ONE, _READ, views.get_override, _ANSWER, codes=(_NO_OVERRIDE,)),
    Route(
        *("PUT", _OVERRIDE, _GROUPS, _UPDATE, views.put_override),
        *(_ANSWER, "spend.bodies:OverrideBody"),
        codes=("not-a-member",),
    ),
    Route("DELETE", _OVERRIDE, _GROUPS, _UPDATE, views.delete_override, codes=(_NO_OVERRIDE,)),
    Route(
        *("GET", f"{_MEMBER}/spend", _ONE, _READ, views.get_member_spend),
        "spend.answers:MemberSpendAnswer",
    ),
    Route(
        *("GET", "/organizations/<organization>/ai/spend", _GROUPS, _READ),
        *(get_organization_spend, "spend.answers:SpendPage"),
        paged=True,
        turn=take_turn,
        query=PARAMETERS,
    ),
    Route(
        *("GET", "/groups/<group>/ai/spend", _GROUP, _READ, views.get_group_spend),
        "spend.answers:GroupSpendAnswer",
    ),
    Route(
        *("GET", "/groups/<group>/members/ai/spend", _GROUP, _READ, views.list_members_spend),
        "spend.answers:SpenderPage",
        paged=True,
    ),
    Route(
        *("GET", "/organizations/<organization>/ai/notices", _GROUPS, _READ, views.list_notices),
        "spend.answers:NoticePage",
        paged=True,
    ),
    Route(
        *("GET", "/organizations/<organization>/groups/ai/spend", _GROUPS, _READ),
        *(views.list_groups_spend, "spend.answers:GroupSpendPage"),
        paged=True,
    ),
)
