"""The statements that read the audit trail. Its entries are written with the changes."""

from __future__ import annotations

from govbudget.db.governed import GROUPS, Governed
from govbudget.identity import Action, Organization, PriceBook

PAST = ("at", "(l.at, l.id) < (:at, :entry_id)")
SHOWN = (
    *("l.id", "l.at", "l.organization_id", "l.object_type", "l.object_id"),
    *("l.before", "l.after", "l.receipt"),
)
# {where}: which entries; the newest first, those older than the position of the page before. The
# order names the organization, though there is one: so the index gives it where that is NULL, too.
PAGE = """
SELECT {{answer}} FROM {{s}}.audit_log l
WHERE {where} {{after}}
ORDER BY l.organization_id DESC, l.at DESC, l.id DESC LIMIT :page_size
"""

# An entry about one group is listed where the caller reaches it; one about none (a role, a member
# of the organization) where the caller reaches every group but some.
GROUP = """CASE l.object_type
  WHEN 'group_ai_budget' THEN l.object_id
  WHEN 'group_member' THEN {values} ->> 'group_id'
  WHEN 'member_ai_override' THEN {values} ->> 'group_id' END"""
REACHED = "coalesce({group} = ANY (CAST(:exceptions AS text[])), false) <> :allowed_elsewhere"
# An override may have named another group before.
WAS, IS = (
    REACHED.format(group=GROUP.format(values=f"coalesce({values})"))
    for values in ("l.before, l.after", "l.after, l.before")
)
LIST = Governed(
    "audit.list",
    Action.UPDATE,
    Organization,
    PAGE.format(where=f"l.organization_id = :organization_id AND {WAS} AND {IS}"),
    SHOWN,
    reach=GROUPS,
    past=PAST,
)

LIST_SITE = Governed(
    "audit.list_site",
    Action.UPDATE,
    PriceBook,
    PAGE.format(where="l.organization_id IS NULL"),
    SHOWN,
    past=PAST,
)
