"""What was spent this month: read by key from counters and rollups, never from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row

from govbudget.authz.authorize import ObjectT
from govbudget.budgets.budget import LimitSource
from govbudget.db.governed import GROUPS, MEMBERS, Governed
from govbudget.db.sql import read_time
from govbudget.db.unit import Grant
from govbudget.errors import NotFound
from govbudget.identity import Action, Group, Id, Member, ObjectType, Organization
from govbudget.money import round_up_to_micros
from govbudget.spend.limits import describe_limits
from govbudget.spend.report import Sum, ask
from govbudget.spend.statements import NOW, find_start, take

NEXT_MONTH = "(starts_on + interval '1 month')"
# The period that the time is in, and its bounds.
PERIOD = f"""month AS (
  SELECT date_trunc('month', timezone({{zone}}, {NOW}))::date AS starts_on
), period AS (
  SELECT starts_on, {read_time(find_start("starts_on"), "period_start")},
         {read_time(find_start(NEXT_MONTH), "period_end")}
  FROM month
)"""


# Before the names that a statement makes, of which a host's table may have one.
GROUPS_FIRST = "govbudget_groups AS ({groups})"


def govern_report(
    name: str,
    kind: type[ObjectT],
    text: str,
    reach: ObjectType | None = None,
    column: str = "",
    *,
    first: str = GROUPS_FIRST,
) -> Governed[ObjectT]:
    """Make the statement of a report, which needs the right to `read`; `first` are CTEs."""
    text = f"WITH {first}, {PERIOD}{text}"
    return Governed(name, Action.READ, kind, text, (), reach, column, parts=describe_limits)


# Of a member `i` in the period `p`: the limit that holds and what set it, what is spent and held.
OF_MEMBER = f"""p.period_start, p.period_end, i.organization_id, i.user_id, e.group_id,
       e.spend_limit_micros, e.limit_source, {read_time("e.limit_expires_at", "limit_expires_at")},
       coalesce(c.spent_picos, 0) AS spent_picos,
       coalesce(c.held_picos, 0) - (
         SELECT coalesce(sum(h.cost_picos), 0) FROM {{s}}.ai_holds h
         WHERE h.organization_id = i.organization_id AND h.user_id = i.user_id
           AND h.period = (SELECT starts_on FROM month) AND h.is_open AND h.expires_at <= {NOW}
       ) AS held_picos"""
LIMITED = """LEFT JOIN LATERAL ({effective}) e ON i.user_id IS NOT NULL
LEFT JOIN {s}.ai_spend_counters c
  ON c.organization_id = i.organization_id AND c.user_id = i.user_id
  AND c.period = (SELECT starts_on FROM month)"""
MEMBER = govern_report(
    "reports.member",
    Member,
    f"""
, {take("organization_id", "user_id", "now")}
SELECT {OF_MEMBER}, {{is_member}} AS is_member
FROM period p, input i
{LIMITED}
""",
    first="{directory}",
)

# What counts for the group `g`.
SPENT = """
  SELECT coalesce(sum(r.cost_picos), 0) AS cost_picos, coalesce(sum(r.calls), 0) AS calls,
         coalesce(sum(r.unpriced_calls), 0) AS unpriced_calls
  FROM {s}.ai_spend_rollups r
  WHERE r.organization_id = g.organization_id AND r.grain = 'month'
    AND r.starts_on = (SELECT starts_on FROM month) AND r.group_id = g.id"""


def _report_groups(which: str) -> str:
    """Write the report of `which` groups of the organization, or a row of none."""
    return f"""
SELECT p.period_start, p.period_end, g.id, b.spend_limit_micros, s.cost_picos, s.calls,
       s.unpriced_calls
FROM period p LEFT JOIN LATERAL (
  SELECT g.* FROM govbudget_groups g WHERE g.organization_id = :organization_id AND {which}
) g ON true
LEFT JOIN {{s}}.group_ai_budgets b ON b.group_id = g.id
LEFT JOIN LATERAL ({SPENT}) s ON true
ORDER BY g.id
"""


GROUP = govern_report("reports.group", Group, _report_groups("g.id = :group_id"))
GROUPS_PAGE = govern_report(
    "reports.groups",
    Organization,
    _report_groups("{reach} {after} ORDER BY g.id LIMIT :page_size"),
    GROUPS,
    "g.id",
)
MEMBERS_PAGE = govern_report(
    "reports.members",
    Group,
    """
