"""A price has a day on which it takes effect, prices of further units, and tiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.tables import PRICES_ALONE, Tables
from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from alembic.operations import Operations


revision = "0006"
down_revision = "0005"

PRICES = """
ALTER TABLE {s}.ai_model_prices
  ADD COLUMN effective_from date NOT NULL DEFAULT '0001-01-01'::date,
  ADD COLUMN more jsonb,
  ADD CONSTRAINT ai_model_prices_more_check CHECK (more @@ '{check}'),
  DROP CONSTRAINT ai_model_prices_pkey,
  ADD CONSTRAINT ai_model_prices_pkey PRIMARY KEY (provider, model, source, effective_from)
"""


def upgrade(op: Operations, tables: Tables) -> None:
    """Add the columns. The prices that are there always were."""
    op.execute(PRICES.format(s=quote(tables.layout.schema), check=PRICES_ALONE))
