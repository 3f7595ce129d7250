"""The views of spend: holds, usage, overrides and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from govbudget.identity import Action, Organization
from govbudget.spend.cost import round_up_to_micros
from govbudget.spend.usage import Call
from govbudget.web.answers import GroupSpendPage, SpenderPage
from govbudget.web.call import answer_page
from govbudget.web.paging import read_id_page
from govbudget.web.problems import answer, answer_empty, write_id, write_time
from govbudget.web.requestlog import request_id

if TYPE_CHECKING:
    from flask import Response

    from govbudget import identity
    from govbudget.authz.grant import Grant, ListGrant
    from govbudget.identity import Group, Ledger, Member
    from govbudget.spend.overrides import Override
    from govbudget.spend.reports import GroupSpend, MemberSpend
    from govbudget.spend.usage import Usage
    from govbudget.web.answers import (
        GroupSpendAnswer,
        HoldAnswer,
        MemberSpendAnswer,
        OverrideAnswer,
        SpenderAnswer,
        UsageAnswer,
    )
    from govbudget.web.bodies import HoldBody, OverrideBody, SettleBody, UsageBody
    from govbudget.web.call import Call as Request


def post_holds(call: Request[Grant, Ledger]) -> Response:
    """Set aside what a call costs at most, where it fits under the member's limit."""
    body: HoldBody = call.body
    hold = call.home.spend.hold(
        call.connection, call.grant, call_of(body), body.tokens, ttl_seconds=body.ttl_seconds
    )
    written: HoldAnswer = {
        "hold_id": str(hold.id),
        "organization_id": write_id(hold.organization_id),
        "user_id": write_id(hold.user_id),
        "group_id": _write_known(hold.group_id),
        "cost_micros": _write_cost(hold.cost_picos),
        "unpriced": list(hold.unpriced),
        "expires_at": write_time(hold.expires_at),
    }
    return answer(written, 201)


def post_settle(call: Request[Grant, Ledger]) -> Response:
    """Book what a call cost and free its hold; the same event again gets the same answer."""
    body: SettleBody = call.body
    usage = call.home.spend.settle(
        call.connection,
        call.grant,
        _hold_of(call),
        body.event_id,
        body.tokens,
        occurred_at=body.occurred_at,
    )
    return answer(_write_usage(usage))


def delete_hold(call: Request[Grant, Ledger]) -> Response:
    """Free what a hold set aside, as often as it is asked."""
    call.home.spend.release(call.connection, call.grant, _hold_of(call))
    return answer_empty()


def post_usage(call: Request[Grant, Ledger]) -> Response:
    """Book a call that no hold was made for; 200 where the event was known."""
    body: UsageBody = call.body
    usage, is_new = call.home.spend.record(
        call.connection,
        call.grant,
        body.event_id,
        call_of(body),
        body.tokens,
        occurred_at=body.occurred_at,
    )
    return answer(_write_usage(usage), 201 if is_new else 200)


def get_override(call: Request[Grant, Member]) -> Response:
    """Answer with the member's override."""
    return answer(
        _write_override(call.home.overrides.get(call.connection, call.grant, call.object))
    )


def put_override(call: Request[ListGrant, Organization]) -> Response:
    """Create or change the member's override; asks about its group, and about the one before."""
    body: OverrideBody = call.body
    override = call.home.overrides.set(
        call.connection,
        call.grant,
        call.object,
        call.ids["user"],
        body.group_id,
        body.spend_limit_micros,
        request_id=request_id(),
    )
    return answer(_write_override(override))


def delete_override(call: Request[ListGrant, Organization]) -> Response:
    """Delete the member's override: the groups' budgets hold again."""
    call.home.overrides.delete(
        call.connection, call.grant, call.object, call.ids["user"], request_id=request_id()
    )
    return answer_empty()


def get_member_spend(call: Request[Grant, Member]) -> Response:
    """Answer with the member's limit, what set it, and the spend of this month."""
    found = call.home.reports.member(call.connection, call.grant, call.object)
    return answer(write_member_spend(call.object, found))


