"""What a database of release 0.1.0 lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.tables import PRICES_ALONE
from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from alembic.operations import Operations

    from govbudget.db.tables import Tables


revision = "0016"
down_revision = "0005"

# The prices that are there always were.
PRICES = """
ALTER TABLE {s}.ai_model_prices
  ADD COLUMN effective_from date NOT NULL DEFAULT '0001-01-01'::date,
  ADD COLUMN more jsonb,
  ADD CONSTRAINT ai_model_prices_more_check CHECK (more @@ '{check}'),
  DROP CONSTRAINT ai_model_prices_pkey,
  ADD CONSTRAINT ai_model_prices_pkey PRIMARY KEY (provider, model, source, effective_from)
"""

# Of an earlier hold that is not open it is not known whether it expired or was released, unless it
# could not have expired yet.
HOLDS = """
ALTER TABLE {s}.ai_holds
  ADD COLUMN body_digest uuid, ADD COLUMN ended text, ADD COLUMN more jsonb,
  ADD COLUMN priced_as text[];
UPDATE {s}.ai_holds h SET ended = CASE WHEN EXISTS (
    SELECT FROM {s}.ai_usage u WHERE u.hold_id = h.id
  ) THEN 'settled' WHEN expires_at > now() THEN 'released' END
WHERE NOT is_open;
DROP INDEX {s}.ai_holds_open_idx;
CREATE INDEX ai_holds_open_idx
  ON {s}.ai_holds (organization_id, user_id, period, expires_at) WHERE is_open
"""

USAGE = """
ALTER TABLE {s}.ai_usage
  ADD COLUMN more jsonb, ADD COLUMN further_tokens jsonb, ADD COLUMN priced_as text[],
  ADD COLUMN corrects text, ADD COLUMN corrected_picos bigint, ADD COLUMN reason text,
  ADD COLUMN late_for date,
  DROP CONSTRAINT ai_usage_cost_check,
  ADD CONSTRAINT ai_usage_cost_check CHECK (
    cost_picos <= 1000000000000000000
    AND corrected_picos BETWEEN 0 AND 1000000000000000000
    AND cost_picos >= CASE WHEN corrects IS NULL THEN 0 ELSE -1000000000000000000 END
  );
CREATE UNIQUE INDEX ai_usage_organization_id_corrects_idx
  ON {s}.ai_usage (organization_id, corrects) WHERE corrects IS NOT NULL
"""

# What is there has no end.
OVERRIDES = (
    "ALTER TABLE {s}.member_ai_overrides ADD COLUMN expires_at timestamptz, ADD COLUMN reason text"
)

# The old sums don't say which model it was. A row without a known cost is from before the units
# without a price were kept. Nothing is a correction yet.
ROLLUPS = """
TRUNCATE {s}.ai_spend_rollups;
ALTER TABLE {s}.ai_spend_rollups
  ADD COLUMN provider text NOT NULL, ADD COLUMN model text NOT NULL,
  DROP CONSTRAINT ai_spend_rollups_key,
  ADD CONSTRAINT ai_spend_rollups_key UNIQUE NULLS NOT DISTINCT
    (organization_id, grain, starts_on, group_id, user_id, provider, model);
INSERT INTO {s}.ai_spend_rollups
  (organization_id, grain, starts_on, group_id, user_id, provider, model, cost_picos, calls,
   unpriced_calls)
SELECT organization_id, grain, starts_on, group_id, user_id, provider, model,
       coalesce(sum(cost_picos), 0), count(*),
       count(*) FILTER (WHERE cost_picos IS NULL OR unpriced IS NOT NULL)
FROM {s}.ai_usage, LATERAL (VALUES ('day', day), ('month', period)) AS g (grain, starts_on)
GROUP BY organization_id, grain, starts_on, group_id, user_id, provider, model
"""

NEW = """
CREATE TABLE {s}.ai_closings (
  month date NOT NULL CONSTRAINT ai_closings_pkey PRIMARY KEY,
  started_at timestamptz NOT NULL DEFAULT now(),
  file jsonb,
  sums jsonb,
  closed_at timestamptz
);
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
CREATE INDEX ai_notices_organization_id_id_idx ON {s}.ai_notices (organization_id, id);
CREATE INDEX ai_notices_highest_idx
  ON {s}.ai_notices (organization_id, period, threshold, user_id);
CREATE INDEX ai_notices_group_idx
  ON {s}.ai_notices (organization_id, period, group_id, threshold, user_id);
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
) WITH (fillfactor = 50)
"""


def upgrade(op: Operations, tables: Tables) -> None:
    """Change the tables that are there, and add the new ones."""
    names = {"s": quote(tables.layout.schema), "id": tables.layout.id_type, "check": PRICES_ALONE}
    for change in (PRICES, HOLDS, USAGE, OVERRIDES, ROLLUPS, NEW):
        op.execute(change.format(**names))
