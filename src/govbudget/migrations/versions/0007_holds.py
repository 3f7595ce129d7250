"""A hold says how it ended, and what was asked where its caller chose its id."""

from govbudget.migrations.sql import run_sql

revision = "0007"
down_revision = "0006"

# Of an earlier hold that is not open it is not known whether it expired or was released, unless it
# could not have expired yet.
upgrade = run_sql("""
ALTER TABLE {s}.ai_holds ADD COLUMN body_digest uuid, ADD COLUMN ended text;
UPDATE {s}.ai_holds h SET ended = CASE WHEN EXISTS (
    SELECT FROM {s}.ai_usage u WHERE u.hold_id = h.id
  ) THEN 'settled' WHEN expires_at > now() THEN 'released' END
WHERE NOT is_open
""")
