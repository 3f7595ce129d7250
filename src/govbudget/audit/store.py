"""The SQL of the audit trail. Budgets and prices are recorded by triggers, in the same statement.

The database writes those entries (see the migration `0002`), so that "before" is right under
concurrent writers and a budget that goes with its group leaves one too.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from govbudget.audit.entry import CommandChange, Entry, read_receipt, write_command_receipt
from govbudget.authz.grant import Grant, ListGrant, require_grant, require_list_grant
from govbudget.identity import Action, Organization, PriceBook

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from govbudget.identity import ObjectType
    from govbudget.tables import Tables


ABOUT_A_GROUP = ("group_member", "member_ai_override")


class AuditStore:
    """The audit trail of one layout. Its functions send one statement each, and never commit."""

    def __init__(self, tables: Tables, budget_object: ObjectType) -> None:
        self._table = tables.audit_log
        self._id_type = tables.layout.id_sql_type
        self._budget_object = budget_object

    def list(
        self,
        connection: Connection,
        grant: ListGrant,
        organization: Organization,
        *,
        limit: int,
        after: tuple[datetime, UUID] | None = None,
    ) -> Sequence[Entry]:
        """List the organization's entries, the newest first, as far as the grant reaches.

        At most `limit`, those older than `after` (time and id of an entry). An entry about one
        group (or two) is listed where the grant reaches it; one about none (a role, a member of the
        organization) where it reaches every group that no role is held in. Needs a list grant for
        `update`.
        """
        require_list_grant(
            grant, Action.UPDATE, self._budget_object, organization, connection.get_transaction()
        )
        table = self._table
        place = table.c.organization_id == sa.literal(organization.id, self._id_type)
        if not grant.exceptions and grant.allowed_elsewhere:
            return self._read(connection, place, limit, after)
        listed = sa.literal([str(i) for i in grant.exceptions], pg.ARRAY(sa.Text))

        def reaches(value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
            group = sa.case(
                (table.c.object_type == "group_ai_budget", table.c.object_id),
                (table.c.object_type.in_(ABOUT_A_GROUP), value["group_id"].astext),
            )
            if grant.allowed_elsewhere:
                return sa.or_(group.is_(None), group != sa.all_(listed))
            return group == sa.any_(listed)

        # An override may have named another group before.
        was, is_ = table.c.before, table.c.after
        both = (
            reaches(sa.func.coalesce(a, b, type_=pg.JSONB)) for a, b in ((was, is_), (is_, was))
        )
        return self._read(connection, sa.and_(place, *both), limit, after)

    def list_site(
        self,
        connection: Connection,
        grant: Grant,
        book: PriceBook,
        *,
        limit: int,
        after: tuple[datetime, UUID] | None = None,
    ) -> Sequence[Entry]:
        """List the entries that belong to no organization; needs a grant to `update` the prices."""
        require_grant(grant, Action.UPDATE, book, connection.get_transaction())
        return self._read(connection, self._table.c.organization_id.is_(None), limit, after)

    def _read(
        self,
        connection: Connection,
        place: sa.ColumnElement[bool],
        limit: int,
        after: tuple[datetime, UUID] | None,
    ) -> Sequence[Entry]:
        table = self._table
        position = sa.tuple_(table.c.at, table.c.id)
        statement = (
            sa.select(
                table.c.id,
                table.c.at,
                table.c.organization_id,
                table.c.object_type,
                table.c.object_id,
                table.c.before,
                table.c.after,
                table.c.receipt,
            )
            .where(place)
            .order_by(table.c.at.desc(), table.c.id.desc())
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(position < after)
        rows = connection.execute(statement)
        return [Entry(*row[:-1], receipt=read_receipt(row.receipt)) for row in rows]


def record_command(
    connection: Connection, tables: Tables, changes: Sequence[CommandChange]
) -> None:
    """Write the entries of changes that a command makes, in the transaction of the changes."""
    if changes:
        receipt = write_command_receipt()
        rows = [{**asdict(change), "receipt": receipt} for change in changes]
        connection.execute(sa.insert(tables.audit_log), rows)
