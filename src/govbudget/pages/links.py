"""The links of a page's head: to what the caller may see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.identity import Action, Id, ObjectType

if TYPE_CHECKING:
    from collections.abc import Collection

    from govbudget.authz.table import DecisionTable
    from govbudget.db.unit import Grant

Links = tuple[tuple[str, str], ...]


def list_links(
    table: DecisionTable, roles: Collection[str], organization: Id | None = None
) -> Links:
    """List the pages that someone with these roles may see; a page decides again when asked for."""

    def may(obj: ObjectType, action: Action = Action.READ) -> bool:
        return table.decide(roles, obj, action).allowed

    links = [("Mine", "/")]
    if organization is not None:
        place = f"/organizations/{organization}"
        links += [("Organization", place), ("Spend", f"{place}/spend")]
        if may(table.budget_object, Action.UPDATE):
            links.append(("Audit", f"{place}/audit"))
    if may(ObjectType.AI_MODEL_PRICE):
        links.append(("Prices", "/prices"))
    if may(ObjectType.POLICY):
        links += [("Policy", "/policy"), ("Explain", "/policy/explain")]
    return tuple(links)


def links_of(grant: Grant, organization: Id | None = None) -> Links:  # type: ignore[type-arg]
    """List the links of whoever has a grant."""
    return list_links(grant.unit.table, grant.allowed.roles, organization)