SELECT p.period_start, p.period_end, g.id, r.user_id, r.cost_picos, r.calls, r.unpriced_calls
FROM period p, govbudget_groups g LEFT JOIN LATERAL (
  SELECT r.user_id, sum(r.cost_picos) AS cost_picos, sum(r.calls) AS calls,
         sum(r.unpriced_calls) AS unpriced_calls
  FROM {s}.ai_spend_rollups r
  WHERE r.organization_id = g.organization_id AND r.grain = 'month'
    AND r.starts_on = (SELECT starts_on FROM month) AND r.group_id = g.id AND {reach} {after}
  GROUP BY r.user_id ORDER BY r.user_id LIMIT :page_size
) r ON true
WHERE g.organization_id = :organization_id AND g.id = :group_id
ORDER BY r.user_id
""",
    MEMBERS,
    "r.user_id",
)


class Period(NamedTuple):
    """A calendar month of the configured zone: from `start` until just before `end`."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class MemberSpend:
    """A member's limit and spend in an organization; `limit_micros` None: no limit holds.

    `group_id` is the group that new spend is attributed to; `limit_expires_at` is when the override
    that sets the limit ends (None: it has no end, or a group sets the limit). Micros are picos
    rounded up; what is left is rounded down: nothing is shown that would not be admitted.

    In a list of a group's members `sum` is the group's part of it; in one of who crossed a
    threshold there is that one, in percent of the limit that held then.
    """

    organization_id: Id
    user_id: Id
    period: Period
    group_id: Id | None
    limit_micros: int | None
    limit_source: LimitSource | None
    spent_picos: int
    held_picos: int
    limit_expires_at: datetime | None = None
    sum: Sum | None = None
    threshold: int | None = None

    @property
    def spent_micros(self) -> int:
        """What settled and recorded calls cost in the period, rounded up."""
        return round_up_to_micros(self.spent_picos)

    @property
    def held_micros(self) -> int:
        """What calls under way may still cost, rounded up."""
        return round_up_to_micros(self.held_picos)

    @property
    def period_end(self) -> datetime:
        """When the whole limit is free again."""
        return self.period.end

    @property
    def left_micros(self) -> int | None:
        """What can still be held; None: no limit holds."""
        if self.limit_micros is None:
            return None
        used = round_up_to_micros(self.spent_picos + self.held_picos)
        return max(0, self.limit_micros - used)


@dataclass(frozen=True, slots=True)
class GroupSpend:
    """What was spent in a period and is attributed to a group; its limit (None: no budget)."""

    period: Period
    group_id: Id
    limit_micros: int | None
    sum: Sum


@dataclass(frozen=True, slots=True)
class Spender:
    """What a user spent that is attributed to a group (None: to the organization alone)."""

    group_id: Id | None
    user_id: Id
    sum: Sum


class Reports:
    """The reports: one statement each, run by a grant. They never commit."""

    ask = staticmethod(ask)

    @staticmethod
    def member(grant: Grant[Member]) -> MemberSpend:
        """Report a member's limit, what set it, and their spend. Needs a grant to `read` it.

        What expired holds hold counts for nothing. Raises NotFound where the user is a member no
        longer.
        """
        row = grant.run(MEMBER).one()
        if not row.is_member:
            raise NotFound("member")
        return read_member(row)

    @staticmethod
    def group(grant: Grant[Group]) -> GroupSpend:
        """Report what was spent and is attributed to the group. Needs a grant to `read` it.

        Raises NotFound where the group moved or went.
        """
        _, found = _read_groups(grant.run(GROUP).all())
        if not found:
            raise NotFound("group")
        return found[0]

    @staticmethod
    def list_groups(
        grant: Grant[Organization], *, limit: int, after: Id | None = None
    ) -> Sequence[GroupSpend]:
        """List the spend of the organization's groups by id, as far as the grant reaches.

        At most `limit`, those whose id is greater than `after`. Needs a grant to `read` the
        organization.
        """
        return list_groups(grant, limit=limit, after=after)[1]

    @staticmethod
    def list_members(
        grant: Grant[Group], *, limit: int, after: Id | None = None
    ) -> tuple[Period, Sequence[Spender]]:
        """List who spent for the group, by user id: those whose spend the caller may read, too.

        At most `limit`, those whose id is greater than `after`. Needs a grant to `read` the group.
        Raises NotFound where the group moved or went, Forbidden where the caller may read nobody's
        spend.
        """
        rows = grant.run(MEMBERS_PAGE, page_size=limit, after=after).all()
        if not rows:
            raise NotFound("group")
        found = [
            Spender(row.id, row.user_id, read_sum(row)) for row in rows if row.user_id is not None
        ]
        return _read_period(rows[0]), found


def list_groups(
    grant: Grant[Organization], *, limit: int, after: Id | None = None
) -> tuple[Period, Sequence[GroupSpend]]:
    """Do as `Reports.list_groups`, and give the period, too."""
    return _read_groups(grant.run(GROUPS_PAGE, page_size=limit, after=after).all())


def _read_groups(rows: Sequence[Row[Any]]) -> tuple[Period, Sequence[GroupSpend]]:
    period = _read_period(rows[0])
    found = [
        GroupSpend(period, row.id, row.spend_limit_micros, read_sum(row))
        for row in rows
        if row.id is not None
    ]
    return period, found


def read_member(row: Row[Any], **more: Any) -> MemberSpend:  # noqa: ANN401 - its further fields
    """Read the row of a member, as `OF_MEMBER` has it."""
    return MemberSpend(
        row.organization_id,
        row.user_id,
        _read_period(row),
        row.group_id,
        row.spend_limit_micros,
        row.limit_source and LimitSource(row.limit_source),
        row.spent_picos,
        row.held_picos,
        row.limit_expires_at,
        **more,
    )


def _read_period(row: Row[Any]) -> Period:
    return Period(row.period_start, row.period_end)


def read_sum(row: Row[Any]) -> Sum:
    """Read what calls cost together."""
    return Sum(row.cost_picos, row.calls, row.unpriced_calls)
