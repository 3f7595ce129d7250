"""The statements of budgets, prepared once: what is asked of the database, and nothing else.

Every statement starts from the group's row, by its id and the organization that was authorized. So
one that runs after the group moved or went touches nothing, and says so: it gives no row at all.
Where the group is there and nothing was changed, it gives a row of NULLs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from govbudget.audit.entry import CASCADE
from govbudget.sql import make_pages, prepare, write

if TYPE_CHECKING:
    from sqlalchemy import FromClause

    from govbudget.tables import Tables

SHOWN = ("group_id", "spend_limit_micros", "created_at", "updated_at", "revision")
OF_B = tuple(f"b.{name}" for name in SHOWN)
B_SHOWN = ", ".join(OF_B)
FOUND = ("a.id", *OF_B)
CHANGED = ("a.id", *(f"c.{name}" for name in SHOWN))

AUTHORIZED = """
WITH authorized AS (
  SELECT g.id FROM ({groups}) g WHERE g.id = :group_id AND g.organization_id = :organization_id
)"""

GET = f"""{AUTHORIZED}
SELECT {{answer}} FROM authorized a LEFT JOIN {{s}}.group_ai_budgets b ON b.group_id = a.id
"""

# updated_at is always later than it was, even twice within one transaction.
CHANGE = """
    SET spend_limit_micros = :limit, revision = :revision, receipt = :receipt,
        updated_at = greatest(statement_timestamp(), b.updated_at + interval '1 microsecond')
"""
INSERT = """
  INSERT INTO {s}.group_ai_budgets AS b
    (group_id, spend_limit_micros, revision, created_at, updated_at, receipt)
  SELECT id, CAST(:limit AS bigint), CAST(:revision AS uuid), statement_timestamp(),
         statement_timestamp(), CAST(:receipt AS jsonb)
  FROM authorized
"""
UNWANTED = "b.revision = ANY (:must_not_be)"
TARGET = f"""
  WHERE b.group_id = a.id AND (:any_revision OR b.revision = ANY (:must_be)) AND NOT {UNWANTED}
"""
# {change}: sets the limit of what is there or not there, only of nothing, only of something.
SET = f"""{AUTHORIZED}, c AS ({{change}} RETURNING {B_SHOWN})
SELECT {{answer}} FROM authorized a LEFT JOIN c ON true
"""
UPSERT = f"{INSERT} ON CONFLICT (group_id) DO UPDATE {CHANGE} WHERE NOT {UNWANTED}"
CREATE = f"{INSERT} ON CONFLICT (group_id) DO NOTHING"
REPLACE = f"UPDATE {{s}}.group_ai_budgets b {CHANGE} FROM authorized a {TARGET}"

# A deleted row can't carry its receipt to the trigger: the entry is written here.
ENTRY = """
  INSERT INTO {s}.audit_log
    (organization_id, object_type, object_id, before, receipt, deleted_revision)
"""
BEFORE = "jsonb_build_object('spend_limit_micros', spend_limit_micros)"
DELETE = f"""{AUTHORIZED}, c AS (
  DELETE FROM {{s}}.group_ai_budgets b USING authorized a {TARGET} RETURNING {B_SHOWN}
), entry AS ({ENTRY}
  SELECT CAST(:organization_id AS {{id}}), 'group_ai_budget', group_id::text, {BEFORE},
         CAST(:receipt AS jsonb), revision
  FROM c
)
SELECT {{answer}} FROM authorized a LEFT JOIN c ON true
"""
EXISTED = "EXISTS (SELECT FROM {s}.group_ai_budgets b WHERE b.group_id = a.id) AS existed"

ORPHANED = "WHERE NOT EXISTS (SELECT FROM ({groups}) g WHERE g.id = o.group_id) RETURNING o.*"
NOBODY = f"jsonb_build_object('actor', NULL, 'cause', '{CASCADE}', 'organization_id', {{place}})"
DELETE_ORPHANS = f"""
WITH budgets AS (
  DELETE FROM {{s}}.group_ai_budgets o {ORPHANED}
), overrides AS (
  DELETE FROM {{s}}.member_ai_overrides o {ORPHANED}
), gone AS (
  SELECT CAST(receipt ->> 'organization_id' AS {{id}}) AS place, 'group_ai_budget' AS object_type,
         group_id AS object_id, {BEFORE} AS before, revision
  FROM budgets
  UNION ALL
  SELECT organization_id, 'member_ai_override', user_id,
         jsonb_build_object('group_id', group_id) || {BEFORE}, revision
  FROM overrides
), entry AS ({ENTRY}
  SELECT place, object_type, object_id::text, before, {NOBODY.format(place="place::text")}, revision
  FROM gone
)
SELECT count(*) FROM gone
"""

PAGE = """
SELECT {answer} FROM ({groups}) g JOIN {s}.group_ai_budgets b ON b.group_id = g.id
WHERE g.organization_id = :organization_id AND {reach} {after}
ORDER BY g.id LIMIT :page_size
"""


class BudgetStatements:
    """The statements over one layout's tables and one directory's groups."""

    def __init__(self, tables: Tables, groups: FromClause) -> None:
        found = write(sa.select(groups.c.id, groups.c.organization_id))

        def make(template: str, *answer: str, **parts: str) -> sa.Executable:
            return prepare(template, tables.layout, answer, groups=found, **parts)

        self.get = make(GET, *FOUND)
        self.upsert, self.create, self.replace = (
            make(SET.replace("{change}", change), *CHANGED) for change in (UPSERT, CREATE, REPLACE)
        )
        self.delete = make(DELETE, *CHANGED, EXISTED)
        self.delete_orphans = make(DELETE_ORPHANS)
        self.pages = make_pages(lambda page, **parts: make(page, *OF_B, **parts), PAGE, "g.id")
