"""The pages of people: what is mine, an organization with its groups, a group with its members."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from flask import request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from govbudget.directory.names import find_names
from govbudget.errors import FieldError, Forbidden, GovBudgetError
from govbudget.pages.links import links_of, list_links
from govbudget.pages.render import Page
from govbudget.pages.spend import list_of_month
from govbudget.pages.words import describe_spend
from govbudget.spend import overview
from govbudget.spend.refusals import list_refusals
from govbudget.spend.report import Key
from govbudget.spend.this_month import list_groups
from govbudget.web import requestlog
from govbudget.web.paging import Page as PageOf, read_id_page, refuse_query

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from govbudget.db.databases import Databases
    from govbudget.db.retries import T
    from govbudget.db.unit import Grant, Unit
    from govbudget.identity import Assignment, Group, Id, Organization
    from govbudget.spend.installation import Installation
    from govbudget.web.call import AuthorizedRequest as Asked

logger = logging.getLogger("govbudget")

CHOSEN = "organization"
CROSSED = "crossed"
FEW = 10  # of them stand above the groups


class Mine(NamedTuple):
    """What is a caller's: the roles, the organizations, and names of those in several databases."""

    held: Sequence[Assignment]
    organizations: Sequence[overview.OrganizationLine]
    names: dict[tuple[str, Id], str]


def look_everywhere(
    gov: Installation, databases: Databases, caller: Id, require_same: Callable[[Id], None]
) -> Mine:
    """Look in each of several databases, on one connection after another.

    A page goes from one database to the next. One that is away, or where
    `require_same` finds somebody else, has nothing, which the log says.
    """
    page, mine = _read_list(gov), Mine([], [], {})
    last = None if page.after is None else databases(page.after)
    for slot in databases.list_first():
        is_last = databases(slot) is last
        limit = page.limit if last is None or is_last else 0
        after = page.after if is_last else None

        def look(unit: Unit, limit: int = limit, after: Id | None = after) -> Mine:
            found = _find_mine(unit, limit, after)
            ids = {one.id for one in found.organizations}
            return found._replace(names=find_names(unit, ids, ()))

        try:
            require_same(slot)
            found = gov.run(caller, look, organization=slot)
            # One that is being moved is in two of them.
            here = (one for one in found.organizations if databases(one.id) is databases(slot))
            mine = Mine(
                [*mine.held, *found.held], [*mine.organizations, *here], mine.names | found.names
            )
        except (SQLAlchemyError, GovBudgetError, HTTPException):
            logger.exception("the organizations from slot %s are not listed", slot)
        last = None if is_last else last
    return mine


def _read_list(gov: Installation) -> PageOf[Id]:
    return read_id_page("organizations", gov.settings.id_type, more=(CHOSEN,))


def _find_mine(unit: Unit, limit: int, after: Id | None) -> Mine:
    held = _load_assignments(unit)
    return Mine(held, overview.list_organizations(unit, held, limit=limit, after=after), {})


def show_mine(gov: Installation, unit: Unit, mine: Mine | None = None) -> Page:
    """Show what the caller may spend and has spent in one organization, and the way to others.

    The organization is the one that the query names, else the first that the caller is a member of.
    """
    page = _read_list(gov)
    held, found, known = mine or _find_mine(unit, page.limit, page.after)
    listed = page.cut([one for one in found if one.is_listed], lambda one: (one.id,), "listed")
    shown = [one for one in found if one.is_member or not one.is_listed or one in listed["listed"]]
    shown.sort(key=lambda one: not one.is_member)
    chosen = choose(gov, shown)
    roles = [role for role, domain in held if unit.table.scopes.get(role) is domain.scope]
    values: dict[str, Any] = {**listed, "organizations": shown, "chosen": chosen, "spend": None}
    if chosen is not None:
        grant = unit.authorize("read", member=(chosen, unit.caller))  # type: ignore[arg-type]
        requestlog.note_allowed(requestlog.find_record(), grant.allowed)
        values["spend"] = spend = gov.reports.member(grant)
        values |= {"refusals": list_refusals(grant)} | _list_spend(gov, unit, chosen)
    in_these = {one.id for one in shown}
    ids = in_these | ({values["spend"].group_id} if values["spend"] else set())
    ids |= {one.group_id for one in values.get("refusals", ())}
    names = known | find_names(unit, ids, in_these)
    if chosen is not None:
        zone = gov.settings.time_zone
        values["words"] = describe_spend(spend, lambda *key: names.get(key, str(key[1])), zone)
    here = [domain.id for _, domain in held if domain.id == chosen]
    return Page("mine", "Mine", values, list_links(unit.table, roles, *here[:1]), names)


def _list_spend(gov: Installation, unit: Unit, organization: Id) -> dict[str, Any]:
    """List what the caller spent this month, a day and by model."""
    grant, zone = unit.authorize("read", organization=organization), gov.settings.time_zone
    user = cast("Id", unit.caller)
    models = list_of_month(grant, zone, Key.PROVIDER, Key.MODEL, user_id=user)
    return {**_list_days(grant, zone, user_id=user), "models": models}


