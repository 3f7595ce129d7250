"""The SQL of budgets: one statement a call, each behind a grant and tied to the authorized group.

Every statement starts from the group's row, by its id and the organization that was authorized. So
one that runs after the group moved or went touches nothing, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.exc import IntegrityError

from govbudget.audit.entry import CASCADE, write_receipt
from govbudget.authz.grant import Grant, ListGrant, require_grant, require_list_grant
from govbudget.budgets.budget import UNCONDITIONAL, Budget, Condition
from govbudget.errors import GroupChanged, NotFound, PreconditionFailed
from govbudget.identity import Action, Group, ObjectType
from govbudget.tables import MAX_LIMIT_MICROS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, FromClause, Row

    from govbudget.identity import Id, Organization
    from govbudget.tables import Tables

FOREIGN_KEY_VIOLATION = "23503"


class BudgetStore:
    """The budgets of one layout. Its functions send one statement each, on the caller's connection.

    They never commit, roll back, close or SET anything.
    """

    def __init__(
        self,
        tables: Tables,
        groups: FromClause,
        budget_object: ObjectType = ObjectType.GROUP,
    ) -> None:
        """Prepare the statements; `groups` is `Directory.groups`.

        `budget_object` is what the policy must allow: the group, or `group_ai_budget`.
        """
        self.budget_object = budget_object
        table = tables.group_ai_budgets
        id_type = tables.layout.id_sql_type
        columns = (
            table.c.group_id,
            table.c.spend_limit_micros,
            table.c.created_at,
            table.c.updated_at,
            table.c.revision,
        )
        authorized = (
            sa.select(groups.c.id)
            .where(
                groups.c.id == sa.bindparam("group", type_=id_type),
                groups.c.organization_id == sa.bindparam("organization", type_=id_type),
            )
            .cte("authorized")
        )
        joined = authorized.outerjoin(table, table.c.group_id == authorized.c.id)
        self._get = sa.select(authorized.c.id, *columns).select_from(joined)

        limit = sa.bindparam("limit", type_=sa.BigInteger)
        revision = sa.bindparam("revision", type_=sa.Uuid)
        receipt = sa.bindparam("receipt", type_=pg.JSONB)
        # Always later than it was, even twice within one transaction.
        now = sa.func.greatest(
            sa.func.clock_timestamp(), table.c.updated_at + sa.text("interval '1 microsecond'")
        )
        uuids = pg.ARRAY(sa.Uuid())
        is_wanted = sa.or_(
            sa.bindparam("any_revision", type_=sa.Boolean),
            table.c.revision == sa.any_(sa.bindparam("must_be", type_=uuids)),
        )
        is_unwanted = table.c.revision == sa.any_(sa.bindparam("must_not_be", type_=uuids))

        clock = sa.func.clock_timestamp()
        new_row = sa.select(authorized.c.id, limit, revision, clock, clock, receipt)
        insert = pg.insert(table).from_select(
            ["group_id", "spend_limit_micros", "revision", "created_at", "updated_at", "receipt"],
            new_row,
            include_defaults=False,
        )
        change = {
            "spend_limit_micros": limit,
            "revision": revision,
            "updated_at": now,
            "receipt": receipt,
        }
        upsert = insert.on_conflict_do_update(
            index_elements=["group_id"], set_=change, where=~is_unwanted
        )
        create = insert.on_conflict_do_nothing(index_elements=["group_id"])
        replace = (
            sa.update(table)
            .values(change)
            .where(table.c.group_id == authorized.c.id, is_wanted, ~is_unwanted)
        )
        self._upsert, self._create, self._replace = (
            _report(authorized, change.returning(*columns).cte("changed"))
            for change in (upsert, create, replace)
        )
        existing = sa.select(table.c.group_id).where(table.c.group_id == authorized.c.id)
        deleted = (
            sa.delete(table)
            .where(table.c.group_id == authorized.c.id, is_wanted, ~is_unwanted)
            .returning(*columns)
            .cte("changed")
        )
        # A deleted row can't carry its receipt to the trigger, so the entry is written here.
        entry = _record_deleted(
            tables, deleted, sa.bindparam("organization", type_=id_type), receipt
        )
        self._delete = _report(authorized, deleted, existing.exists().label("existed")).add_cte(
            entry
        )
        orphaned = (
            sa.delete(table)
            .where(~sa.exists().where(groups.c.id == table.c.group_id))
            .returning(*columns, table.c.receipt)
            .cte("orphaned")
        )
        last_known = orphaned.c.receipt["organization_id"]
        nobody = sa.func.jsonb_build_object(
            "actor", None, "cause", CASCADE, "organization_id", last_known
        )
        gone = _record_deleted(tables, orphaned, sa.cast(last_known.astext, id_type), nobody)
        self._delete_orphans = sa.select(sa.func.count()).select_from(orphaned).add_cte(gone)
        listed = sa.bindparam("listed", type_=pg.ARRAY(id_type))
        pages = (
            sa.select(*columns)
            .select_from(groups.join(table, table.c.group_id == groups.c.id))
            .where(groups.c.organization_id == sa.bindparam("organization", type_=id_type))
            .order_by(groups.c.id)
            .limit(sa.bindparam("limit", type_=sa.Integer))
        )
        after = groups.c.id > sa.bindparam("after", type_=id_type)
        # [allowed elsewhere][first page]
        self._list = {
            allowed: {
                first: (pages if first else pages.where(after)).where(
                    groups.c.id != sa.all_(listed) if allowed else groups.c.id == sa.any_(listed)
                )
                for first in (True, False)
            }
            for allowed in (True, False)
        }

    def object_of(self, group: Group) -> Group:
        """Give the object to authorize for a group's budget, as this store demands it."""
        return Group(group.id, group.organization_id, self.budget_object)

    def get(self, connection: Connection, grant: Grant, group: Group) -> Budget:
        """Give the group's budget. Needs a grant for `read`.

        Raises NotFound (`budget-not-set`, or `group-not-found` where the group moved or went).
        """
        require_grant(grant, Action.READ, self.object_of(group), connection.get_transaction())
        row = connection.execute(self._get, _key(group)).one_or_none()
        if row is None:
            raise NotFound("group")
        if row.group_id is None:
            raise NotFound("budget")
        return _budget(row[1:])

    def set(
        self,
        connection: Connection,
        grant: Grant,
        group: Group,
        limit_micros: int,
        condition: Condition = UNCONDITIONAL,
        *,
        request_id: str | None = None,
    ) -> Budget:
        """Create or change the group's budget. Needs a grant for `update`.

        `limit_micros` is 0 to 10^12. Always moves `updated_at` and the revision, and leaves an
        entry in the audit trail, with `request_id`. Raises PreconditionFailed or GroupChanged, and
        has then written nothing.
        """
        require_grant(grant, Action.UPDATE, self.object_of(group), connection.get_transaction())
        if type(limit_micros) is not int or not 0 <= limit_micros <= MAX_LIMIT_MICROS:
            message = f"limit_micros must be an int from 0 to {MAX_LIMIT_MICROS}: {limit_micros!r}"
            raise ValueError(message)
        if condition.must_not_exist and (condition.must_exist or condition.must_be is not None):
            raise PreconditionFailed
        statement = self._upsert
        if condition.must_not_exist:
            statement = self._create
        elif condition.must_exist or condition.must_be is not None:
            statement = self._replace
        values = {
            "limit": limit_micros,
            "revision": uuid4(),
            "receipt": write_receipt(grant, group.organization_id, request_id),
            **_key(group),
            **_terms(condition),
        }
        try:
            row = connection.execute(statement, values).one_or_none()
        except IntegrityError as error:
            if getattr(error.orig, "sqlstate", None) == FOREIGN_KEY_VIOLATION:
                raise GroupChanged from error
            raise
        if row is None:
            raise GroupChanged
        if row.group_id is None:
            raise PreconditionFailed
        return _budget(row[1:6])

    def delete(
        self,
        connection: Connection,
        grant: Grant,
        group: Group,
        condition: Condition = UNCONDITIONAL,
        *,
        request_id: str | None = None,
    ) -> Budget:
        """Delete the group's budget and give it as it was. Needs a grant for `update`.

        Leaves an entry in the audit trail, with `request_id`.

        Raises NotFound (`budget-not-set`) where there is none, whatever the condition, else
        PreconditionFailed or GroupChanged, and has then deleted nothing.
        """
        require_grant(grant, Action.UPDATE, self.object_of(group), connection.get_transaction())
        values = {
            "receipt": write_receipt(grant, group.organization_id, request_id),
            **_key(group),
            **_terms(condition),
        }
        if condition.must_not_exist:
            values |= {"any_revision": False, "must_be": []}
        row = connection.execute(self._delete, values).one_or_none()
        if row is None:
            raise GroupChanged
        if row.group_id is not None:
            return _budget(row[1:6])
        if row.existed and condition != UNCONDITIONAL:
            raise PreconditionFailed
        raise NotFound("budget")

    def delete_orphans(self, connection: Connection) -> int:
        """Delete the budgets of groups that are not there any more, and give their number.

        For hosts whose groups a foreign key can't point at; call it after deleting groups. Needs no
        grant: it touches no budget of a living group. Leaves entries with the cause `cascade`.
        """
        return int(connection.execute(self._delete_orphans).scalar_one())

    def list(
        self,
        connection: Connection,
        grant: ListGrant,
        organization: Organization,
        *,
        limit: int,
        after: Id | None = None,
    ) -> Sequence[Budget]:
        """List budgets of the organization by group id, as far as the grant reaches.

        At most `limit`, those whose group id is greater than `after`. Needs a list grant for
        `read`.
        """
        require_list_grant(
            grant, Action.READ, self.budget_object, organization, connection.get_transaction()
        )
        statement = self._list[grant.allowed_elsewhere][after is None]
        values = {
            "organization": organization.id,
            "listed": list(grant.exceptions),
            "limit": limit,
            "after": after,
        }
        if after is None:
            del values["after"]
        return [_budget(row) for row in connection.execute(statement, values)]


