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

        new_row = sa.select(
            authorized.c.id, limit, revision, sa.func.clock_timestamp(), sa.func.clock_timestamp()
        )
        insert = pg.insert(table).from_select(
            ["group_id", "spend_limit_micros", "revision", "created_at", "updated_at"],
            new_row,
            include_defaults=False,
        )
        change = {"spend_limit_micros": limit, "revision": revision, "updated_at": now}
        self._upsert = _report(
            authorized,
            insert.on_conflict_do_update(
                index_elements=["group_id"], set_=change, where=~is_unwanted
            ).returning(*columns),
        )
        self._create = _report(
            authorized,
            insert.on_conflict_do_nothing(index_elements=["group_id"]).returning(*columns),
        )
        self._replace = _report(
            authorized,
            sa.update(table)
            .values(change)
            .where(table.c.group_id == authorized.c.id, is_wanted, ~is_unwanted)
            .returning(*columns),
        )
        existing = sa.select(table.c.group_id).where(table.c.group_id == authorized.c.id)
        self._delete = _report(
            authorized,
            sa.delete(table)
            .where(table.c.group_id == authorized.c.id, is_wanted, ~is_unwanted)
            .returning(*columns),
            existing.exists().label("existed"),
        )
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
    ) -> Budget:
        """Create or change the group's budget. Needs a grant for `update`.

        `limit_micros` is 0 to 10^12. Always moves `updated_at` and the revision. Raises
        PreconditionFailed or GroupChanged, and has then written nothing.
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
        values = {"limit": limit_micros, "revision": uuid4(), **_key(group), **_terms(condition)}
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
    ) -> Budget:
        """Delete the group's budget and give it as it was. Needs a grant for `update`.

        Raises NotFound (`budget-not-set`) where there is none, whatever the condition, else
        PreconditionFailed or GroupChanged, and has then deleted nothing.
        """
        require_grant(grant, Action.UPDATE, self.object_of(group), connection.get_transaction())
        values = {**_key(group), **_terms(condition)}
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


def _report(
    authorized: sa.CTE,
    change: sa.Insert | sa.Update | sa.Delete,
    *more: sa.ColumnElement[Any],
) -> sa.Select[Any]:
    """Select a row where the authorized group is there, with the changed row or NULLs beside it."""
    changed = change.cte("changed")
    return sa.select(authorized.c.id, *changed.c, *more).select_from(
        authorized.outerjoin(changed, sa.true())
    )


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
