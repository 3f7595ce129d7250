"""A member's own limit in an organization: one statement a call, run by a grant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from govbudget.budgets.statements import BEFORE, ENTRY, delete_orphans
from govbudget.db.governed import GROUPS, Governed, Ungoverned
from govbudget.db.retries import referring
from govbudget.errors import Forbidden, NotFound
from govbudget.identity import Action, Id, Member, Organization
from govbudget.money import check_limit
from govbudget.new_ids import write_new_id
from govbudget.spend.errors import NotAMember
from govbudget.spend.limits import describe_limits

if TYPE_CHECKING:
    from datetime import datetime

    from govbudget.db.unit import Grant

# A grant reaches a group that is listed in it, or, where it goes everywhere, one that is not.
REACH = "({group_id} = ANY (:exceptions)) <> :allowed_elsewhere"
O_REACH = REACH.format(group_id="o.group_id")
SHOWN = (
    *("organization_id", "user_id", "group_id", "spend_limit_micros"),
    *("created_at", "updated_at"),
)
O_SHOWN = ", ".join(f"o.{name}" for name in SHOWN)
O_BEFORE = f"jsonb_build_object('group_id', group_id) || {BEFORE}"

# Of the groups that the member belongs to: an override of another one binds nobody.
GET = Governed(
    "overrides.get",
    Action.READ,
    Member,
    """
WITH {directory} SELECT {answer} FROM {s}.member_ai_overrides i
WHERE i.organization_id = :organization_id AND i.user_id = :user_id
  AND EXISTS (SELECT FROM ({memberships}) m WHERE m.group_id = i.group_id)
""",
    tuple(f"i.{name}" for name in SHOWN),
    parts=describe_limits,
)

# The group that is named, and the one that was named before, must both be reached.
SET = Governed(
    "overrides.set",
    Action.UPDATE,
    Organization,
    f"""
WITH {{directory}}, input AS (
  SELECT CAST(:organization_id AS {{id}}) AS organization_id, CAST(:user_id AS {{id}}) AS user_id,
         {REACH.format(group_id="CAST(:group_id AS {id})")} AS is_reached
), named AS (
  SELECT i.*, m.group_id FROM input i, LATERAL ({{memberships}}) m
  WHERE m.group_id = :group_id AND {{is_member}} LIMIT 1
), changed AS (
  INSERT INTO {{s}}.member_ai_overrides AS o
    (organization_id, user_id, group_id, spend_limit_micros, revision, created_at, updated_at,
     receipt)
  SELECT organization_id, user_id, group_id, :limit, :revision, statement_timestamp(),
         statement_timestamp(), :receipt
  FROM named WHERE is_reached
  ON CONFLICT (organization_id, user_id) DO UPDATE
    SET group_id = excluded.group_id, spend_limit_micros = excluded.spend_limit_micros,
        revision = excluded.revision, receipt = excluded.receipt,
        updated_at = greatest(excluded.updated_at, o.updated_at + interval '1 microsecond')
    WHERE {O_REACH}
  RETURNING {O_SHOWN}
)
SELECT {{answer}} FROM input i LEFT JOIN named n ON true LEFT JOIN changed c ON true
""",
    ("i.is_reached", "n.group_id AS named_group_id", *(f"c.{name}" for name in SHOWN)),
    reach=GROUPS,
    parts=describe_limits,
)

DELETE = Governed(
    "overrides.delete",
    Action.UPDATE,
    Organization,
    f"""
WITH deleted AS (
  DELETE FROM {{s}}.member_ai_overrides o
  WHERE o.organization_id = :organization_id AND o.user_id = :user_id AND {O_REACH}
  RETURNING {O_SHOWN}, revision
), entry AS ({ENTRY}
  SELECT {write_new_id("organization_id")}, organization_id, 'member_ai_override',
         user_id::text, {O_BEFORE}, :receipt, revision
  FROM deleted
)
SELECT d.user_id, {O_REACH} AS is_reached
FROM {{s}}.member_ai_overrides o LEFT JOIN deleted d ON true
WHERE o.organization_id = :organization_id AND o.user_id = :user_id
""",
    reach=GROUPS,
)

DELETE_ORPHANS = delete_orphans(
    "overrides.delete_orphans",
    "member_ai_overrides",
    entry=f"""organization_id, 'member_ai_override' AS object_type, user_id AS object_id,
          {O_BEFORE} AS before""",
)

LIST_IDLE = Ungoverned(
    "overrides.list_idle",
    "it shows no limit: who has an override that names a group they are not in",
    """
WITH {directory} SELECT user_id, 'override', 'group:' || group_id, 'the user is not in the group'
FROM {s}.member_ai_overrides i
WHERE NOT EXISTS (SELECT FROM ({memberships}) m WHERE m.group_id = i.group_id)
ORDER BY user_id, organization_id
""",
    describe_limits,
)


@dataclass(frozen=True, slots=True)
class Override:
    """The limit of one member in one organization, and the group that the spend counts for."""

    organization_id: Id
    user_id: Id
    group_id: Id
    spend_limit_micros: int
    created_at: datetime
    updated_at: datetime


class Overrides:
    """The functions on overrides: one statement each, run by a grant. They never commit."""

    @staticmethod
    def get(grant: Grant[Member]) -> Override:
        """Give the member's override. Needs a grant to `read` the member's spend.

        Raises NotFound (`override-not-set`).
        """
        row = grant.run(GET).one_or_none()
        if row is None:
            raise NotFound("override")
        return Override(*row)

    @staticmethod
    def set(grant: Grant[Organization], user_id: Id, group_id: Id, limit_micros: int) -> Override:
        """Create or change a member's override, with an entry in the audit trail.

        Needs a grant to `update` the organization that reaches the group named and the one named
        before; `limit_micros` is 0 to 10^12. Raises Forbidden if one of the groups is outside its
        reach, NotAMember where the user is not a member of the group; nothing is written then.
        """
        values = {"group_id": group_id, "limit": check_limit(limit_micros), "revision": uuid4()}
        with referring(NotAMember()):
            row = grant.run(SET, user_id=user_id, **values).one()
        if row.is_reached and row.named_group_id is None:
            raise NotAMember
        if row.user_id is None:
            raise Forbidden(Action.UPDATE, grant.allowed.lines, ())
        return Override(*row[2:])

    @staticmethod
    def delete(grant: Grant[Organization], user_id: Id) -> None:
        """Delete a member's override, with an entry in the audit trail.

        Needs a grant to `update` the organization that reaches the group that it names. Raises
        NotFound (`override-not-set`), or Forbidden where the grant does not reach it.
        """
        row = grant.run(DELETE, user_id=user_id).one_or_none()
        if row is None or (row.user_id is None and row.is_reached):
            raise NotFound("override")
        if row.user_id is None:
            raise Forbidden(Action.UPDATE, grant.allowed.lines, ())
