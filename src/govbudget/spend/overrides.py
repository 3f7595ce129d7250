"""A member's own limit in an organization: one statement a call, run by a grant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import uuid4

from govbudget.budgets.statements import BEFORE, ENTRY, delete_orphans
from govbudget.db.governed import GROUPS, MEMBERS, Governed, Ungoverned
from govbudget.db.retries import referring
from govbudget.db.triggers import show
from govbudget.db.unit import Grant
from govbudget.errors import FieldError, Forbidden, InvalidInput, NotFound
from govbudget.identity import Action, Id, Member, Organization
from govbudget.money import check_limit
from govbudget.new_ids import write_new_id
from govbudget.spend.errors import NotAMember
from govbudget.spend.limits import describe_limits
from govbudget.spend.statements import NOW
from govbudget.spend.usage import check_reason, check_time

# A grant reaches a group that is listed in it, or, where it goes everywhere, one that is not.
REACH = "({group_id} = ANY (:exceptions)) <> :allowed_elsewhere"
O_REACH = REACH.format(group_id="o.group_id")
SHOWN = (
    *("organization_id", "user_id", "group_id", "spend_limit_micros"),
    *("expires_at", "reason", "created_at", "updated_at"),
)
O_SHOWN = ", ".join(f"o.{name}" for name in SHOWN)
O_BEFORE = f"""jsonb_build_object('group_id', group_id, 'expires_at', {show("expires_at")},
                     'reason', reason) || {BEFORE}"""

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

# All of them, also those that count for nothing: that ended, or whose group the member is not in.
LIST = Governed(
    "overrides.list",
    Action.READ,
    Organization,
    """
SELECT {answer} FROM {s}.member_ai_overrides i
WHERE i.organization_id = :organization_id AND {reach} {after}
ORDER BY i.user_id LIMIT :page_size
""",
    tuple(f"i.{name}" for name in SHOWN),
    reach=MEMBERS,
    column="i.user_id",
)

# The group that is named, and the one that was named before, must both be reached.
SET = Governed(
    "overrides.set",
    Action.UPDATE,
    Organization,
    f"""
WITH {{directory}}, input AS (
  SELECT CAST(:organization_id AS {{id}}) AS organization_id, CAST(:user_id AS {{id}}) AS user_id,
         {REACH.format(group_id="CAST(:group_id AS {id})")} AS is_reached,
         coalesce(:expires_at <= {NOW}, false) AND NOT :may_be_past AS is_past
), named AS (
  SELECT i.*, m.group_id FROM input i, LATERAL ({{memberships}}) m
  WHERE m.group_id = :group_id AND {{is_member}} LIMIT 1
), changed AS (
  INSERT INTO {{s}}.member_ai_overrides AS o
    (organization_id, user_id, group_id, spend_limit_micros, expires_at, reason, revision,
     created_at, updated_at, receipt)
  SELECT organization_id, user_id, group_id, :limit, :expires_at, :reason, :revision,
         statement_timestamp(), statement_timestamp(), :receipt
  FROM named WHERE is_reached AND NOT is_past
  ON CONFLICT (organization_id, user_id) DO UPDATE
    SET group_id = excluded.group_id, spend_limit_micros = excluded.spend_limit_micros,
        expires_at = excluded.expires_at, reason = excluded.reason,
        revision = excluded.revision, receipt = excluded.receipt,
        updated_at = greatest(excluded.updated_at, o.updated_at + interval '1 microsecond')
    WHERE {O_REACH}
  RETURNING {O_SHOWN}
)
SELECT {{answer}} FROM input i LEFT JOIN named n ON true LEFT JOIN changed c ON true
""",
    ("i.is_reached", "i.is_past", "n.group_id AS named_group_id", *(f"c.{name}" for name in SHOWN)),
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

# It is held until the transaction ends.
LOCK = Governed(
    "overrides.lock",
    Action.UPDATE,
    Organization,
    """
