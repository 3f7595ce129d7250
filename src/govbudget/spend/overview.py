"""What only pages list: a caller's organizations, members with their limits, who crossed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from govbudget.db.governed import MEMBERS, Governed, Ungoverned
from govbudget.db.unit import Grant, Unit
from govbudget.identity import Action, Assignment, Group, Id, ObjectType, Organization, Scope
from govbudget.spend.limits import describe_limits
from govbudget.spend.this_month import (
    LIMITED,
    OF_MEMBER,
    SPENT,
    MemberSpend,
    govern_report,
    read_member,
    read_sum,
)

IS_THERE = "EXISTS (SELECT FROM govbudget_groups g WHERE g.organization_id = {})"
# `every` takes one step of the index for an organization, however many groups that has.
ORGANIZATIONS = Ungoverned(
    "overview.organizations",
    "it shows the ids of the organizations that a role or a membership of the caller's reaches",
    f"""
WITH RECURSIVE {{directory}}, every (id) AS (
  (SELECT g.organization_id FROM govbudget_groups g
   WHERE :allowed_elsewhere AND :after IS NULL ORDER BY 1 LIMIT 1)
  UNION ALL
  (SELECT g.organization_id FROM govbudget_groups g
   WHERE :allowed_elsewhere AND g.organization_id > :after ORDER BY 1 LIMIT 1)
  UNION ALL
  SELECT (SELECT g.organization_id FROM govbudget_groups g WHERE g.organization_id > e.id
          ORDER BY 1 LIMIT 1)
  FROM every e WHERE e.id IS NOT NULL
), page AS (SELECT id FROM every WHERE id IS NOT NULL LIMIT :page_size)
SELECT id, bool_or(is_member) AS is_member, bool_or(is_page) AS is_page FROM (
  SELECT e.organization_id AS id, true AS is_member, false AS is_page FROM govbudget_everybody e
  WHERE e.user_id = :user_id AND {IS_THERE.format("e.organization_id")}
  UNION ALL SELECT n.id, false, false FROM unnest(:named) n (id) WHERE {IS_THERE.format("n.id")}
  UNION ALL SELECT id, false, true FROM page
) found GROUP BY id ORDER BY id
""",
    describe_limits,
)

MEMBERS_PAGE = govern_report(
    "overview.members",
    Group,
    f"""
SELECT {OF_MEMBER}, s.cost_picos, s.calls, s.unpriced_calls
FROM period p
JOIN govbudget_groups g ON g.id = :group_id AND g.organization_id = :organization_id
LEFT JOIN LATERAL (
  SELECT g.organization_id, m.user_id, :now AS now FROM (
    (SELECT m.user_id FROM govbudget_members m
     WHERE m.group_id = g.id AND NOT g.is_everyone AND {{reach}} {{after}}
     ORDER BY m.user_id LIMIT :page_size)
    UNION ALL
    (SELECT m.user_id FROM govbudget_everybody m
     WHERE m.organization_id = g.organization_id AND g.is_everyone AND {{reach}} {{after}}
     ORDER BY m.user_id LIMIT :page_size)
  ) m
) i ON true
{LIMITED}
LEFT JOIN LATERAL ({SPENT} AND r.user_id = i.user_id) s ON true
ORDER BY i.user_id
""",
    MEMBERS,
    "m.user_id",
    first="{directory}",
)
OF_MONTH = """FROM {s}.ai_notices i
  WHERE i.organization_id = :organization_id AND i.period = (SELECT starts_on FROM month)
    AND {reach} AND {is_member}"""


def _list_crossed(name: str, which: str, same: str, order: str) -> Governed[Organization]:
    """Write the statement that lists members by their notices of this month, as they are now.

    Of the `same` notices of a member, the last of the highest threshold. Sums keep that look-up
    from the indexes that have such an order, and would be read for many members to find one.
    """
    return govern_report(
        f"overview.{name}",
        Organization,
        f"""
