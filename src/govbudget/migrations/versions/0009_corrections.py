"""A row of usage may correct another one: its cost is then a signed difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from alembic.operations import Operations

    from govbudget.db.tables import Tables


revision = "0009"
down_revision = "0008"

CORRECTIONS = """
ALTER TABLE {s}.ai_usage
  ADD COLUMN corrects text, ADD COLUMN corrected_picos bigint, ADD COLUMN reason text,
  DROP CONSTRAINT ai_usage_cost_check,
  ADD CONSTRAINT ai_usage_cost_check CHECK (
    cost_picos <= 1000000000000000000
    AND corrected_picos BETWEEN 0 AND 1000000000000000000
    AND cost_picos >= CASE WHEN corrects IS NULL THEN 0 ELSE -1000000000000000000 END
  );
CREATE UNIQUE INDEX ai_usage_organization_id_corrects_idx
  ON {s}.ai_usage (organization_id, corrects) WHERE corrects IS NOT NULL
"""


def upgrade(op: Operations, tables: Tables) -> None:
    """Add the columns, and let the cost of a correction be negative."""
    op.execute(CORRECTIONS.format(s=quote(tables.layout.schema)))