SELECT pg_advisory_xact_lock(hashtextextended('{s}.limits/' || CAST(:organization_id AS text), 0))
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
    """The limit of one member in one organization, and the group that the spend counts for.

    From `expires_at` on it counts for nothing (None: it has no end); `reason` is why it was set.
    """

    organization_id: Id
    user_id: Id
    group_id: Id
    spend_limit_micros: int
    expires_at: datetime | None
    reason: str | None
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
    def list(
        grant: Grant[Organization], *, limit: int, after: Id | None = None
    ) -> Sequence[Override]:
        """List the organization's overrides by user id, as far as the grant reaches the members.

        At most `limit`, those whose user id is greater than `after`; those too that count for
        nothing: that have ended, or name a group that the user is not in. Needs a grant to `read`
        the organization.
        """
        rows = grant.run(LIST, page_size=limit, after=after)
        return [Override(*row) for row in rows]

    @staticmethod
    def set(
        grant: Grant[Organization],
        user_id: Id,
        group_id: Id,
        limit_micros: int,
        *,
        expires_at: datetime | None = None,
        reason: str | None = None,
        may_be_past: bool = False,
    ) -> Override:
        """Create or change a member's override, with an entry in the audit trail.

        Needs a grant to `update` the organization that reaches the group named and the one named
        before; `limit_micros` is 0 to 10^12. It counts until `expires_at` (None: it has no end),
        which is later than now, unless it `may_be_past`. All of it is set anew: an end or a reason
        that is left out is not kept. Raises Forbidden if one of the groups is outside its reach,
        NotAMember where the user is not a member of the group, InvalidInput for an end that has
        passed; nothing is written then. ValueError for a `reason` that is not 1 to 1,000 printable
        characters, or a time without a time zone; TypeError for what is not an id.
        """
        user_id = _accept(grant, user_id)
        values = {
            "group_id": _accept(grant, group_id),
            "limit": check_limit(limit_micros),
            "expires_at": expires_at and check_time(expires_at),
            "reason": None if reason is None else check_reason(reason),
            "may_be_past": may_be_past,
            "revision": uuid4(),
        }
        with referring(NotAMember()):
            row = grant.run(SET, user_id=user_id, **values).one()
        if row.is_reached and row.named_group_id is None:
            raise NotAMember
        if row.is_reached and row.is_past:
            sentence = "is not in the future; an override ends later than now"
            past = FieldError("/expires_at", sentence)
            raise InvalidInput("the override would have ended already", [past])
        if row.user_id is None:
            raise Forbidden(Action.UPDATE, grant.allowed.lines, ())
        return _report(grant, user_id, Override(*row[3:]))

    @staticmethod
    def delete(grant: Grant[Organization], user_id: Id) -> None:
        """Delete a member's override, with an entry in the audit trail.

        Needs a grant to `update` the organization that reaches the group that it names. Raises
        NotFound (`override-not-set`), or Forbidden where the grant does not reach it.
        """
        user_id = _accept(grant, user_id)
        row = grant.run(DELETE, user_id=user_id).one_or_none()
        if row is None or (row.user_id is None and row.is_reached):
            raise NotFound("override")
        if row.user_id is None:
            raise Forbidden(Action.UPDATE, grant.allowed.lines, ())
        _report(grant, user_id, None)


def wait_for_others(grant: Grant[Organization]) -> None:
    """Wait until nobody else makes the organization's limits what a file says.

    Others wait from now on, until the transaction ends. Needs a grant to `update` the organization.
    """
    grant.run(LOCK)


def _accept(grant: Grant[Organization], given: Id) -> Id:
    return grant.unit.gov.settings.id_type.accept(given)


OverrideT = TypeVar("OverrideT", Override, None)


def _report(grant: Grant[Organization], user_id: Id, override: OverrideT) -> OverrideT:
    about = {"organization_id": grant.object.id, "user_id": user_id, "override": override}
    grant.report("override_changed", **about)
    return override
