"""The statements of budgets, prepared once: what is asked of the database, and nothing else.

Every statement starts from the group's row, by its id and the organization that was authorized. So
one that runs after the group moved or went touches nothing, and says so: it gives no row at all.
Where the group is there and nothing was changed, it gives a row of NULLs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from govbudget.audit.entry import CASCADE

if TYPE_CHECKING:
    from sqlalchemy import FromClause

    from govbudget.tables import Tables

UUIDS = pg.ARRAY(sa.Uuid())


class BudgetStatements:
    """The statements over one layout's tables and one directory's groups."""

    def __init__(self, tables: Tables, groups: FromClause) -> None:
        self._log = tables.audit_log
        self._table = table = tables.group_ai_budgets
        self._overrides = tables.member_ai_overrides
        self._groups = groups
        self._id_type = tables.layout.id_sql_type
        self._columns = (
            table.c.group_id,
            table.c.spend_limit_micros,
            table.c.created_at,
            table.c.updated_at,
            table.c.revision,
        )
        self._organization = sa.bindparam("organization", type_=self._id_type)
        self._receipt = sa.bindparam("receipt", type_=pg.JSONB)
        self._authorized = (
            sa.select(groups.c.id)
            .where(
                groups.c.id == sa.bindparam("group", type_=self._id_type),
                groups.c.organization_id == self._organization,
            )
            .cte("authorized")
        )
        is_wanted = sa.or_(
            sa.bindparam("any_revision", type_=sa.Boolean),
            table.c.revision == sa.any_(sa.bindparam("must_be", type_=UUIDS)),
        )
        self._is_unwanted = table.c.revision == sa.any_(sa.bindparam("must_not_be", type_=UUIDS))
        self._is_target = sa.and_(
            table.c.group_id == self._authorized.c.id, is_wanted, ~self._is_unwanted
        )
        self.get = self._prepare_get()
        self.upsert, self.create, self.replace = self._prepare_changes()
        self.delete = self._prepare_delete()
        self.delete_orphans = self._prepare_delete_orphans()
        self.pages = {
            (allowed_elsewhere, is_first): self._prepare_page(allowed_elsewhere, is_first)
            for allowed_elsewhere in (True, False)
            for is_first in (True, False)
        }

    def _prepare_get(self) -> sa.Select[Any]:
        joined = self._authorized.outerjoin(
            self._table, self._table.c.group_id == self._authorized.c.id
        )
        return sa.select(self._authorized.c.id, *self._columns).select_from(joined)

    def _prepare_changes(self) -> tuple[sa.Select[Any], sa.Select[Any], sa.Select[Any]]:
        """Prepare to set a limit: whatever is there, only where nothing is, only where one is."""
        table, clock = self._table, sa.func.statement_timestamp()
        limit = sa.bindparam("limit", type_=sa.BigInteger)
        revision = sa.bindparam("revision", type_=sa.Uuid)
        insert = pg.insert(table).from_select(
            ["group_id", "spend_limit_micros", "revision", "created_at", "updated_at", "receipt"],
            sa.select(self._authorized.c.id, limit, revision, clock, clock, self._receipt),
            include_defaults=False,
        )
        change = {
            "spend_limit_micros": limit,
            "revision": revision,
            # Always later than it was, even twice within one transaction.
            "updated_at": sa.func.greatest(
                clock, table.c.updated_at + sa.text("interval '1 microsecond'")
            ),
            "receipt": self._receipt,
        }
        key = [table.c.group_id]
        return (
            self._report(
                insert.on_conflict_do_update(
                    index_elements=key, set_=change, where=~self._is_unwanted
                )
            ),
            self._report(insert.on_conflict_do_nothing(index_elements=key)),
            self._report(sa.update(table).values(change).where(self._is_target)),
        )

    def _prepare_delete(self) -> sa.Select[Any]:
        table = self._table
        deleted = sa.delete(table).where(self._is_target).returning(*self._columns).cte("changed")
        existed = sa.exists().where(table.c.group_id == self._authorized.c.id).label("existed")
        entry = self._record(deleted, self._organization, self._receipt)
        return (
            sa.select(self._authorized.c.id, *deleted.c, existed)
            .select_from(self._authorized.outerjoin(deleted, sa.true()))
            .add_cte(entry)
        )

    def _prepare_delete_orphans(self) -> sa.Select[Any]:
        """Prepare to delete what names a group that is gone: budgets, and members' overrides."""
        groups = self._groups

        def delete(table: sa.Table) -> sa.CTE:
            orphaned = ~sa.exists().where(groups.c.id == table.c.group_id)
            return sa.delete(table).where(orphaned).returning(*table.c).cte(f"gone_{table.name}")

        def count(deleted: sa.CTE) -> sa.ScalarSelect[Any]:
            return sa.select(sa.func.count()).select_from(deleted).scalar_subquery()

        def tell(organization: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
            return sa.func.jsonb_build_object(
                "actor", None, "cause", CASCADE, "organization_id", organization
            )

        budgets, overrides = delete(self._table), delete(self._overrides)
        last_known = budgets.c.receipt["organization_id"]
        entry = self._record(budgets, sa.cast(last_known.astext, self._id_type), tell(last_known))
        of_member = overrides.c.organization_id
        override_entry = self._insert_entry(
            "override_entry",
            of_member,
            "member_ai_override",
            overrides.c.user_id,
            sa.func.jsonb_build_object(
                *("group_id", overrides.c.group_id),
                *("spend_limit_micros", overrides.c.spend_limit_micros),
            ),
            tell(sa.cast(of_member, sa.Text)),
            overrides.c.revision,
        )
        return sa.select(count(budgets) + count(overrides)).add_cte(entry, override_entry)

    def _prepare_page(self, allowed_elsewhere: bool, is_first: bool) -> sa.Select[Any]:  # noqa: FBT001
        table, groups = self._table, self._groups
        listed = sa.bindparam("listed", type_=pg.ARRAY(self._id_type))
        page = (
            sa.select(*self._columns)
            .select_from(groups.join(table, table.c.group_id == groups.c.id))
            .where(
                groups.c.organization_id == self._organization,
                groups.c.id != sa.all_(listed)
                if allowed_elsewhere
                else groups.c.id == sa.any_(listed),
            )
            .order_by(groups.c.id)
            .limit(sa.bindparam("limit", type_=sa.Integer))
        )
        if is_first:
            return page
        return page.where(groups.c.id > sa.bindparam("after", type_=self._id_type))

    def _report(self, change: sa.Insert | sa.Update) -> sa.Select[Any]:
        """Select a row where the authorized group is there, the changed row or NULLs beside it."""
        changed = change.returning(*self._columns).cte("changed")
        return sa.select(self._authorized.c.id, *changed.c).select_from(
            self._authorized.outerjoin(changed, sa.true())
        )

    def _record(
        self, deleted: sa.CTE, organization: sa.ColumnElement[Any], receipt: sa.ColumnElement[Any]
    ) -> sa.CTE:
        before = sa.func.jsonb_build_object("spend_limit_micros", deleted.c.spend_limit_micros)
        return self._insert_entry(
            *("entry", organization, "group_ai_budget", deleted.c.group_id, before, receipt),
            deleted.c.revision,
        )

    def _insert_entry(  # noqa: PLR0917 - the columns of an entry, in their order
        self,
        name: str,
        organization: sa.ColumnElement[Any],
        object_type: str,
        object_id: sa.ColumnElement[Any],
        before: sa.ColumnElement[Any],
        receipt: sa.ColumnElement[Any],
        revision: sa.ColumnElement[Any],
    ) -> sa.CTE:
        """Write the audit entry: a deleted row can't carry its receipt to the trigger."""
        values = sa.select(
            organization,
            sa.literal_column(f"'{object_type}'"),
            sa.cast(object_id, sa.Text),
            before,
            receipt,
            revision,
        )
        columns = [
            "organization_id",
            "object_type",
            "object_id",
            "before",
            "receipt",
            "deleted_revision",
        ]
        entry = sa.insert(self._log).from_select(columns, values, include_defaults=False)
        return entry.cte(name)
