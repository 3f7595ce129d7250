"""The budgets: one statement a call, each behind a grant and tied to the authorized group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy.exc import IntegrityError

from govbudget.audit.entry import write_receipt
from govbudget.authz.grant import Grant, ListGrant, require_grant, require_list_grant
from govbudget.budgets.budget import UNCONDITIONAL, Budget, Condition
from govbudget.budgets.statements import BudgetStatements
from govbudget.errors import GroupChanged, NotFound, PreconditionFailed
from govbudget.identity import Action, Group, ObjectType
from govbudget.tables import MAX_LIMIT_MICROS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, FromClause

    from govbudget.identity import Id, Organization
    from govbudget.tables import Tables

FOREIGN_KEY_VIOLATION = "23503"


class BudgetStore:
    """The budgets of one layout. Its functions send one statement each, on the caller's connection.

    They never commit, roll back, close or SET anything.
    """

    def __init__(self, tables: Tables, groups: FromClause, budget_object: ObjectType) -> None:
        """Prepare the statements; `groups` is `Directory.groups`.

        `budget_object` is what the policy must allow: the group, or `group_ai_budget`.
        """
        self.budget_object = budget_object
        self._statements = BudgetStatements(tables, groups)

    def object_of(self, group: Group) -> Group:
        """Give the object to authorize for a group's budget, as this store demands it."""
        if group.type is self.budget_object:
            return group
        return Group(group.id, group.organization_id, self.budget_object)

    def get(self, connection: Connection, grant: Grant, group: Group) -> Budget:
        """Give the group's budget. Needs a grant for `read`.

        Raises NotFound (`budget-not-set`, or `group-not-found` where the group moved or went).
        """
        require_grant(grant, Action.READ, self.object_of(group), connection.get_transaction())
        row = connection.execute(self._statements.get, _key(group)).one_or_none()
        if row is None:
            raise NotFound("group")
        if row[1] is None:
            raise NotFound("budget")
        return Budget(*row[1:])

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
        statement = self._statements.upsert
        if condition.must_not_exist:
            statement = self._statements.create
        elif condition.must_exist or condition.must_be is not None:
            statement = self._statements.replace
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
        return Budget(*row[1:6])

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
        row = connection.execute(self._statements.delete, values).one_or_none()
        if row is None:
            raise GroupChanged
        if row.group_id is not None:
            return Budget(*row[1:6])
        if row.existed and condition != UNCONDITIONAL:
            raise PreconditionFailed
        raise NotFound("budget")

    def delete_orphans(self, connection: Connection) -> int:
        """Delete the budgets, and the members' overrides, of groups that are not there any more.

        Gives their number. For hosts whose groups a foreign key can't point at; call it after
        deleting groups. Needs no grant: it touches nothing of a living group. Leaves entries with
        the cause `cascade`.
        """
        return int(connection.execute(self._statements.delete_orphans).scalar_one())

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
        statement = self._statements.pages[grant.allowed_elsewhere, after is None]
        values = {
            "organization_id": organization.id,
            "exceptions": list(grant.exceptions),
            "page_size": limit,
            "after": after,
        }
        return [Budget(*row) for row in connection.execute(statement, values)]


def _key(group: Group) -> dict[str, Any]:
    return {"group_id": group.id, "organization_id": group.organization_id}


def _terms(condition: Condition) -> dict[str, Any]:
    return {
        "any_revision": condition.must_be is None,
        "must_be": list(condition.must_be or ()),
        "must_not_be": list(condition.must_not_be),
    }