def write_member_spend(member: Member, found: MemberSpend) -> MemberSpendAnswer:
    """Write a member's limit and spend, as the command does too."""
    return {
        "organization_id": write_id(member.organization_id),
        "user_id": write_id(member.user_id),
        "effective_group_id": _write_known(found.group_id),
        "spend_limit_micros": found.limit_micros,
        "limit_source": None if found.limit_source is None else found.limit_source.value,
        "current_spend_micros": round_up_to_micros(found.spent_picos),
        "held_micros": round_up_to_micros(found.held_picos),
        "period_start": write_time(found.period.start),
        "period_end": write_time(found.period.end),
    }


def get_group_spend(call: Request[Grant, Group]) -> Response:
    """Answer with what was spent this month and is attributed to the group."""
    return answer(_write_group(call.home.reports.group(call.connection, call.grant, call.object)))


def list_members_spend(call: Request[Grant, Group]) -> Response:
    """Answer with a page of who spent for the group this month, as far as the caller may see."""
    group = call.object
    members = call.home.policy.authorize_members(
        call.grant.subject, Action.READ, Organization(group.organization_id)
    )
    page = read_id_page(group.id, call.home.settings.id_type)
    period, found = call.home.reports.list_members(
        call.connection, call.grant, members, group, limit=page.limit, after=page.after
    )
    spenders, token = page.cut(found, lambda one: (one.user_id,))
    written: list[SpenderAnswer] = [
        {
            "user_id": write_id(one.user_id),
            "current_spend_micros": round_up_to_micros(one.sum.cost_picos),
            "calls": one.sum.calls,
            "unpriced_calls": one.sum.unpriced_calls,
        }
        for one in spenders
    ]
    return answer_page(
        SpenderPage(
            members=written,
            period_start=write_time(period.start),
            period_end=write_time(period.end),
            next_page_token=token,
        )
    )


def list_groups_spend(call: Request[ListGrant, Organization]) -> Response:
    """Answer with a page of this month's spend of the groups that the caller may read."""
    page = read_id_page(call.object.id, call.home.settings.id_type)
    found = call.home.reports.list_groups(
        call.connection, call.grant, call.object, limit=page.limit, after=page.after
    )
    groups, token = page.cut(found, lambda one: (one.group_id,))
    written = list(map(_write_group, groups))
    return answer_page(GroupSpendPage(groups=written, next_page_token=token))


def call_of(body: HoldBody | UsageBody) -> Call:
    """Give the call that a body is about."""
    return Call(body.organization_id, body.user_id, body.provider, body.model)


def _hold_of(call: Request[Any, Any]) -> UUID:
    return UUID(str(call.ids["hold"]))


def _write_known(value: identity.Id | None) -> int | str | None:
    return None if value is None else write_id(value)


def _write_cost(picos: int | None) -> int | None:
    return None if picos is None else round_up_to_micros(picos)


def _write_usage(usage: Usage) -> UsageAnswer:
    tokens = usage.tokens
    return {
        "event_id": usage.event_id,
        "organization_id": write_id(usage.organization_id),
        "user_id": write_id(usage.user_id),
        "group_id": _write_known(usage.group_id),
        "hold_id": None if usage.hold_id is None else str(usage.hold_id),
        "provider": usage.provider,
        "model": usage.model,
        "tokens": {
            "input": tokens.input,
            "output": tokens.output,
            "cache_read": tokens.cache_read,
            "cache_write": tokens.cache_write,
        },
        "cost_micros": _write_cost(usage.cost_picos),
        "unpriced": list(usage.unpriced),
        "occurred_at": write_time(usage.occurred_at),
        "recorded_at": write_time(usage.recorded_at),
    }


def _write_override(override: Override) -> OverrideAnswer:
    return {
        "organization_id": write_id(override.organization_id),
        "user_id": write_id(override.user_id),
        "group_id": write_id(override.group_id),
        "spend_limit_micros": override.spend_limit_micros,
        "created_at": write_time(override.created_at),
        "updated_at": write_time(override.updated_at),
    }


def _write_group(spend: GroupSpend) -> GroupSpendAnswer:
    return {
        "group_id": write_id(spend.group_id),
        "current_spend_micros": round_up_to_micros(spend.sum.cost_picos),
        "calls": spend.sum.calls,
        "unpriced_calls": spend.sum.unpriced_calls,
        "period_start": write_time(spend.period.start),
        "period_end": write_time(spend.period.end),
    }
