"""A row of usage may correct another one: its cost is then a signed difference."""

from govbudget.migrations.sql import run_sql

revision = "0009"
down_revision = "0008"

upgrade = run_sql("""
ALTER TABLE {s}.ai_usage
  ADD COLUMN corrects text, ADD COLUMN corrected_picos bigint, ADD COLUMN reason text,
  DROP CONSTRAINT ai_usage_cost_check,
  ADD CONSTRAINT ai_usage_cost_check CHECK (
    cost_picos <= 1000000000000000000
    AND corrected_picos BETWEEN 0 AND 1000000000000000000
    AND cost_picos >= CASE WHEN corrects IS NULL THEN 0 ELSE -1000000000000000000 END
  );
CREATE UNIQUE INDEX ai_usage_organization_id_corrects_idx
  ON {s}.ai_usage (organization_id, corrects) WHERE corrects IS NOT NULL
""")
