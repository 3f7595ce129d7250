"""The pages of prices and of the audit trail."""

from __future__ import annotations

from typing import Any

from govbudget.audit.entry import Entry
from govbudget.directory.names import find_names
from govbudget.errors import GovBudgetError
from govbudget.identity import Id, Organization, PriceBook
from govbudget.ids import IdType
from govbudget.money import FURTHER
from govbudget.pages.links import links_of
from govbudget.pages.render import Page
from govbudget.web.audit import read_entry_position
from govbudget.web.call import AuthorizedRequest as Asked
from govbudget.web.paging import read_name, read_page

# What an object of the audit trail is called in the directory, and on a page.
_OF = {"group_id": "group", "user_id": "user"}
_KINDS = {"member_ai_override": "user", "group_ai_budget": "group", "role_assignment": "user"}


def show_prices(asked: Asked[PriceBook]) -> Page:
    """Show a page of the prices in force, by provider and model."""
    page = read_page("prices", _read_price_key)
    found = asked.gov.prices.list(asked.grant, limit=page.limit, after=page.after)
    values = page.cut(found, lambda one: (one.price.provider, one.price.model), "prices")
    return Page("prices", "Prices", {**values, "further": FURTHER}, links_of(asked.grant))


def _read_price_key(provider: str, model: str) -> tuple[str, str]:
    return read_name(provider), read_name(model)


def show_audit(asked: Asked[Organization]) -> Page:
    """Show a page of the organization's audit trail, the newest entry first."""
    page = read_page(asked.object.id, read_entry_position)
    found = asked.gov.audit.list(asked.grant, limit=page.limit, after=page.after)
    values = page.cut(found, lambda entry: (entry.at.isoformat(), entry.id), "entries")
    id_type = asked.gov.settings.id_type
    entries = [_describe(entry, id_type) for entry in values["entries"]]
    ids = {one for entry in entries for one in (entry["actor"], entry["object"])}
    ids |= {
        id_ for entry in entries for key, *both in entry["changed"] if key in _OF for id_ in both
    }
    organization = asked.object.id
    names = find_names(asked.grant.unit, {organization, *ids}, [organization])
    values |= {"entries": entries, "kinds": _OF, "organization": organization}
    return Page("audit", "Audit trail", values, links_of(asked.grant, organization), names)


def _describe(entry: Entry, id_type: IdType) -> dict[str, Any]:
    before, after = entry.before or {}, entry.after or {}
    changed = [
        (key, *(_read_value(key, values.get(key), id_type) for values in (before, after)))
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]
    actor = _read_id(entry.receipt["actor"], id_type)
    object_id = _read_id(entry.object_id, id_type)
    kind = _KINDS.get(entry.object_type)
    return {"entry": entry, "changed": changed, "actor": actor, "object": object_id, "kind": kind}


def _read_value(key: str, value: Any, id_type: IdType) -> Any:  # noqa: ANN401 - any JSON
    """Read an id of what has a name; the rest stays as it is."""
    return _read_id(value, id_type) if key in _OF and isinstance(value, str) else value


def _read_id(text: str | None, id_type: IdType) -> Id | None:
    """Read what may be an id; None: it is another text, such as `operator`."""
    try:
        return None if text is None else id_type.parse(text)
    except GovBudgetError:
        return None
