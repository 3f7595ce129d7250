"""The budgets of groups: one statement a call, each run by a grant, tied to the authorized group.

The functions never commit, roll back, close or SET anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from govbudget.budgets import statements
from govbudget.budgets.budget import UNCONDITIONAL, Budget, Condition
from govbudget.db.retries import referring
from govbudget.db.unit import Grant
from govbudget.errors import GroupChanged, NotFound, PreconditionFailed
from govbudget.identity import Group, Id, Organization
from govbudget.money import check_limit


class Budgets:
    """The functions on budgets: one statement each, run by a grant. They never commit."""

    @staticmethod
    def get(grant: Grant[Group]) -> Budget:
        """Give the group's budget. Needs a grant to `read` the group.

        Raises NotFound (`budget-not-set`, or `group-not-found` where the group moved or went).
        """
        row = grant.run(statements.GET).one_or_none()
        if row is None:
            raise NotFound("group")
        if row.revision is None:
            raise NotFound("budget")
        return Budget(*row)

    @staticmethod
    def set(grant: Grant[Group], limit_micros: int, condition: Condition = UNCONDITIONAL) -> Budget:
        """Create or change the group's budget. Needs a grant to `update` the group.

        `limit_micros` is 0 to 10^12. Always moves `updated_at` and the revision, and adds an
        entry to the audit trail. Raises PreconditionFailed, GroupChanged, or ValueError for another
        limit, and has then written nothing.
        """
        if condition.must_not_exist and (condition.must_exist or condition.must_be is not None):
            raise PreconditionFailed
        statement = statements.SET
        if condition.must_not_exist:
            statement = statements.CREATE
        elif condition.must_exist or condition.must_be is not None:
            statement = statements.REPLACE
        values = {"limit": check_limit(limit_micros), "revision": uuid4()}
        with referring(GroupChanged()):
            row = grant.run(statement, **values, **_write_terms(condition)).one_or_none()
        if row is None:
            raise GroupChanged
        if row.revision is None:
            raise PreconditionFailed
        budget = Budget(*row)
        _report(grant, budget)
        return budget

    @staticmethod
    def delete(grant: Grant[Group], condition: Condition = UNCONDITIONAL) -> Budget:
        """Delete the group's budget and give it as it was. Needs a grant to `update` the group.

        Adds an entry to the audit trail. Raises NotFound (`budget-not-set`) where there is none,
        whatever the condition, else PreconditionFailed or GroupChanged, and has then deleted
        nothing.
        """
        terms = _write_terms(condition)
        if condition.must_not_exist:
            terms |= {"any_revision": False, "must_be": []}
        row = grant.run(statements.DELETE, **terms).one_or_none()
        if row is None:
            raise GroupChanged
        if row.revision is not None:
            _report(grant, None)
            return Budget(*row[:-1])
        if row.existed and condition != UNCONDITIONAL:
            raise PreconditionFailed
        raise NotFound("budget")

    @staticmethod
    def list(
        grant: Grant[Organization], *, limit: int, after: Id | None = None
    ) -> Sequence[Budget]:
        """List budgets of the organization by group id, as far as the grant reaches.

        At most `limit`, those whose group id is greater than `after`. Needs a grant to `read` the
        organization.
        """
        rows = grant.run(statements.PAGE, page_size=limit, after=after)
        return [Budget(*row) for row in rows]


def _report(grant: Grant[Group], budget: Budget | None) -> None:
    grant.report("budget_changed", group=grant.object, budget=budget)


def _write_terms(condition: Condition) -> dict[str, Any]:
    return {
        "any_revision": condition.must_be is None,
        "must_be": list(condition.must_be or ()),
        "must_not_be": list(condition.must_not_be),
    }
