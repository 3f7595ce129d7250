"""The open holds of a member are read in the order in which they expire."""

from govbudget.migrations.sql import run_sql

revision = "0011"
down_revision = "0010"

# It has open holds alone, and so is small.
upgrade = run_sql("""
DROP INDEX {s}.ai_holds_open_idx;
CREATE INDEX ai_holds_open_idx
  ON {s}.ai_holds (organization_id, user_id, period, expires_at) WHERE is_open
""")
