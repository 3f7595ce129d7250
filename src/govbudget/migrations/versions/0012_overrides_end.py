"""An override may end, and says why it was set."""

from govbudget.migrations.sql import run_sql

revision = "0012"
down_revision = "0011"

# What is there has no end.
upgrade = run_sql("""
ALTER TABLE {s}.member_ai_overrides ADD COLUMN expires_at timestamptz, ADD COLUMN reason text
""")
