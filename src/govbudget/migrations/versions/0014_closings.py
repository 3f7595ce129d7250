"""Months can be closed; usage says which closed month it came too late for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from alembic.operations import Operations

    from govbudget.db.tables import Tables


revision = "0014"
down_revision = "0013"

CLOSINGS = """
ALTER TABLE {s}.ai_usage ADD COLUMN late_for date;
CREATE TABLE {s}.ai_closings (
  month date NOT NULL CONSTRAINT ai_closings_pkey PRIMARY KEY,
  started_at timestamptz NOT NULL DEFAULT now(),
  file jsonb,
  sums jsonb,
  closed_at timestamptz
)
"""


def upgrade(op: Operations, tables: Tables) -> None:
    """Add the column and the table; its function is made after all migrations."""
    op.execute(CLOSINGS.format(s=quote(tables.layout.schema)))
