"""The view of the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from govbudget.web.paging import read_page

if TYPE_CHECKING:
    from govbudget.identity import Organization
    from govbudget.web.call import AuthorizedRequest


def list_audit(asked: AuthorizedRequest[Organization]) -> dict[str, Any]:
    """Answer with a page of the organization's audit trail, the newest entry first."""
    page = read_page(asked.object.id, read_entry_position)
    found = asked.gov.audit.list(asked.grant, limit=page.limit, after=page.after)
    return page.cut(found, lambda entry: (entry.at.isoformat(), entry.id), "entries")


def read_entry_position(at: str, entry_id: str) -> tuple[datetime, UUID]:
    """Read where a page of the trail ended; raise ValueError for another spelling."""
    time, found = datetime.fromisoformat(at), UUID(entry_id)
    if time.tzinfo is None or (time.isoformat(), str(found)) != (at, entry_id):
        raise ValueError(at)
    return time, found
