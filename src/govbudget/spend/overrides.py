"""A member's own limit in an organization: one statement a call, behind a grant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy.exc import IntegrityError

from govbudget.audit.entry import write_receipt
from govbudget.authz.grant import Grant, ListGrant, require_grant, require_list_grant
from govbudget.errors import Forbidden, NotAMember, NotFound
from govbudget.identity import Action, ObjectType
from govbudget.spend.limits import Limits
from govbudget.sql import prepare, read_time
from govbudget.tables import MAX_LIMIT_MICROS

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from govbudget.identity import Directory, Id, Member, Organization
    from govbudget.tables import Tables

FOREIGN_KEY_VIOLATION = "23503"

# A grant reaches a group that is listed in it, or, where it goes everywhere, one that is not.
REACH = "(o.group_id = ANY (:exceptions)) <> :allowed_elsewhere"
SHOWN = ", ".join(
    (
        *("o.organization_id", "o.user_id", "o.group_id", "o.spend_limit_micros"),
        *(read_time(f"o.{name}", name) for name in ("created_at", "updated_at")),
    )
)

# Of the groups that the member belongs to: an override of another one binds nobody.
GET = f"""
SELECT {SHOWN.replace("o.", "i.")} FROM {{s}}.member_ai_overrides i
WHERE i.organization_id = :organization_id AND i.user_id = :user_id
  AND EXISTS (SELECT FROM ({{memberships}}) m WHERE m.group_id = i.group_id)
"""

SET = f"""
WITH input AS (
  SELECT CAST(:organization_id AS {{id}}) AS organization_id, CAST(:user_id AS {{id}}) AS user_id
), named AS (
  SELECT i.*, m.group_id FROM input i, LATERAL ({{memberships}}) m
  WHERE m.group_id = :group_id AND {{is_member}} LIMIT 1
), changed AS (
  INSERT INTO {{s}}.member_ai_overrides AS o
    (organization_id, user_id, group_id, spend_limit_micros, revision, created_at, updated_at,
     receipt)
  SELECT organization_id, user_id, group_id, :limit, :revision, statement_timestamp(),
         statement_timestamp(), :receipt
  FROM named
  ON CONFLICT (organization_id, user_id) DO UPDATE
    SET group_id = excluded.group_id, spend_limit_micros = excluded.spend_limit_micros,
        revision = excluded.revision, receipt = excluded.receipt,
        updated_at = greatest(excluded.updated_at, o.updated_at + interval '1 microsecond')
    WHERE {REACH}
  RETURNING {SHOWN}
)
SELECT c.* FROM named LEFT JOIN changed c ON true
"""

DELETE = f"""
WITH deleted AS (
  DELETE FROM {{s}}.member_ai_overrides o
  WHERE o.organization_id = :organization_id AND o.user_id = :user_id AND {REACH}
  RETURNING {SHOWN}, revision
), entry AS (
  INSERT INTO {{s}}.audit_log
    (organization_id, object_type, object_id, before, receipt, deleted_revision)
  SELECT organization_id, 'member_ai_override', user_id::text,
         jsonb_build_object('group_id', group_id, 'spend_limit_micros', spend_limit_micros),
         :receipt, revision
  FROM deleted
)
SELECT d.user_id, {REACH} AS is_reached
FROM {{s}}.member_ai_overrides o LEFT JOIN deleted d ON true
WHERE o.organization_id = :organization_id AND o.user_id = :user_id
"""


@dataclass(frozen=True, slots=True)
class Override:
    """The limit of one member in one organization, and the group that the spend counts for."""

    organization_id: Id
    user_id: Id
    group_id: Id
    spend_limit_micros: int
    created_at: datetime
    updated_at: datetime


class OverrideStore:
    """The overrides of one layout. Each function sends one statement on the caller's connection.

    They never commit, roll back, close or SET anything.
    """

    def __init__(self, tables: Tables, directory: Directory, budget_object: ObjectType) -> None:
        """Prepare the statements; `budget_object` is what the policy must allow to `update`."""
        self._budget_object = budget_object
        limits = Limits(tables, directory)
        self._get, self._set, self._delete = (
            prepare(
                template,
                tables.layout,
                is_member=limits.is_member,
                memberships=limits.memberships,
            )
            for template in (GET, SET, DELETE)
        )

    def get(self, connection: Connection, grant: Grant, member: Member) -> Override:
        """Give the member's override. Needs a grant to `read` the member's spend.

        Raises NotFound (`override-not-set`).
        """
        require_grant(grant, Action.READ, member, connection.get_transaction())
        values = {"organization_id": member.organization_id, "user_id": member.user_id}
        row = connection.execute(self._get, values).one_or_none()
        if row is None:
            raise NotFound("override")
        return Override(*row)

    def set(  # noqa: PLR0917 - as the budgets' own
        self,
        connection: Connection,
        grant: ListGrant,
        organization: Organization,
        user_id: Id,
        group_id: Id,
        limit_micros: int,
        *,
        request_id: str | None = None,
    ) -> Override:
        """Create or change a member's override, with an entry in the audit trail.

        Needs a list grant to `update` that reaches the group named and the one named before;
        `limit_micros` is 0 to 10^12. Raises Forbidden where it reaches one of them not, NotAMember
        where the user is not a member of the group; nothing is written then.
        """
        self._require(connection, grant, organization)
        if type(limit_micros) is not int or not 0 <= limit_micros <= MAX_LIMIT_MICROS:
            message = f"limit_micros must be an int from 0 to {MAX_LIMIT_MICROS}: {limit_micros!r}"
            raise ValueError(message)
        if not grant.covers(group_id):
            raise Forbidden(Action.UPDATE, grant.lines, ())
        values = {
            "group_id": group_id,
            "limit": limit_micros,
            "revision": uuid4(),
            **_read_reach(grant, organization, user_id, request_id),
        }
        try:
            row = connection.execute(self._set, values).one_or_none()
        except IntegrityError as error:
            if getattr(error.orig, "sqlstate", None) == FOREIGN_KEY_VIOLATION:
                raise NotAMember from error
            raise
        if row is None:
            raise NotAMember
        if row.user_id is None:
            raise Forbidden(Action.UPDATE, grant.lines, ())
        return Override(*row)

    def delete(
        self,
        connection: Connection,
        grant: ListGrant,
        organization: Organization,
        user_id: Id,
        *,
        request_id: str | None = None,
    ) -> None:
        """Delete a member's override, with an entry in the audit trail.

        Needs a list grant to `update` that reaches the group that it names. Raises NotFound
        (`override-not-set`), or Forbidden where the grant does not reach it.
        """
        self._require(connection, grant, organization)
        values = _read_reach(grant, organization, user_id, request_id)
        row = connection.execute(self._delete, values).one_or_none()
        if row is None or (row.user_id is None and row.is_reached):
            raise NotFound("override")
        if row.user_id is None:
            raise Forbidden(Action.UPDATE, grant.lines, ())

    def _require(
        self, connection: Connection, grant: ListGrant, organization: Organization
    ) -> None:
        require_list_grant(
            grant, Action.UPDATE, self._budget_object, organization, connection.get_transaction()
        )


def _read_reach(
    grant: ListGrant, organization: Organization, user_id: Id, request_id: str | None
) -> dict[str, Any]:
    return {
        "organization_id": organization.id,
        "user_id": user_id,
        "exceptions": list(grant.exceptions),
        "allowed_elsewhere": grant.allowed_elsewhere,
        "receipt": write_receipt(grant, organization.id, request_id),
    }
