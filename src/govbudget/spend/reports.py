"""What was spent: sums that are read by key from counters and rollups, never from the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from govbudget.authz.grant import Grant, ListGrant, require_grant, require_list_grant
from govbudget.errors import GrantRefused, NotFound
from govbudget.identity import Action, Group, ObjectType, Organization
from govbudget.spend.limits import Limits
from govbudget.spend.usage import LimitSource, SpendRules
from govbudget.sql import NOW, find_start, make_pages, prepare, read_time, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from govbudget.identity import Directory, Id, Member
    from govbudget.tables import Tables

NEXT_MONTH = "(starts_on + interval '1 month')"
# The period that the time is in, and its bounds.
PERIOD = f"""
WITH month AS (
  SELECT date_trunc('month', timezone(:time_zone, {NOW}))::date AS starts_on
), period AS (
  SELECT starts_on, {read_time(find_start("starts_on"), "period_start")},
         {read_time(find_start(NEXT_MONTH), "period_end")}
  FROM month
)"""

MEMBER = (
    PERIOD
    + f"""
, input AS (
  SELECT CAST(:organization_id AS {{id}}) AS organization_id, CAST(:user_id AS {{id}}) AS user_id,
         {NOW} AS now
)
SELECT p.period_start, p.period_end, {{is_member}} AS is_member, e.group_id, e.spend_limit_micros,
       e.limit_source, coalesce(c.spent_picos, 0) AS spent_picos,
       coalesce(c.held_picos, 0) - (
         SELECT coalesce(sum(h.cost_picos), 0) FROM {{s}}.ai_holds h
         WHERE h.organization_id = i.organization_id AND h.user_id = i.user_id
           AND h.period = p.starts_on AND h.is_open AND h.expires_at <= i.now
       ) AS held_picos
FROM period p, input i
LEFT JOIN LATERAL ({{effective}}) e ON true
LEFT JOIN {{s}}.ai_spend_counters c
  ON c.organization_id = i.organization_id AND c.user_id = i.user_id
  AND c.period = (SELECT starts_on FROM month)
"""
)

# {which}: the group, or a page of an organization's.
GROUPS = (
    PERIOD
    + """
SELECT p.period_start, p.period_end, g.id, s.cost_picos, s.calls, s.unpriced_calls
FROM period p, ({groups}) g, LATERAL (
  SELECT coalesce(sum(r.cost_picos), 0) AS cost_picos, coalesce(sum(r.calls), 0) AS calls,
         coalesce(sum(r.unpriced_calls), 0) AS unpriced_calls
  FROM {s}.ai_spend_rollups r
  WHERE r.organization_id = g.organization_id AND r.grain = 'month'
    AND r.starts_on = p.starts_on AND r.group_id = g.id
) s
WHERE g.organization_id = :organization_id AND {which}
"""
)
GROUP = "g.id = :group_id"
PAGE = "{reach} {after} ORDER BY g.id LIMIT :page_size"

MEMBERS = (
    PERIOD
    + """
SELECT p.period_start, p.period_end, r.user_id, r.cost_picos, r.calls, r.unpriced_calls
FROM period p, ({groups}) g LEFT JOIN LATERAL (
  SELECT * FROM {s}.ai_spend_rollups r
  WHERE r.organization_id = g.organization_id AND r.grain = 'month'
    AND r.starts_on = (SELECT starts_on FROM month) AND r.group_id = g.id AND {reach} {after}
  ORDER BY r.user_id LIMIT :page_size
) r ON true
WHERE g.organization_id = :organization_id AND g.id = :group_id
ORDER BY r.user_id
"""
)

ORGANIZATION = (
    PERIOD
    + """
SELECT p.period_start, p.period_end, r.group_id, r.user_id, r.cost_picos, r.calls, r.unpriced_calls
FROM period p LEFT JOIN {s}.ai_spend_rollups r
  ON r.organization_id = :organization_id AND r.grain = 'month'
  AND r.starts_on = (SELECT starts_on FROM month)
