"""What reports read is summed by provider and model, too."""

from govbudget.migrations.sql import run_sql

revision = "0013"
down_revision = "0012"

# The ledger is summed up anew: the old sums do not say which model it was.
# A row without a known cost is from before the units without a price were kept.
upgrade = run_sql("""
TRUNCATE {s}.ai_spend_rollups;
ALTER TABLE {s}.ai_spend_rollups
  ADD COLUMN provider text NOT NULL, ADD COLUMN model text NOT NULL,
  DROP CONSTRAINT ai_spend_rollups_key,
  ADD CONSTRAINT ai_spend_rollups_key UNIQUE NULLS NOT DISTINCT
    (organization_id, grain, starts_on, group_id, user_id, provider, model);
INSERT INTO {s}.ai_spend_rollups
  (organization_id, grain, starts_on, group_id, user_id, provider, model, cost_picos, calls,
   unpriced_calls)
SELECT organization_id, grain, starts_on, group_id, user_id, provider, model, sum(cost), sum(calls),
       sum(unpriced)
FROM (
  SELECT u.organization_id, u.day, u.period, u.group_id, u.user_id, u.provider, u.model,
         coalesce(sum(u.cost_picos), 0) AS cost,
         count(*) FILTER (WHERE u.corrects IS NULL) AS calls,
         count(*) FILTER (
           WHERE c.event_id IS NULL AND (u.cost_picos IS NULL OR u.unpriced IS NOT NULL)
         ) AS unpriced
  FROM {s}.ai_usage u
  LEFT JOIN {s}.ai_usage c ON c.organization_id = u.organization_id AND c.corrects = u.event_id
  GROUP BY u.organization_id, u.day, u.period, u.group_id, u.user_id, u.provider, u.model
) AS days, LATERAL (VALUES ('day', day), ('month', period)) AS g (grain, starts_on)
GROUP BY organization_id, grain, starts_on, group_id, user_id, provider, model
""")
