"""The open holds of a member are read in the order in which they expire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from alembic.operations import Operations

    from govbudget.db.tables import Tables


revision = "0011"
down_revision = "0010"

INDEX = """
DROP INDEX {s}.ai_holds_open_idx;
CREATE INDEX ai_holds_open_idx
  ON {s}.ai_holds (organization_id, user_id, period, expires_at) WHERE is_open
"""


def upgrade(op: Operations, tables: Tables) -> None:
    """Make the index anew. It has open holds alone, and so is small."""
    op.execute(INDEX.format(s=quote(tables.layout.schema)))