ORDER BY r.group_id, r.user_id
"""
)


class Period(NamedTuple):
    """A calendar month of the configured zone: from `start` until just before `end`."""

    start: datetime
    end: datetime


class Sum(NamedTuple):
    """What calls cost together, in picos; `unpriced_calls` of the `calls` have no cost."""

    cost_picos: int
    calls: int
    unpriced_calls: int


@dataclass(frozen=True, slots=True)
class MemberSpend:
    """A member's limit and spend in an organization; `limit_micros` None: no limit holds.

    `group_id` is the group that new spend is attributed to.
    """

    period: Period
    group_id: Id | None
    limit_micros: int | None
    limit_source: LimitSource | None
    spent_picos: int
    held_picos: int


@dataclass(frozen=True, slots=True)
class GroupSpend:
    """What was spent in a period and is attributed to a group."""

    period: Period
    group_id: Id
    sum: Sum


@dataclass(frozen=True, slots=True)
class Spender:
    """What a user spent that is attributed to a group (None: to the organization alone)."""

    group_id: Id | None
    user_id: Id
    sum: Sum


class SpendReports:
    """The reports of one layout. Each function sends one statement on the caller's connection.

    They never commit, roll back, close or SET anything.
    """

    def __init__(
        self,
        tables: Tables,
        directory: Directory,
        budget_object: ObjectType,
        rules: SpendRules | None = None,
        clock: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        """Prepare the statements. `clock` gives the time (with its zone), None: the database's.

        `budget_object` is what the policy must allow to read: the group, or `group_ai_budget`.
        """
        rules = rules or SpendRules()
        self._budget_object = budget_object
        self._time_zone, self._clock = rules.time_zone, clock
        limits = Limits(tables, directory, rules.limit_rule)
        groups = directory.groups
        parts = {
            "groups": write(sa.select(groups.c.id, groups.c.organization_id)),
            "is_member": limits.is_member,
            "effective": limits.effective,
        }

        def make(template: str, **more: str) -> sa.Executable:
            return prepare(template, tables.layout, **parts, **more)

        self._member = make(MEMBER)
        self._group = make(GROUPS, which=GROUP)
        self._groups = make_pages(make, GROUPS.replace("{which}", PAGE), "g.id")
        self._members = make_pages(make, MEMBERS, "r.user_id")
        self._organization = make(ORGANIZATION)

    def member(self, connection: Connection, grant: Grant, member: Member) -> MemberSpend:
        """Tell a member's limit, what set it, and their spend. Needs a grant to `read` it.

        What expired holds hold counts for nothing. Raises NotFound where the user is a member no
        longer.
        """
        require_grant(grant, Action.READ, member, connection.get_transaction())
        values = {
            "organization_id": member.organization_id,
            "user_id": member.user_id,
            **self._read_clock(),
        }
        row = connection.execute(self._member, values).one()
        if not row.is_member:
            raise NotFound("member")
        source = row.limit_source and LimitSource(row.limit_source)
        return MemberSpend(
            Period(row.period_start, row.period_end),
            row.group_id,
            row.spend_limit_micros,
            source,
            int(row.spent_picos),
            int(row.held_picos),
        )

    def group(self, connection: Connection, grant: Grant, group: Group) -> GroupSpend:
        """Tell what was spent that is attributed to the group. Needs a grant to `read` it.

        Raises NotFound where the group moved or went.
        """
        self._require(connection, grant, group)
        row = connection.execute(self._group, {**_key(group), **self._read_clock()}).one_or_none()
        if row is None:
            raise NotFound("group")
        return _read_group(row)

    def list_groups(
        self,
        connection: Connection,
        grant: ListGrant,
        organization: Organization,
        *,
        limit: int,
        after: Id | None = None,
    ) -> Sequence[GroupSpend]:
        """List the spend of the organization's groups by id, as far as the grant reaches.

        At most `limit`, those whose id is greater than `after`. Needs a list grant for `read`.
        """
        require_list_grant(
            grant, Action.READ, self._budget_object, organization, connection.get_transaction()
        )
        values = {"organization_id": organization.id, **self._read_page(grant, limit, after)}
        statement = self._groups[grant.allowed_elsewhere, after is None]
        return [_read_group(row) for row in connection.execute(statement, values)]

    def list_members(
        self,
        connection: Connection,
        grant: Grant,
        members: ListGrant,
        group: Group,
        *,
        limit: int,
        after: Id | None = None,
    ) -> tuple[Period, Sequence[Spender]]:
        """List who spent for the group, by user id, as far as the grant `members` reaches.

        At most `limit`, those whose id is greater than `after`. Needs a grant to `read` the group,
        and the list grant of `Policy.authorize_members`. Raises NotFound where the group moved or
        went.
        """
        self._require(connection, grant, group)
        self._require_members(connection, members, Organization(group.organization_id))
        values = {**_key(group), **self._read_page(members, limit, after)}
        statement = self._members[members.allowed_elsewhere, after is None]
        rows = connection.execute(statement, values).all()
        if not rows:
            raise NotFound("group")
        spenders = [
            Spender(group.id, row[2], _read_sum(row[3:])) for row in rows if row[2] is not None
        ]
        return Period(rows[0].period_start, rows[0].period_end), spenders

    def list_organization(
        self,
        connection: Connection,
        members: ListGrant,
        organization: Organization,
        *,
        at: datetime | None = None,
    ) -> tuple[Period, Sequence[Spender]]:
        """List all spend of the calendar month that `at` (None: now) is in, by group and user.

        Needs a list grant of `Policy.authorize_members` that reaches everyone.
        """
        self._require_members(connection, members, organization)
        if members.exceptions or not members.allowed_elsewhere:
            raise GrantRefused("the grant does not reach every member of the organization")
        values = {"organization_id": organization.id, **self._read_clock()}
        rows = connection.execute(self._organization, {**values, "now": at or values["now"]}).all()
        spenders = [
            Spender(row[2], row[3], _read_sum(row[4:])) for row in rows if row[3] is not None
        ]
        return Period(rows[0].period_start, rows[0].period_end), spenders

    def _require(self, connection: Connection, grant: Grant, group: Group) -> None:
        asked = Group(group.id, group.organization_id, self._budget_object)
        require_grant(grant, Action.READ, asked, connection.get_transaction())

    def _require_members(
        self, connection: Connection, members: ListGrant, organization: Organization
    ) -> None:
        require_list_grant(
            members,
            Action.READ,
            ObjectType.AI_MEMBER_SPEND,
            organization,
            connection.get_transaction(),
        )

    def _read_page(self, grant: ListGrant, limit: int, after: Id | None) -> dict[str, Any]:
        position = {} if after is None else {"after": after}
        return {
            "exceptions": list(grant.exceptions),
            "page_size": limit,
            **position,
            **self._read_clock(),
        }

    def _read_clock(self) -> dict[str, Any]:
        return {"now": self._clock(), "time_zone": self._time_zone}


def _key(group: Group) -> dict[str, Any]:
    return {"group_id": group.id, "organization_id": group.organization_id}


def _read_sum(values: Sequence[Any]) -> Sum:
    return Sum(*map(int, values))


def _read_group(row: Row[Any]) -> GroupSpend:
    start, end, group_id, *sums = tuple(row)
    return GroupSpend(Period(start, end), group_id, _read_sum(sums))
