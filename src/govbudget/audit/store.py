"""The audit trail: read behind a grant. Most entries are written by triggers, with the change.

The database writes those (see `db/triggers.py`), so that "before" is right under concurrent writers
and a budget that goes with its group has one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from govbudget.audit import statements
from govbudget.audit.entry import Entry, read_receipt, read_values
from govbudget.db.unit import Grant
from govbudget.identity import Organization, PriceBook

Position = tuple[datetime, UUID]


class Audit:
    """The functions that read the trail: one statement each, run by a grant."""

    @staticmethod
    def list(
        grant: Grant[Organization], *, limit: int, after: Position | None = None
    ) -> Sequence[Entry]:
        """List the organization's entries, the newest first, as far as the grant reaches.

        At most `limit`, those older than `after` (time and id of an entry). An entry about one
        group (or two) is listed where the grant reaches it; one about none (a role, a member of the
        organization) where it reaches every group that no role is held in. Needs a grant to
        `update` the organization. One statement; never commits.
        """
        return [_read_entry(row) for row in grant.run(statements.LIST, **_page(limit, after))]

    @staticmethod
    def list_site(
        grant: Grant[PriceBook], *, limit: int, after: Position | None = None
    ) -> Sequence[Entry]:
        """List the entries that belong to no organization, as `list` does.

        Needs a grant to `update` the prices.
        """
        return [_read_entry(row) for row in grant.run(statements.LIST_SITE, **_page(limit, after))]


def _page(limit: int, after: Position | None) -> dict[str, Any]:
    at, entry_id = after or (None, None)
    return {"page_size": limit, "at": at, "entry_id": entry_id}


def _read_entry(row: Any) -> Entry:  # noqa: ANN401 - a row
    values = {name: read_values(getattr(row, name)) for name in ("before", "after")}
    return Entry(**{**row._mapping, **values, "receipt": read_receipt(row.receipt)})  # noqa: SLF001 - public