def _report(authorized: sa.CTE, changed: sa.CTE, *more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Select a row where the authorized group is there, with the changed row or NULLs beside it."""
    return sa.select(authorized.c.id, *changed.c, *more).select_from(
        authorized.outerjoin(changed, sa.true())
    )


def _record_deleted(
    tables: Tables,
    deleted: sa.CTE,
    organization: sa.ColumnElement[Any],
    receipt: sa.ColumnElement[Any],
) -> sa.CTE:
    """Write the audit entries of deleted budgets."""
    columns = (
        "organization_id",
        "object_type",
        "object_id",
        "before",
        "receipt",
        "deleted_revision",
    )
    values = sa.select(
        organization,
        sa.literal_column("'group_ai_budget'"),
        sa.cast(deleted.c.group_id, sa.Text),
        sa.func.jsonb_build_object("spend_limit_micros", deleted.c.spend_limit_micros),
        receipt,
        deleted.c.revision,
    )
    entry = sa.insert(tables.audit_log).from_select(columns, values, include_defaults=False)
    return entry.cte("entry")


def _key(group: Group) -> dict[str, Any]:
    return {"group": group.id, "organization": group.organization_id}


def _terms(condition: Condition) -> dict[str, Any]:
    return {
        "any_revision": condition.must_be is None,
        "must_be": list(condition.must_be or ()),
        "must_not_be": list(condition.must_not_be),
    }


def _budget(row: Row[Any] | tuple[Any, ...]) -> Budget:
    return Budget(*row)
