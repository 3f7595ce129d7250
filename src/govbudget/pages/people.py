"""The pages of people: what is mine, an organization with its groups, a group with its members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from flask import request

from govbudget.directory.names import find_names
from govbudget.errors import Forbidden, NotFound
from govbudget.pages.links import links_of, list_links
from govbudget.pages.render import Page
from govbudget.pages.spend import list_of_month
from govbudget.pages.words import describe_spend
from govbudget.spend.overview import MemberLine, list_groups, list_members, list_places
from govbudget.spend.refusals import list_refusals
from govbudget.spend.report import Key
from govbudget.web import requestlog
from govbudget.web.paging import read_id_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from govbudget.db.unit import Unit
    from govbudget.identity import Assignment, Group, Id, Organization
    from govbudget.spend.installation import Installation
    from govbudget.spend.overview import Place
    from govbudget.web.blueprint import Asking
    from govbudget.web.call import AuthorizedRequest as Asked

CHOSEN = "organization"


def show_mine(gov: Installation, asking: Asking) -> Page:
    """Show what the caller may spend and has spent in one organization, and the way to others.

    The organization is the one that the query names, else the first that the caller is a member of.
    """
    unit = asking.unit
    page = read_id_page("places", gov.settings.id_type, more=(CHOSEN,))
    held = _load_assignments(unit)
    places = list_places(unit, held, limit=page.limit, after=page.after)
    listed = page.cut([one for one in places if one.is_listed], lambda one: (one.id,), "listed")
    shown = [one for one in places if one.is_member or not one.is_listed or one in listed["listed"]]
    chosen = _choose(gov, shown)
    roles = [role for role, domain in held if unit.table.scopes.get(role) is domain.scope]
    values: dict[str, Any] = {**listed, "places": shown, "chosen": chosen, "spend": None}
    if chosen is not None:
        grant = unit.authorize("read", member=(chosen, unit.caller))  # type: ignore[arg-type]
        requestlog.note_allowed(requestlog.find_record(), grant.allowed)
        values["spend"] = spend = gov.reports.member(grant)
        values |= {"refusals": list_refusals(grant)} | _list_spend(gov, unit, chosen)
    ids = {one.id for one in shown} | ({values["spend"].group_id} if values["spend"] else set())
    names = find_names(unit, ids | {one.group_id for one in values.get("refusals", ())})
    if chosen is not None:
        zone = gov.settings.time_zone
        values["words"] = describe_spend(spend, lambda *key: names.get(key, str(key[1])), zone)
    here = [domain.id for _, domain in held if domain.id == chosen]
    return Page("mine", "Mine", values, list_links(unit.table, roles, *here[:1]), names)


def _list_spend(gov: Installation, unit: Unit, organization: Id) -> dict[str, Any]:
    """List what the caller spent this month, a day and by model."""
    grant, zone = unit.authorize("read", organization=organization), gov.settings.time_zone
    user = cast("Id", unit.caller)
    days = list_of_month(grant, zone, Key.DAY, user_id=user)
    return {
        "days": days,
        "bars": [(line.keys[Key.DAY], line.sum.cost_picos) for line in days],
        "models": list_of_month(grant, zone, Key.PROVIDER, Key.MODEL, user_id=user),
    }


def _load_assignments(unit: Unit) -> Sequence[Assignment]:
    """Give the caller's roles anywhere; of a directory that can't tell, those of the site."""
    directory, caller = unit.gov.directory, unit.caller
    load = getattr(directory, "load_assignments", None)
    if load is None:
        return directory.load_subject(unit.connection, caller).assignments  # type: ignore[arg-type]
    found: Sequence[Assignment] = load(unit.connection, caller)
    return found


def _choose(gov: Installation, places: Sequence[Place]) -> Id | None:
    if text := request.args.get(CHOSEN):
        return gov.settings.id_type.parse(text)
    return next((one.id for one in places if one.is_member), None)


def show_organization(asked: Asked[Organization]) -> Page:
    """Show a page of the organization's groups that the caller may read: limit, spend, warnings."""
    page = read_id_page(asked.object.id, asked.gov.settings.id_type)
    period, found = list_groups(asked.grant, limit=page.limit, after=page.after)
    values = page.cut(found, lambda one: (one.group_id,), "groups")
    ids = {asked.object.id, *(one.group_id for one in values["groups"])}
    names = find_names(asked.grant.unit, ids)
    values |= {"period": period, "organization": asked.object.id}
    links = links_of(asked.grant, asked.object.id)
    return Page("organization", "Organization", values, links, names)


def show_group(asked: Asked[Group]) -> Page:
    """Show a group's limit and spend, and a page of its members with theirs."""
    group, gov = asked.object, asked.gov
    page = read_id_page(group.id, gov.settings.id_type)
    members: list[MemberLine] = []
    try:
        members = list_members(asked.grant, limit=page.limit, after=page.after)
    except Forbidden:  # whoever may read nobody's spend may read the group's sum
        may_see = False
    else:
        may_see = True
    try:
        limit = gov.budgets.get(asked.grant).spend_limit_micros
    except NotFound:
        limit = None
    values = page.cut(members, lambda one: (one.user_id,), "members")
    spent = gov.reports.group(asked.grant)  # type: ignore[attr-defined]  # pages need spend
    shown = values["members"]
    ids = {group.id, group.organization_id, *(one.user_id for one in shown)}
    names = find_names(asked.grant.unit, ids | {one.group_id for one in shown})
    values |= {"group": group, "limit": limit, "spent": spent, "may_see": may_see}
    return Page("group", "Group", values, links_of(asked.grant, group.organization_id), names)
