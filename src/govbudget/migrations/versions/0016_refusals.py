"""Refused calls are noted; what pages list of notices is read in the order of an index."""

from govbudget.migrations.sql import run_sql

revision = "0016"
down_revision = "0015"

# What was refused before is in the log alone.
upgrade = run_sql("""
CREATE TABLE {s}.ai_refusals (
  organization_id {id} NOT NULL,
  user_id {id} NOT NULL,
  day date NOT NULL,
  code text NOT NULL,
  calls bigint NOT NULL,
  last_at timestamptz NOT NULL DEFAULT now(),
  provider text NOT NULL,
  model text NOT NULL,
  cost_picos bigint,
  spend_limit_micros bigint,
  limit_source text,
  group_id {id},
  CONSTRAINT ai_refusals_pkey PRIMARY KEY (organization_id, user_id, day, code)
) WITH (fillfactor = 50);
CREATE INDEX ai_notices_highest_idx
  ON {s}.ai_notices (organization_id, period, threshold, user_id);
CREATE INDEX ai_notices_group_idx
  ON {s}.ai_notices (organization_id, period, group_id, threshold, user_id)
""")
