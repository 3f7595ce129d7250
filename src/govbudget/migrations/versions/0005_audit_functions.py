"""Units without a price are kept, audit entries are complete, and the audit functions are new."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.tables import COMPLETE_RECEIPT, READABLE_ENTRY, Tables
from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from alembic.operations import Operations


revision = "0005"
down_revision = "0004"

UNITS = ("input", "output", "cache_read", "cache_write")

# Earlier costs stay as they were recorded. An earlier hold can't say which units had no price.
UNPRICED = """
ALTER TABLE {s}.ai_holds ADD COLUMN unpriced text[];
ALTER TABLE {s}.ai_usage ADD COLUMN unpriced text[];
UPDATE {s}.ai_usage SET unpriced = array_remove(ARRAY[{units}], NULL) WHERE {lacks_price};
DROP INDEX {s}.ai_usage_unpriced_idx;
CREATE INDEX ai_usage_unpriced_idx ON {s}.ai_usage (provider, model) WHERE unpriced IS NOT NULL
"""
# An entry from before that is incomplete stays, as entries can't be changed.
CHECK = """
ALTER TABLE {s}.audit_log ADD CONSTRAINT audit_log_{name}_check CHECK ({check}) NOT VALID;
DO $$ BEGIN
  ALTER TABLE {s}.audit_log VALIDATE CONSTRAINT audit_log_{name}_check;
EXCEPTION WHEN check_violation THEN NULL;
END $$
"""
FUNCTIONS = (
    *("record_budget_change", "record_budget_truncate"),
    *("record_override_change", "record_override_truncate"),
    *("record_price_inserts", "record_price_updates", "record_price_deletes"),
    "record_price_truncate",
)


def upgrade(op: Operations, tables: Tables) -> None:
    """Add both, and drop what recorded changes: its successor is made after all migrations."""
    schema = quote(tables.layout.schema)
    lacks = {unit: f"{unit}_tokens > 0 AND {unit}_price IS NULL" for unit in UNITS}
    units = ", ".join(f"CASE WHEN {lack} THEN '{unit}' END" for unit, lack in lacks.items())
    op.execute(UNPRICED.format(s=schema, units=units, lacks_price=" OR ".join(lacks.values())))
    for name, check in {"receipt": COMPLETE_RECEIPT, "readable": READABLE_ENTRY}.items():
        op.execute(CHECK.format(s=schema, name=name, check=check))
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {schema}.{function}() CASCADE")
