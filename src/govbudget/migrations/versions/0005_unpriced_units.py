"""A hold and usage keep which units had no price; what is known of a cost counts from now on."""

from __future__ import annotations

from importlib import import_module

from alembic import context, op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNITS = ("input", "output", "cache_read", "cache_write")
LACKS_PRICE = import_module("govbudget.migrations.versions.0004_unpriced_and_overrides").LACKS_PRICE

# The costs of before stay as they were booked. A hold of before can't say which units it lacked.
UPGRADE = """
ALTER TABLE {s}.ai_holds ADD COLUMN unpriced text[];
ALTER TABLE {s}.ai_usage ADD COLUMN unpriced text[];
UPDATE {s}.ai_usage SET unpriced = array_remove(ARRAY[{units}], NULL) WHERE {lacks_price};
DROP INDEX {s}.ai_usage_unpriced_idx;
CREATE INDEX ai_usage_unpriced_idx ON {s}.ai_usage (provider, model) WHERE unpriced IS NOT NULL
"""
DOWNGRADE = """
DROP INDEX {s}.ai_usage_unpriced_idx;
ALTER TABLE {s}.ai_usage DROP COLUMN unpriced;
ALTER TABLE {s}.ai_holds DROP COLUMN unpriced;
CREATE INDEX ai_usage_unpriced_idx ON {s}.ai_usage (provider, model) WHERE {lacks_price}
"""


def upgrade() -> None:
    """Add the column to both, and say it of the usage that is there."""
    _change(UPGRADE)


def downgrade() -> None:
    """Take it back; what was booked stays as it is."""
    _change(DOWNGRADE)


def _change(template: str) -> None:
    schema = op.get_context().dialect.identifier_preparer.quote(
        context.config.attributes["layout"].schema
    )
    units = ", ".join(
        f"CASE WHEN {unit}_tokens > 0 AND {unit}_price IS NULL THEN '{unit}' END" for unit in UNITS
    )
    op.execute(template.format(s=schema, units=units, lacks_price=LACKS_PRICE))
