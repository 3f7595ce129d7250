"""Holds and usage say whose price they have, where a rule found it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from alembic.operations import Operations

    from govbudget.db.tables import Tables


revision = "0010"
down_revision = "0009"


def upgrade(op: Operations, tables: Tables) -> None:
    """Add the column. What is there had prices of its own name alone."""
    schema = quote(tables.layout.schema)
    for table in ("ai_holds", "ai_usage"):
        op.execute(f"ALTER TABLE {schema}.{table} ADD COLUMN priced_as text[]")
