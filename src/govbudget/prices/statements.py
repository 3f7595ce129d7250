"""The statements of prices: a batch in one, a look-up by key."""

from __future__ import annotations

from govbudget.db.governed import Governed
from govbudget.identity import Action, PriceBook
from govbudget.money import PRICES
from govbudget.new_ids import write_new_id
from govbudget.prices.change import MAX_FACTOR

COLUMNS = ", ".join(("provider", "model", *PRICES))
P_COLUMNS = ", ".join(f"p.{name}" for name in ("source", "provider", "model", *PRICES))
STORED = ", ".join(f"p.{price}" for price in PRICES)
GIVEN = ", ".join(f"excluded.{price}" for price in PRICES)
BATCH = f"""
jsonb_to_recordset(CAST(:batch AS jsonb)) AS b
  (provider text, model text, {", ".join(f"{price} bigint" for price in PRICES)})
"""
IS_NAMED = "p.provider = :provider AND p.model = :model"


def find_in_force(of: str) -> str:
    """Join the price in force of what `of` names, as `p`; NULLs: none is known."""
    return f"""LEFT JOIN LATERAL (
    SELECT * FROM {{s}}.ai_model_prices p
    WHERE p.provider = {of}.provider AND p.model = {of}.model
    ORDER BY p.source DESC LIMIT 1  -- custom before book
  ) p ON true"""


# Custom before book: the first is the one in force.
FIND = Governed(
    "prices.find",
    Action.READ,
    PriceBook,
    f"""
SELECT {P_COLUMNS} FROM {{s}}.ai_model_prices p WHERE {IS_NAMED} ORDER BY p.source DESC
""",
)
FIND_ALL = Governed(
    "prices.compare",
    Action.UPDATE,
    PriceBook,
    f"""
SELECT {P_COLUMNS} FROM {{s}}.ai_model_prices p
JOIN {BATCH} ON b.provider = p.provider AND b.model = p.model ORDER BY p.source DESC
""",
)

# As `PriceChange.list_jumps` says it.
JUMPS = " OR ".join(
    f"p.{price} > 0 AND {high} > {low} * {MAX_FACTOR}"
    for price in PRICES
    for low, high in ((f"p.{price}", f"b.{price}"), (f"b.{price}", f"p.{price}"))
)
# What a batch is measured by is the snapshot of this statement: what was when it began. Locks are
# taken in key order, so that two batches never wait for each other.
UPSERT = Governed(
    "prices.upsert",
    Action.UPDATE,
    PriceBook,
    f"""
WITH jumps AS (
  SELECT {P_COLUMNS} FROM {BATCH} JOIN LATERAL (
    SELECT * FROM {{s}}.ai_model_prices p WHERE p.provider = b.provider AND p.model = b.model
    -- what it replaces, else what is in force
    ORDER BY p.source = CAST(:source AS text) DESC LIMIT 1
  ) p ON true
  WHERE NOT :allow_jumps AND ({JUMPS})
), changed AS (
  INSERT INTO {{s}}.ai_model_prices AS p ({COLUMNS}, source, receipt)
  SELECT {COLUMNS}, CAST(:source AS text), :receipt
  FROM {BATCH} WHERE NOT EXISTS (SELECT FROM jumps) ORDER BY provider, model
  ON CONFLICT (provider, model, source) DO UPDATE
    SET {", ".join(f"{price} = excluded.{price}" for price in PRICES)}, receipt = excluded.receipt,
        updated_at = greatest(clock_timestamp(), p.updated_at + interval '1 microsecond')
    WHERE ({STORED}) IS DISTINCT FROM ({GIVEN})
  RETURNING p.model
)
SELECT c.changed, {P_COLUMNS} FROM (SELECT count(*) AS changed FROM changed) c
LEFT JOIN jumps p ON true
""",
)

# A deleted row can't carry its receipt to the trigger: the entry is written here.
REMOVE = Governed(
    "prices.remove",
    Action.UPDATE,
    PriceBook,
    f"""
WITH p AS (
  DELETE FROM {{s}}.ai_model_prices p WHERE {IS_NAMED} AND p.source = 'custom'
  RETURNING {P_COLUMNS}
), entry AS (
  INSERT INTO {{s}}.audit_log (id, object_type, object_id, before, receipt)
  SELECT {write_new_id()}, 'ai_model_price', p.provider || '/' || p.model,
         jsonb_build_object('source', p.source, {", ".join(f"'{c}', p.{c}" for c in PRICES)}),
         :receipt
  FROM p
)
SELECT {P_COLUMNS} FROM p
""",
)
