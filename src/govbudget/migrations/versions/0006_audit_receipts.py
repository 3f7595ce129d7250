"""An entry of the audit trail has a receipt that says who and why."""

from __future__ import annotations

from alembic import context, op

from govbudget.tables import COMPLETE_RECEIPT

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


CONSTRAINT = """
ALTER TABLE {s}.audit_log ADD CONSTRAINT audit_log_receipt_check CHECK ({check}) NOT VALID;
-- An entry from before that is incomplete stays, as entries can't be changed.
DO $$ BEGIN
  ALTER TABLE {s}.audit_log VALIDATE CONSTRAINT audit_log_receipt_check;
EXCEPTION WHEN check_violation THEN NULL;
END $$
"""


def upgrade() -> None:
    """Demand it of every new entry."""
    op.execute(CONSTRAINT.format(s=_quote_schema(), check=COMPLETE_RECEIPT))


def downgrade() -> None:
    """Demand nothing any more."""
    op.execute(f"ALTER TABLE {_quote_schema()}.audit_log DROP CONSTRAINT audit_log_receipt_check")


def _quote_schema() -> str:
    quote = op.get_context().dialect.identifier_preparer.quote
    return str(quote(context.config.attributes["layout"].schema))
