"""A price has a day on which it takes effect, prices of further units, and tiers."""

from govbudget.db.tables import PRICES_ALONE
from govbudget.migrations.sql import run_sql

revision = "0006"
down_revision = "0005"

# The prices that are there always were.
upgrade = run_sql(f"""
ALTER TABLE {{s}}.ai_model_prices
  ADD COLUMN effective_from date NOT NULL DEFAULT '0001-01-01'::date,
  ADD COLUMN more jsonb,
  ADD CONSTRAINT ai_model_prices_more_check CHECK (more @@ '{PRICES_ALONE}'),
  DROP CONSTRAINT ai_model_prices_pkey,
  ADD CONSTRAINT ai_model_prices_pkey PRIMARY KEY (provider, model, source, effective_from)
""")
