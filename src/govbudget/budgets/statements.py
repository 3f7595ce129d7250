"""The statements of budgets, prepared once: what is asked of the database, and nothing else.

Every statement starts from the group's row, by its id and the organization that was authorized. So
one that runs after the group moved or went touches nothing, and says so: it gives no row at all.
Where the group is there and has no budget, or nothing was changed, the rest of the row is NULLs.
"""

from __future__ import annotations

from govbudget.db.governed import GROUPS, Governed, Ungoverned, describe_groups
from govbudget.identity import Action, Cause, Group, Organization
from govbudget.new_ids import write_new_id

SHOWN = ("group_id", "spend_limit_micros", "created_at", "updated_at", "revision")
OF_B = tuple(f"b.{name}" for name in SHOWN)
B_SHOWN = ", ".join(OF_B)
FOUND, CHANGED = (
    ("a.id AS group_id", *(f"{of}.{name}" for name in SHOWN[1:])) for of in ("b", "c")
)

AUTHORIZED = """
WITH authorized AS (
  SELECT g.id FROM ({groups}) g WHERE g.id = :group_id AND g.organization_id = :organization_id
)"""

GET = Governed(
    "budgets.get",
    Action.READ,
    Group,
    f"""{AUTHORIZED}
SELECT {{answer}} FROM authorized a LEFT JOIN {{s}}.group_ai_budgets b ON b.group_id = a.id
""",
    FOUND,
    parts=describe_groups,
)

# updated_at is always later than it was, even twice within one transaction.
CHANGE = """
    SET spend_limit_micros = :limit, revision = :revision, receipt = :receipt,
        updated_at = greatest(statement_timestamp(), b.updated_at + interval '1 microsecond')
"""
INSERT = """
  INSERT INTO {s}.group_ai_budgets AS b
    (group_id, spend_limit_micros, revision, created_at, updated_at, receipt)
  SELECT id, :limit, :revision, statement_timestamp(),
         statement_timestamp(), :receipt
  FROM authorized
"""
UNWANTED = "b.revision = ANY (:must_not_be)"
TARGET = f"""
  WHERE b.group_id = a.id AND (:any_revision OR b.revision = ANY (:must_be)) AND NOT {UNWANTED}
"""


def _set(name: str, change: str) -> Governed[Group]:
    """Make the statement that sets the limit of what the change changes."""
    text = f"""{AUTHORIZED}, c AS ({change} RETURNING {B_SHOWN})
SELECT {{answer}} FROM authorized a LEFT JOIN c ON true
"""
    return Governed(name, Action.UPDATE, Group, text, CHANGED, parts=describe_groups)


# Of what is there or not there, only of nothing, only of something.
SET = _set(
    "budgets.set", f"{INSERT} ON CONFLICT (group_id) DO UPDATE {CHANGE} WHERE NOT {UNWANTED}"
)
CREATE = _set("budgets.create", f"{INSERT} ON CONFLICT (group_id) DO NOTHING")
REPLACE = _set(
    "budgets.replace", f"UPDATE {{s}}.group_ai_budgets b {CHANGE} FROM authorized a {TARGET}"
)

# A deleted row can't carry its receipt to the trigger: the entry is written here.
ENTRY = """
  INSERT INTO {s}.audit_log
    (id, organization_id, object_type, object_id, before, receipt, deleted_revision)
"""
BEFORE = "jsonb_build_object('spend_limit_micros', spend_limit_micros)"
DELETE = Governed(
    "budgets.delete",
    Action.UPDATE,
    Group,
    f"""{AUTHORIZED}, c AS (
  DELETE FROM {{s}}.group_ai_budgets b USING authorized a {TARGET} RETURNING {B_SHOWN}
), entry AS ({ENTRY}
  SELECT {write_new_id(":organization_id")}, :organization_id, 'group_ai_budget',
         group_id::text, {BEFORE}, :receipt, revision
  FROM c
)
SELECT {{answer}} FROM authorized a LEFT JOIN c ON true
""",
    (*CHANGED, "EXISTS (SELECT FROM {s}.group_ai_budgets b WHERE b.group_id = a.id) AS existed"),
    parts=describe_groups,
)

PAGE = Governed(
    "budgets.list",
    Action.READ,
    Organization,
    """
SELECT {answer} FROM ({groups}) g JOIN {s}.group_ai_budgets b ON b.group_id = g.id
WHERE g.organization_id = :organization_id AND {reach} {after}
ORDER BY g.id LIMIT :page_size
""",
    OF_B,
    reach=GROUPS,
    column="g.id",
    parts=describe_groups,
)


def delete_orphans(name: str, table: str, *, entry: str) -> Ungoverned:
    """Make the statement that deletes what a table has of groups that are not there any more.

    `entry` gives, of a deleted row `o`: organization, object type, object id and values before.
    """
    return Ungoverned(
        name,
        "it touches nothing of a group that is there",
        f"""
WITH gone AS (
  DELETE FROM {{s}}.{table} o
  WHERE NOT EXISTS (SELECT FROM ({{groups}}) g WHERE g.id = o.group_id) RETURNING o.*
), entry AS ({ENTRY}
  SELECT {write_new_id("organization_id")}, organization_id, object_type, object_id::text, before,
         jsonb_build_object('actor', NULL, 'cause', '{Cause.CASCADE}',
                            'organization_id', organization_id::text),
         revision
  FROM (SELECT {entry}, revision FROM gone o) e
)
SELECT count(*) FROM gone
""",
        describe_groups,
    )


DELETE_ORPHANS = delete_orphans(
    "budgets.delete_orphans",
    "group_ai_budgets",
    entry=f"""CAST(receipt ->> 'organization_id' AS {{id}}) AS organization_id,
          'group_ai_budget' AS object_type, group_id AS object_id, {BEFORE} AS before""",
)
