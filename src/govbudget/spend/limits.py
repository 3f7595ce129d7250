"""Which limit holds for a member: one SQL text, for admission and every report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from govbudget.db.governed import describe_groups
from govbudget.db.sql import quote, write
from govbudget.db.tables import id_sql_type
from govbudget.settings import LimitRule, Unpriced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from govbudget.db.gov import Gov


def describe_limits(gov: Gov) -> Mapping[str, object]:
    """Give the parts about a member of an organization, as SQL over `i`.

    `i` is whatever has the columns `organization_id` and `user_id`.

    - `{groups}`: the groups as the directory has them.
    - `{is_member}`: whether the user is a member of the organization, and it is there.
    - `{memberships}`: the groups of the organization that the user belongs to.
    - `{effective}`: the limit that holds, and the group that spend is attributed to; one row, or
      none: unlimited, and for whoever is not a member.
    - `{allows_unpriced}`: whether a call is let through whose cost is not wholly known.

    1. The member's override, while the member belongs to the group that it names; else
    2. the budgets of the organization's groups that the member belongs to, Everyone included: the
       highest (or lowest) limit, and of equal ones the smaller group id; else
    3. none: unlimited, attributed to the Everyone group, where there is one.
    """
    directory, layout = gov.directory, gov.settings.layout
    groups, members = directory.groups, directory.group_members
    everybody = directory.organization_members
    organization, user = (
        sa.literal_column(f"i.{name}", id_sql_type(layout))
        for name in ("organization_id", "user_id")
    )
    is_everyone = groups.c.get("is_everyone", sa.false())
    in_organization = sa.and_(
        everybody.c.organization_id == organization, everybody.c.user_id == user
    )
    is_member = sa.and_(
        sa.exists().where(in_organization),
        sa.exists().where(groups.c.organization_id == organization),
    )
    memberships = write(
        sa.union_all(
            sa.select(groups.c.id.label("group_id"), is_everyone.label("is_everyone"))
            .join_from(groups, members, members.c.group_id == groups.c.id)
            .where(groups.c.organization_id == organization, members.c.user_id == user),
            sa.select(groups.c.id, is_everyone)
            .join_from(groups, everybody, everybody.c.organization_id == groups.c.organization_id)
            .where(is_everyone, groups.c.organization_id == organization, in_organization),
        )
    )
    return {
        **describe_groups(gov),
        "is_member": write(is_member),
        "memberships": memberships,
        "allows_unpriced": gov.settings.unpriced is Unpriced.ALLOW,
        "effective": _EFFECTIVE.format(
            memberships=memberships,
            s=quote(layout.schema),
            order="DESC" if gov.settings.limit_rule is LimitRule.HIGHEST else "ASC",
        ),
    }


_EFFECTIVE = """
SELECT m.group_id,
       CASE WHEN o.group_id IS NOT NULL THEN o.spend_limit_micros ELSE b.spend_limit_micros END
         AS spend_limit_micros,
       CASE WHEN o.group_id IS NOT NULL THEN 'user_override'
            WHEN b.group_id IS NOT NULL THEN 'group' END AS limit_source
FROM ({memberships}) AS m
LEFT JOIN {s}.member_ai_overrides o
  ON o.organization_id = i.organization_id AND o.user_id = i.user_id AND o.group_id = m.group_id
LEFT JOIN {s}.group_ai_budgets b ON b.group_id = m.group_id
WHERE o.group_id IS NOT NULL OR b.group_id IS NOT NULL OR m.is_everyone
ORDER BY o.group_id IS NULL, b.group_id IS NULL, b.spend_limit_micros {order}, m.group_id
LIMIT 1
"""