SELECT {OF_MEMBER}, i.threshold
FROM period p CROSS JOIN (
  SELECT i.organization_id, i.user_id, i.threshold, :now AS now {OF_MONTH} AND {which} AND i.id = (
    SELECT h.id FROM {{s}}.ai_notices h
    WHERE h.organization_id = i.organization_id AND h.user_id = i.user_id
      AND {same}
    ORDER BY h.threshold + 0 DESC, h.id DESC LIMIT 1)
  ORDER BY {order} LIMIT :page_size
) i
{LIMITED}
ORDER BY {order}
""",
        MEMBERS,
        "i.user_id",
        first="{directory}",
    )


# Only the first few: whom it skips is among these.
HIGHEST = _list_crossed(
    "highest", "true", "h.period + 0 = i.period", "i.threshold DESC, i.user_id DESC"
)
CROSSED_PAGE = _list_crossed(
    "crossed",
    "i.threshold = :threshold {after}",
    "h.period = i.period AND h.threshold = i.threshold",
    "i.user_id",
)
# More than so many of a group are not counted.
MOST = 100
CROSSINGS = govern_report(
    "overview.crossings",
    Organization,
    f"""
SELECT g.id, t.percent, count(*) AS members
FROM unnest(:named) g (id), unnest({{thresholds}}) t (percent), LATERAL (
  SELECT DISTINCT i.user_id {OF_MONTH} AND i.group_id = g.id AND i.threshold = t.percent
  LIMIT {MOST}
) n
GROUP BY g.id, t.percent ORDER BY g.id, t.percent DESC
""",
    MEMBERS,
    "i.user_id",
    first="{directory}",
)


@dataclass(frozen=True, slots=True)
class OrganizationLine:
    """An organization that a caller may look at; `is_listed`: it is of the page of all."""

    id: Id
    is_member: bool
    is_listed: bool


def list_organizations(
    unit: Unit, held: Sequence[Assignment], *, limit: int, after: Id | None = None
) -> list[OrganizationLine]:
    """List the organizations of the unit's caller by id: memberships, and where a role is held.

    A role of the site that may read budgets or spend reaches every one: at most `limit` of these,
    those whose id is greater than `after`. One statement; never commits.
    """
    table, scopes = unit.table, unit.table.scopes
    of_site = [role for role, domain in held if domain.scope == scopes.get(role) == Scope.SITE]
    reads_all = any(
        table.decide(of_site, kind, Action.READ).allowed
        for kind in (table.asked_as(ObjectType.GROUP), ObjectType.AI_MEMBER_SPEND)
    )
    domains = [domain for role, domain in held if scopes.get(role) == domain.scope]
    values = {
        "user_id": unit.caller,
        "named": [domain.id for domain in domains if domain.scope == Scope.ORGANIZATION],
        "allowed_elsewhere": reads_all,
    }
    gov = unit.gov
    rows = gov.execute(unit.connection, ORGANIZATIONS, **values, page_size=limit, after=after)
    return [OrganizationLine(row.id, row.is_member, row.is_page) for row in rows]


def list_members(grant: Grant[Group], *, limit: int, after: Id | None = None) -> list[MemberSpend]:
    """List the group's members by id with their limit and spend: those whose the caller may read.

    Needs a grant to `read` the group; Forbidden where the caller may read nobody's. One statement;
    never commits.
    """
    rows = grant.run(MEMBERS_PAGE, page_size=limit, after=after).all()
    return [read_member(row, sum=read_sum(row)) for row in rows if row.user_id is not None]


def list_highest(grant: Grant[Organization], *, limit: int) -> list[MemberSpend]:
    """List the first `limit` members by the highest threshold that they crossed this month.

    Each as limit and spend are now; those whose spend the caller may read. Needs a grant to `read`
    the organization; Forbidden where the caller may read nobody's. One statement; never commits.
    """
    return [
        read_member(row, threshold=row.threshold) for row in grant.run(HIGHEST, page_size=limit)
    ]


def list_crossed(
    grant: Grant[Organization], threshold: int, *, limit: int, after: Id | None = None
) -> list[MemberSpend]:
    """List the members who crossed the threshold this month by id; the rest as `list_highest`."""
    rows = grant.run(CROSSED_PAGE, threshold=threshold, page_size=limit, after=after)
    return [read_member(row, threshold=row.threshold) for row in rows]


def count_crossings(
    grant: Grant[Organization], groups: Sequence[Id]
) -> dict[Id, list[tuple[int, int]]]:
    """Count who crossed each threshold this month, of limits that these groups set, up to `MOST`.

    Gives pairs of a threshold and a number, the highest threshold first, and a lower one where more
    members crossed it; counts those whose spend the caller may read. Needs what `list_highest`
    needs. One statement; never commits.
    """
    found: dict[Id, list[tuple[int, int]]] = {}
    for group, threshold, members in grant.run(CROSSINGS, named=list(groups)):
        of_group = found.setdefault(group, [])
        if not of_group or members > of_group[-1][1]:
            of_group.append((threshold, members))
    return found
