"""The views of spend: holds, usage, overrides and reports."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from werkzeug.exceptions import HTTPException

from govbudget.errors import GovBudgetError
from govbudget.spend.notices import Notices
from govbudget.spend.overrides import Override, Overrides
from govbudget.spend.store import Spend
from govbudget.spend.this_month import GroupSpend, MemberSpend, Reports
from govbudget.web.call import AuthorizedRequest as Asked, Known, Later
from govbudget.web.destination import ORGANIZATION_ID, find_hold_organization
from govbudget.web.paging import read_id_page, read_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from govbudget.identity import Group, Ledger, Member, Organization
    from govbudget.spend.bodies import (
        CorrectionBody,
        ExtendBody,
        HoldBody,
        OverrideBody,
        SettleBody,
        UsageBody,
    )
    from govbudget.spend.installation import Installation
    from govbudget.spend.usage import Correction, Hold, Usage


def post_holds(asked: Asked[Ledger]) -> Hold | Known:
    """Set aside what a call costs at most, where it fits under the member's limit.

    With a `hold_id` of your own it is safe to send it again: 200, and the stored hold.
    """
    body: HoldBody = asked.body
    hold = Spend.hold(
        asked.grant,
        body.call,
        body.tokens,
        ttl_seconds=body.ttl_seconds,
        hold_id=body.hold_id,
    )
    return Known(hold) if hold.was_known else hold


def get_hold(asked: Asked[Ledger]) -> Hold:
    """Answer with a hold: whether it is open, expired, settled or released."""
    return Spend.find_hold(asked.grant, _find_hold(asked))


def post_extend(asked: Asked[Ledger]) -> Hold:
    """Let a hold live longer; an expired one is admitted anew, where it still fits."""
    body: ExtendBody = asked.body
    return Spend.extend(asked.grant, _find_hold(asked), ttl_seconds=body.ttl_seconds)


def note_refused(
    gov: Installation, record: dict[str, Any], error: Exception, read_body: Callable[[], object]
) -> Later:
    """Note that a call was refused, and whose it was, where the body says so."""
    body = None
    with suppress(GovBudgetError, HTTPException):
        body = read_body()
    return gov.note_refused_call(record, error, getattr(body, "call", None))


def post_settle(asked: Asked[Ledger]) -> Usage:
    """Record what a call cost and free its hold; the same event again gets the same answer."""
    body: SettleBody = asked.body
    return Spend.settle(
        asked.grant,
        _find_hold(asked),
        body.event_id,
        body.tokens,
        occurred_at=body.occurred_at,
        provider=body.provider,
        model=body.model,
    )


def delete_hold(asked: Asked[Ledger]) -> None:
    """Free what a hold set aside, as often as it is asked."""
    Spend.release(asked.grant, _find_hold(asked))


def post_usage(asked: Asked[Ledger]) -> Usage | Known:
    """Record a call that no hold was made for; 200 where the event was known."""
    body: UsageBody = asked.body
    about = body.event_id, body.call, body.tokens
    usage, is_new = Spend.record(asked.grant, *about, occurred_at=body.occurred_at)
    return usage if is_new else Known(usage)


def post_corrections(asked: Asked[Ledger]) -> Correction | Known:
    """Say what a recorded call should have said; 200 where the correction was known."""
    body: CorrectionBody = asked.body
    about = body.event_id, body.organization_id, body.corrects, body.tokens
    correction, is_new = Spend.correct(asked.grant, *about, reason=body.reason)
    return correction if is_new else Known(correction)


def get_override(asked: Asked[Member]) -> Override:
    """Answer with the member's override."""
    return Overrides.get(asked.grant)


def put_override(asked: Asked[Organization]) -> Override:
    """Create or change the member's override; asks about its group, and about the one before."""
    body: OverrideBody = asked.body
    return Overrides.set(
        asked.grant,
        asked.ids["user"],
        body.group_id,
        body.spend_limit_micros,
        expires_at=body.expires_at,
        reason=body.reason,
    )


def delete_override(asked: Asked[Organization]) -> None:
    """Delete the member's override: the groups' budgets hold again."""
    Overrides.delete(asked.grant, asked.ids["user"])


def get_member_spend(asked: Asked[Member]) -> MemberSpend:
    """Answer with the member's limit, what set it, and the spend of this month."""
    return Reports.member(asked.grant)


def get_group_spend(asked: Asked[Group]) -> GroupSpend:
    """Answer with what was spent this month and is attributed to the group."""
    return Reports.group(asked.grant)


def list_members_spend(asked: Asked[Group]) -> dict[str, Any]:
    """Answer with a page of who spent for the group this month, as far as the caller may see."""
    page = read_id_page(asked.object.id, asked.gov.settings.id_type)
    period, found = Reports.list_members(asked.grant, limit=page.limit, after=page.after)
    spenders = page.cut(found, lambda one: (one.user_id,), "members")
    return {**spenders, "period_start": period.start, "period_end": period.end}


def list_groups_spend(asked: Asked[Organization]) -> dict[str, Any]:
    """Answer with a page of this month's spend of the groups that the caller may read."""
    page = read_id_page(asked.object.id, asked.gov.settings.id_type)
    found = Reports.list_groups(asked.grant, limit=page.limit, after=page.after)
    return page.cut(found, lambda one: (one.group_id,), "groups")


def list_notices(asked: Asked[Organization]) -> dict[str, Any]:
    """Answer with a page of the thresholds that were crossed, the newest first."""
    page = read_page(asked.object.id, _read_notice_id)
    found = Notices.list(asked.grant, limit=page.limit, after=page.after)
    return page.cut(found, lambda one: (one.id,), "notices")


def _read_notice_id(text: str) -> UUID:
    if str(UUID(text)) != text:
        raise ValueError(text)
    return UUID(text)


def _find_hold(asked: Asked[Ledger]) -> UUID:
    """Give the hold's id; raise what is wrong with the organization that is named for it."""
    find_hold_organization(asked.gov, asked.ids["hold"], getattr(asked.body, ORGANIZATION_ID, None))
    return UUID(str(asked.ids["hold"]))