def _list_days(grant: Grant[Organization], zone: str, **of: Id) -> dict[str, Any]:
    """List what was spent this month, a day: of a user, or of a group."""
    days = list_of_month(grant, zone, Key.DAY, **of)
    return {"days": days, "bars": [(line.keys[Key.DAY], line.sum.cost_picos) for line in days]}


def _load_assignments(unit: Unit) -> Sequence[Assignment]:
    """Give the caller's roles anywhere; of a directory that can't tell, those of the site."""
    directory, caller = unit.gov.directory, unit.caller
    load = getattr(directory, "load_assignments", None)
    if load is None:
        return directory.load_subject(unit.connection, caller).assignments  # type: ignore[arg-type]
    found: Sequence[Assignment] = load(unit.connection, caller)
    return found


def choose(gov: Installation, organizations: Sequence[overview.OrganizationLine]) -> Id | None:
    """Choose the organization that the query names, or the first that the caller is a member of."""
    if text := request.args.get(CHOSEN):
        return gov.settings.id_type.parse(text)
    return next((one.id for one in organizations if one.is_member), None)


def find_asked(gov: Installation, organizations: Sequence[overview.OrganizationLine]) -> Id | None:
    """Find the organization whose database is asked: the chosen one, else one that was found."""
    chosen = choose(gov, organizations)
    return next((one.id for one in organizations), None) if chosen is None else chosen


def show_organization(asked: Asked[Organization]) -> Page:
    """Show a page of the groups that the caller may read, and first who crossed a threshold.

    With a threshold in the query (`?crossed=75`): a page of all members who crossed that.
    """
    grant, settings = asked.grant, asked.gov.settings
    if CROSSED in request.args:
        threshold = _read_threshold(settings.thresholds)
        at = read_id_page(asked.object.id, settings.id_type, (CROSSED,))
        read = partial(overview.list_crossed, grant, threshold, limit=at.limit, after=at.after)
        values = at.cut(_unless_forbidden(read) or [], lambda one: (one.user_id,), CROSSED)
        return _lay_out(asked, "crossed", values | {"threshold": threshold})
    page = read_id_page(asked.object.id, settings.id_type)
    period, found = list_groups(grant, limit=page.limit, after=page.after)
    values = page.cut(found, lambda one: (one.group_id,), "groups")
    ids = [one.group_id for one in values["groups"]]
    values["counts"] = _unless_forbidden(lambda: overview.count_crossings(grant, ids)) or {}
    values[CROSSED] = ()
    if page.after is None:
        values[CROSSED] = _unless_forbidden(lambda: overview.list_highest(grant, limit=FEW)) or ()
    values |= {"period": period, "most": overview.MOST, "thresholds": settings.thresholds[::-1]}
    return _lay_out(asked, "organization", values)


def _read_threshold(known: Sequence[int]) -> int:
    """Read the threshold in the query; raise `invalid-query` where it is none of the setting's."""
    thresholds = {str(one): one for one in known}
    text = request.args[CROSSED]
    if text not in thresholds:
        listed = ", ".join(thresholds) or "none"
        refuse_query([FieldError(CROSSED, f"must be a threshold: {listed}")])
    return thresholds[text]


def _unless_forbidden(read: Callable[[], T]) -> T | None:
    """Read what is of members; None where the caller may read nobody's spend."""
    try:
        return read()
    except Forbidden:
        return None


def _lay_out(asked: Asked[Organization], template: str, values: dict[str, Any]) -> Page:
    ids = {asked.object.id, *(one.group_id for one in values.get("groups", ()))}
    ids |= {key for one in values[CROSSED] for key in (one.user_id, one.group_id)}
    names = find_names(asked.grant.unit, ids, [asked.object.id])
    values |= {"organization": asked.object.id}
    return Page(template, "Organization", values, links_of(asked.grant, asked.object.id), names)


def show_group(asked: Asked[Group]) -> Page:
    """Show a group's limit and spend, and a page of its members with theirs."""
    group, gov = asked.object, asked.gov
    page = read_id_page(group.id, gov.settings.id_type)
    # Whoever may read nobody's spend may read the group's sum.
    members = _unless_forbidden(
        lambda: overview.list_members(asked.grant, limit=page.limit, after=page.after)
    )
    values = page.cut(members or [], lambda one: (one.user_id,), "members")
    spent = gov.reports.group(asked.grant)  # type: ignore[attr-defined]  # pages need spend
    shown = values["members"]
    ids = {group.id, group.organization_id, *(one.user_id for one in shown)}
    ids |= {one.group_id for one in shown}
    names = find_names(asked.grant.unit, ids, [group.organization_id])
    values |= {"group": group, "spent": spent, "may_see": members is not None}
    whole = asked.grant.unit.authorize("read", organization=group.organization_id)
    values |= _list_days(whole, gov.settings.time_zone, group_id=group.id)
    return Page("group", "Group", values, links_of(asked.grant, group.organization_id), names)
