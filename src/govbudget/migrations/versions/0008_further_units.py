"""Holds and usage keep the whole price, and usage its counts of further units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from alembic.operations import Operations

    from govbudget.db.tables import Tables


revision = "0008"
down_revision = "0007"

FURTHER = """
ALTER TABLE {s}.ai_holds ADD COLUMN more jsonb;
ALTER TABLE {s}.ai_usage ADD COLUMN more jsonb, ADD COLUMN further_tokens jsonb
"""


def upgrade(op: Operations, tables: Tables) -> None:
    """Add the columns; the function that prices them is made after all migrations."""
    op.execute(FURTHER.format(s=quote(tables.layout.schema)))
