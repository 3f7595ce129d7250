"""An override may end, and says why it was set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from alembic.operations import Operations

    from govbudget.db.tables import Tables


revision = "0012"
down_revision = "0011"

OVERRIDES = (
    "ALTER TABLE {s}.member_ai_overrides ADD COLUMN expires_at timestamptz, ADD COLUMN reason text"
)


def upgrade(op: Operations, tables: Tables) -> None:
    """Add the columns. What is there has no end."""
    op.execute(OVERRIDES.format(s=quote(tables.layout.schema)))
