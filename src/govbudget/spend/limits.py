"""Which limit holds for a member: one SQL text, for admission and every report."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from govbudget.db.gov import Gov
from govbudget.db.governed import describe_groups
from govbudget.db.sql import write
from govbudget.db.triggers import quote
from govbudget.directory.protocol import Directory
from govbudget.settings import LimitRule, Unpriced


def describe_limits(gov: Gov) -> Mapping[str, object]:
    """Give the parts about a member of an organization, as SQL over `i`.

    `i` is whatever has the columns `organization_id` and `user_id`.

    - `{directory}`: CTEs of the directory, which the parts below name. They come first, and their
      names are nobody else's: what a host's own selects name is never one of our CTEs.
    - `{is_member}`: whether the user is a member of the organization, and it is there.
    - `{memberships}`: the groups of the organization that the user belongs to.
    - `{effective}`: the limit that holds, what set it, and the group that spend is attributed to;
      one row, or none: unlimited, and for whoever is not a member. There `i` has `now`, too.
    - `{zone}`: the time zone of periods; `{thresholds}`: the percents that make a notice.
    - `{allows_unpriced}`: whether a call is let through whose cost is not wholly known.

    1. The member's override, until it expires, and while the member belongs to the group that it
       names; else
    2. the budgets of the organization's groups that the member belongs to, Everyone included: the
       highest (or lowest) limit, and of equal ones the smaller group id; else
    3. none: unlimited, attributed to the Everyone group, where there is one.
    """
    settings = gov.settings
    effective = _EFFECTIVE.format(
        s=quote(settings.layout.schema),
        memberships=_MEMBERSHIPS,
        order="DESC" if settings.limit_rule is LimitRule.HIGHEST else "ASC",
    )
    return {
        **describe_groups(gov),
        "directory": _write_directory(gov.directory),
        "is_member": _IS_MEMBER,
        "memberships": _MEMBERSHIPS,
        "zone": write(sa.literal(settings.time_zone, sa.Text())),
        "thresholds": f"CAST('{{{','.join(map(str, settings.thresholds))}}}' AS integer[])",
        "allows_unpriced": settings.unpriced is Unpriced.ALLOW,
        "effective": effective,
    }


def _write_directory(directory: Directory) -> str:
    """Write the CTEs; each is planned as if it were written where it is named."""
    groups, members = directory.groups.alias("g"), directory.group_members.alias("m")
    everybody = directory.organization_members.alias("e")
    is_everyone = groups.c.get("is_everyone", sa.false()).label("is_everyone")
    selects = {
        "groups": sa.select(groups.c.id, groups.c.organization_id, is_everyone),
        "members": sa.select(members.c.group_id, members.c.user_id),
        "everybody": sa.select(everybody.c.organization_id, everybody.c.user_id),
    }
    return ", ".join(
        f"govbudget_{name} AS NOT MATERIALIZED ({write(select)})"
        for name, select in selects.items()
    )


_IS_MEMBER = """
EXISTS (SELECT FROM govbudget_everybody e
        WHERE e.organization_id = i.organization_id AND e.user_id = i.user_id)
AND EXISTS (SELECT FROM govbudget_groups g WHERE g.organization_id = i.organization_id)
"""
_MEMBERSHIPS = """
SELECT g.id AS group_id, g.is_everyone
FROM govbudget_groups g JOIN govbudget_members m ON m.group_id = g.id
WHERE g.organization_id = i.organization_id AND m.user_id = i.user_id
UNION ALL
SELECT g.id, g.is_everyone FROM govbudget_groups g, govbudget_everybody e
WHERE g.is_everyone AND g.organization_id = i.organization_id
  AND e.organization_id = i.organization_id AND e.user_id = i.user_id
"""
_EFFECTIVE = """
SELECT m.group_id,
       CASE WHEN o.group_id IS NULL THEN b.spend_limit_micros ELSE o.spend_limit_micros END
         AS spend_limit_micros,
       CASE WHEN o.group_id IS NOT NULL THEN 'user_override'
            WHEN b.group_id IS NOT NULL THEN 'group' END AS limit_source,
       o.expires_at AS limit_expires_at
FROM ({memberships}) m
LEFT JOIN {s}.member_ai_overrides o
  ON (o.organization_id, o.user_id, o.group_id) = (i.organization_id, i.user_id, m.group_id)
  AND coalesce(o.expires_at > coalesce(i.now, statement_timestamp()), true)
LEFT JOIN {s}.group_ai_budgets b ON b.group_id = m.group_id
WHERE o.group_id IS NOT NULL OR b.group_id IS NOT NULL OR m.is_everyone
ORDER BY o.group_id IS NULL, b.group_id IS NULL, b.spend_limit_micros {order}, m.group_id
LIMIT 1
"""
