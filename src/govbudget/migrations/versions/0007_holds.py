"""A hold says how it ended, and what was asked where its caller chose its id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from alembic.operations import Operations

    from govbudget.db.tables import Tables


revision = "0007"
down_revision = "0006"

# Of an earlier hold that is not open it is not known whether it expired or was released, unless it
# could not have expired yet.
ENDED = """
ALTER TABLE {s}.ai_holds ADD COLUMN body_digest uuid, ADD COLUMN ended text;
UPDATE {s}.ai_holds h SET ended = CASE WHEN EXISTS (
    SELECT FROM {s}.ai_usage u WHERE u.hold_id = h.id
  ) THEN 'settled' WHEN expires_at > now() THEN 'released' END
WHERE NOT is_open
"""


def upgrade(op: Operations, tables: Tables) -> None:
    """Add both columns."""
    op.execute(ENDED.format(s=quote(tables.layout.schema)))
