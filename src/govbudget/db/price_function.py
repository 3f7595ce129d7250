"""The SQL function that prices a call with further units, or at a price with tiers."""

from __future__ import annotations

from govbudget.money import FURTHER, FURTHER_INPUT, UNITS

NAME = "price_of"
# Counts and prices by unit; the latter with tiers, ascending by `above`. Gives what is known of the
# cost in picos (NULL: nothing is, and something was used), then the units that have no price.
HEAD = "price_of(counts jsonb, price jsonb) RETURNS text[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE"


def _list(*units: str) -> str:
    return f"'{{{','.join(units)}}}'::text[]"


BODY = f"""
DECLARE
  total bigint := 0;
  level int := 0;
  rates jsonb := price;
  tier jsonb;
  unit text;
  tokens bigint;
  cost numeric;
  lacks text[] := '{{}}';
BEGIN
  IF price ? 'tiers' THEN
    FOREACH unit IN ARRAY {_list(*(u for u in UNITS if u != "output"), *FURTHER_INPUT)} LOOP
      total := total + coalesce((counts ->> unit)::bigint, 0);
    END LOOP;
    LOOP
      tier := price -> 'tiers' -> level;
      EXIT WHEN tier IS NULL OR (tier ->> 'above')::bigint >= total;
      rates := tier;
      level := level + 1;
    END LOOP;
  END IF;
  FOREACH unit IN ARRAY {_list(*UNITS, *FURTHER)} LOOP
    tokens := (counts ->> unit)::bigint;
    CONTINUE WHEN coalesce(tokens, 0) = 0;
    IF rates ->> unit IS NULL THEN
      lacks := lacks || unit;
    ELSE
      cost := coalesce(cost, 0) + tokens::numeric * (rates ->> unit)::bigint;
    END IF;
  END LOOP;
  IF cost IS NULL AND lacks = '{{}}' THEN
    cost := 0;
  END IF;
  RETURN ARRAY[cost::text] || lacks;
END """
