"""Notices: thresholds of limits that members' spend has crossed."""

from govbudget.migrations.sql import run_sql

revision = "0015"
down_revision = "0014"

# What was crossed before, a sweep finds.
upgrade = run_sql("""
CREATE TABLE {s}.ai_notices (
  id uuid NOT NULL,
  organization_id {id} NOT NULL,
  user_id {id} NOT NULL,
  period date NOT NULL,
  threshold integer NOT NULL,
  spend_limit_micros bigint NOT NULL,
  limit_source text NOT NULL,
  group_id {id} NOT NULL,
  spent_picos numeric(38, 0) NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT ai_notices_pkey PRIMARY KEY (id),
  CONSTRAINT ai_notices_key
    UNIQUE (organization_id, user_id, period, threshold, spend_limit_micros)
);
CREATE INDEX ai_notices_organization_id_id_idx ON {s}.ai_notices (organization_id, id)
""")
