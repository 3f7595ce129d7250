"""The statements of prices: a batch in one, a look-up by key."""

from __future__ import annotations

from govbudget.db.governed import Governed
from govbudget.identity import Action, PriceBook
from govbudget.money import PRICE_OF, PRICES
from govbudget.new_ids import write_new_id
from govbudget.prices.change import MAX_FACTOR

# What is in a row beside its key.
VALUES = (*PRICES, "more")
COLUMNS = ", ".join(("provider", "model", "effective_from", *VALUES))
P_COLUMNS = ", ".join(
    f"p.{name}" for name in ("source", "provider", "model", "effective_from", *VALUES)
)
STORED = ", ".join(f"p.{value}" for value in VALUES)
GIVEN = ", ".join(f"excluded.{value}" for value in VALUES)
BATCH = f"""
(SELECT provider, model, coalesce(effective_from, '0001-01-01') AS effective_from,
        {", ".join(VALUES)}, candidate
 FROM jsonb_to_recordset(CAST(:batch AS jsonb)) AS b
  (provider text, model text, effective_from date,
   {", ".join(f"{price} bigint" for price in PRICES)}, more jsonb,
   candidate text[]))
"""
IS_NAMED = "p.provider = :provider AND p.model = :model"
# The UTC day of a time.
DAY = "timezone('UTC', {})::date"


def find_in_force(of: str, day: str, candidate: str) -> str:
    """Join the price that is in force on a day of what `of` names, as `p`; NULLs: none is known.

    `candidate` is SQL for the provider and the model that the name means by a rule, as texts. It is
    looked up only where the exact name has no row, and is then `p.priced_as`.
    """

    def find(provider: str, model: str, priced_as: str) -> str:
        return f"""(
    SELECT p.*, {priced_as}::text[] AS priced_as FROM {{s}}.ai_model_prices p
    WHERE p.provider = {provider} AND p.model = {model} AND p.effective_from <= {day}
    ORDER BY p.source DESC, p.effective_from DESC LIMIT 1  -- custom before book
  )"""

    exact = find(f"{of}.provider", f"{of}.model", "NULL")
    named = find(f"({candidate})[1]", f"({candidate})[2]", candidate)
    return f"LEFT JOIN LATERAL (SELECT * FROM ({exact} UNION ALL {named}) AS e LIMIT 1) p ON true"


# Custom before book, and the latest day first: the first that has come is the one in force.
FIND = Governed(
    "prices.find",
    Action.READ,
    PriceBook,
    f"""
SELECT {P_COLUMNS}, p.effective_from <= {DAY.format("coalesce(:now, statement_timestamp())")}
         AS has_come
FROM {{s}}.ai_model_prices p WHERE {IS_NAMED} ORDER BY p.source DESC, p.effective_from DESC
""",
)
# Of each model the first: custom before book, and the latest day that has come.
LIST = Governed(
    "prices.list",
    Action.READ,
    PriceBook,
    f"""
WITH today AS (SELECT {DAY.format("coalesce(:now, statement_timestamp())")} AS day)
SELECT {P_COLUMNS} FROM (
  SELECT DISTINCT provider, model FROM {{s}}.ai_model_prices
  WHERE effective_from <= (SELECT day FROM today) {{after}}
  ORDER BY provider, model LIMIT :page_size
) n, LATERAL (
  SELECT * FROM {{s}}.ai_model_prices p
  WHERE p.provider = n.provider AND p.model = n.model
    AND p.effective_from <= (SELECT day FROM today)
  ORDER BY p.source DESC, p.effective_from DESC LIMIT 1
) p ORDER BY n.provider, n.model
""",
    past=("provider", "(provider, model) > (:provider, :model)"),
)
FIND_ALL = Governed(
    "prices.compare",
    Action.UPDATE,
    PriceBook,
    f"""
SELECT {P_COLUMNS} FROM {{s}}.ai_model_prices p
JOIN (
  SELECT provider, model FROM {BATCH} b UNION SELECT candidate[1], candidate[2] FROM {BATCH} b
) b ON b.provider = p.provider AND b.model = p.model
ORDER BY p.source DESC, p.effective_from DESC
""",
)


def _jumps(old: str, new: str) -> str:
    low, high = f"{new} > {old} * {MAX_FACTOR}", f"{old} > {new} * {MAX_FACTOR}"
    return f"{old} > 0 AND ({low} OR {high})"


def find_rates(row: str) -> str:
    """Give the prices of a row by unit, as JSON, in a call of just more input than `level`."""
    four = ", ".join(f"'{unit}', {row}.{price}" for unit, price in PRICE_OF.items())
    return f"""coalesce((
        SELECT tier - 'above' FROM jsonb_array_elements({row}.more -> 'tiers') AS tier
        WHERE (tier ->> 'above')::bigint <= level ORDER BY (tier ->> 'above')::bigint DESC LIMIT 1
      ), jsonb_build_object({four}) || coalesce({row}.more - 'tiers', '{{{{}}}}'))"""


