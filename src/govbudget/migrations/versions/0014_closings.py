"""Months can be closed; usage says which closed month it came too late for."""

from govbudget.migrations.sql import run_sql

revision = "0014"
down_revision = "0013"

# The function of the table is made after all migrations.
upgrade = run_sql("""
ALTER TABLE {s}.ai_usage ADD COLUMN late_for date;
CREATE TABLE {s}.ai_closings (
  month date NOT NULL CONSTRAINT ai_closings_pkey PRIMARY KEY,
  started_at timestamptz NOT NULL DEFAULT now(),
  file jsonb,
  sums jsonb,
  closed_at timestamptz
)
""")
