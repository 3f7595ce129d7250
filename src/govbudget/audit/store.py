"""The audit trail: read behind a grant. Most entries are written by triggers, with the change.

The database writes those (see `db/triggers.py`), so that "before" is right under concurrent writers
and a budget that goes with its group has one too.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from govbudget.audit import statements
from govbudget.audit.entry import (
    CommandChange,
    Entry,
    read_receipt,
    read_values,
    write_command_receipt,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from govbudget.db.tables import Tables
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


def record_command(
    connection: Connection, tables: Tables, changes: Sequence[CommandChange]
) -> None:
    """Write the entries of changes that a command makes, in the transaction of the changes."""
    if changes:
        receipt = write_command_receipt()
        rows = [{**asdict(change), "receipt": receipt} for change in changes]
        connection.execute(sa.insert(tables.audit_log), rows)