def find_levels(row: str) -> str:
    """Select the lengths of a prompt above which a row has other prices, as `level`."""
    return f"SELECT level::bigint FROM jsonb_path_query({row}.more, '$.tiers[*].above') AS level"


# As `PriceChange.list_jumps` says it. A row that says no more than its four prices is compared
# by them alone: the rest takes far longer.
JUMPS = f"""
  {" OR ".join(_jumps(f"p.{price}", f"b.{price}") for price in PRICES)}
  OR (p.more IS NOT NULL OR b.more IS NOT NULL) AND EXISTS (
    SELECT FROM (
      SELECT 0 AS level UNION {find_levels("p")} UNION {find_levels("b")}
    ) AS levels, jsonb_each_text({find_rates("p")}) AS old (unit, price),
      jsonb_each_text({find_rates("b")}) AS new (unit, price)
    WHERE old.unit = new.unit AND {_jumps("old.price::numeric", "new.price::numeric")}
  )
"""


def _write_removed(removed: str) -> str:
    """Write the entries of rows that a statement deleted: they can't carry their receipt."""
    shown = ("source", "effective_from", *VALUES)
    return f"""
  INSERT INTO {{s}}.audit_log (id, object_type, object_id, before, receipt)
  SELECT {write_new_id()}, 'ai_model_price', provider || '/' || model,
         jsonb_build_object({", ".join(f"'{name}', {name}" for name in shown)}), :receipt
  FROM {removed}"""


# What a batch is measured by is the snapshot of this statement: what was when it began. The book
# replaces all days of the models that it names, and deletes those that it no longer names. Locks
# are taken in key order, so that two batches never wait for each other.
UPSERT = Governed(
    "prices.upsert",
    Action.UPDATE,
    PriceBook,
    f"""
WITH batch AS MATERIALIZED {BATCH}, jumps AS (
  SELECT p.source, b.provider, b.model, p.effective_from, {STORED}, b.effective_from AS day
  FROM batch b JOIN LATERAL (SELECT * FROM ((
    SELECT * FROM {{s}}.ai_model_prices p
    WHERE p.provider = b.provider AND p.model = b.model AND p.effective_from <= b.effective_from
    -- what is in force on its day, in its source, else in the other
    ORDER BY p.source = CAST(:source AS text) DESC, p.effective_from DESC LIMIT 1
  ) UNION ALL (
    SELECT * FROM {{s}}.ai_model_prices p
    WHERE p.provider = b.candidate[1] AND p.model = b.candidate[2]
      AND p.effective_from <= b.effective_from
    ORDER BY p.source DESC, p.effective_from DESC LIMIT 1
  )) AS either LIMIT 1) p ON true
  WHERE NOT :allow_jumps AND ({JUMPS})
), old AS (
  SELECT p.provider, p.model, p.source, p.effective_from
  FROM {{s}}.ai_model_prices p
  WHERE CAST(:source AS text) = 'book' AND p.source = 'book' AND NOT EXISTS (SELECT FROM jumps)
    AND (p.provider, p.model) IN (SELECT provider, model FROM batch)
    AND (p.provider, p.model, p.effective_from)
      NOT IN (SELECT provider, model, effective_from FROM batch)
  ORDER BY provider, model, effective_from FOR UPDATE
), removed AS (
  DELETE FROM {{s}}.ai_model_prices p USING old o
  WHERE (p.provider, p.model, p.source, p.effective_from)
    = (o.provider, o.model, o.source, o.effective_from)
  RETURNING {P_COLUMNS}
), entries AS ({_write_removed("removed")}
), changed AS (
  INSERT INTO {{s}}.ai_model_prices AS p ({COLUMNS}, source, receipt)
  SELECT {COLUMNS}, CAST(:source AS text), :receipt
  FROM batch WHERE NOT EXISTS (SELECT FROM jumps)
  ORDER BY provider, model, effective_from
  ON CONFLICT (provider, model, source, effective_from) DO UPDATE
    SET {", ".join(f"{value} = excluded.{value}" for value in VALUES)},
        receipt = excluded.receipt,
        updated_at = greatest(clock_timestamp(), p.updated_at + interval '1 microsecond')
    WHERE ({STORED}) IS DISTINCT FROM ({GIVEN})
  RETURNING p.model
)
SELECT c.changed, {P_COLUMNS}, p.day FROM (SELECT count(*) AS changed FROM changed) c
LEFT JOIN jumps p ON true
""",
)

REMOVE = Governed(
    "prices.remove",
    Action.UPDATE,
    PriceBook,
    f"""
WITH removed AS (
  DELETE FROM {{s}}.ai_model_prices p WHERE {IS_NAMED} AND p.source = 'custom'
  RETURNING {P_COLUMNS}
), entries AS ({_write_removed("removed")}
)
SELECT {P_COLUMNS} FROM removed p ORDER BY p.effective_from DESC
""",
)
