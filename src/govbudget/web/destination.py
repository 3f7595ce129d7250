"""Where a request goes, where there are several databases: found before the caller is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple
from uuid import UUID

from flask import g, request

from govbudget.db.databases import Databases
from govbudget.errors import FieldError, GovBudgetError, InvalidInput, SettingsError
from govbudget.identity import Id
from govbudget.ids import IdType
from govbudget.installation import Installation
from govbudget.new_ids import read_slot
from govbudget.strict_json import parse_json
from govbudget.web.call import Route, Target, load

ORGANIZATION_ID = "organization_id"


class Destination(NamedTuple):
    """An organization or a slot (None: the site), and why it could not be found."""

    organization: Id | None = None
    obstacle: Exception | None = None

    def find(self) -> Id | None:
        """Give the organization or slot; raise what keeps it from being found."""
        if self.obstacle is not None:
            raise self.obstacle
        return self.organization


def find_request_organization() -> Id | None:
    """Give whose database this request goes to: an `identify=` of ours looks its caller up there.

    An organization's id or a slot, which is what `Gov.unit` takes; None: the site's, or the only.
    """
    found: Id | None = g.get("govbudget_organization")
    return found


def find_destination(
    gov: Installation,
    route: Route,
    path: Mapping[str, str],
    receive: Callable[[], bytes | Exception | None],
) -> Destination:
    """Find where a request goes. What can't be read is the site's; the checks refuse it later.

    Where there is one database nothing is read.
    """
    if gov.databases is None:
        return Destination()
    destination, parse = Destination(), gov.settings.id_type.parse
    with suppress(GovBudgetError):
        if "organization" in path:
            destination = Destination(parse(path["organization"]))
        elif "group" in path:
            destination = _find_of_group(gov, parse(path["group"]))
        elif route.target is Target.LEDGER:
            named = _peek(gov, route, receive())
            if "hold" in path:
                named = find_hold_organization(gov, IdType.UUID.parse(path["hold"]), named)
            destination = Destination(named)
    g.govbudget_organization = destination.organization
    return destination


def _find_of_group(gov: Installation, group: Id) -> Destination:
    """Ask the host whose a group is."""
    if gov.organization_of is None:
        sentence = "here are several databases, and the application does not say whose a group is"
        hint = "; give GovBudget `organization_of=`"
        return Destination(obstacle=GovBudgetError("organization-unknown", sentence + hint))
    try:
        found = gov.organization_of(group)
    except Exception as error:  # noqa: BLE001 - raised when the checks have come so far
        return Destination(obstacle=error)
    try:
        return Destination(None if found is None else gov.settings.id_type.accept(found))
    except TypeError as error:
        sentence = f"`organization_of=` gave what is not an organization's id: {error}"
        return Destination(obstacle=SettingsError(sentence))


def _peek(gov: Installation, route: Route, received: bytes | Exception | None) -> Id | None:
    """Read the organization that a body names as the body's own reader will; None: it can't be."""
    if isinstance(received, bytes):
        with suppress(GovBudgetError):
            named = load("web.bodies:OfOrganization")
            context = gov.settings.id_type
            found: Id = parse_json(received, named, context, route.max_values).organization_id
            return found
    return None


def find_hold_organization(gov: Installation, hold: Id, in_body: Id | None) -> Id | None:
    """Find whose a hold is: what the query or the body names, else the slot in the hold's id.

    Raises InvalidInput for an unreadable id or two different ones, `organization-required`.
    """
    named, errors = {in_body} - {None}, []
    for text in request.args.getlist(ORGANIZATION_ID):
        try:
            named.add(gov.settings.id_type.parse(text))
        except GovBudgetError as error:
            errors.append(FieldError(ORGANIZATION_ID, error.detail))
    if len(named) > 1:
        errors.append(FieldError(ORGANIZATION_ID, "several organizations are named; name one"))
    if errors:
        raise InvalidInput("the query can't be understood", errors, "invalid-query")
    if named or gov.databases is None:
        return next(iter(named), None)
    slot = read_slot(UUID(str(hold)))
    if slot is None or not isinstance(gov.databases, Databases):
        raise GovBudgetError(
            "organization-required",
            "here are several databases, and the hold's id does not say which one; name its "
            "`organization_id` in the query or in the body",
        )
    return slot
