"""The SQL function that prices a call with further units, or at a price with tiers."""

from __future__ import annotations

from govbudget.money import FURTHER, FURTHER_INPUT, UNITS

NAME = "price_of"
# The four counts and those of further units; the four prices, and further ones with tiers, which
# ascend by `above`. Gives what is known of the cost in picos (NULL: nothing is, and something was
# used), then the units that have no price.
HEAD = (
    "(four bigint[], further jsonb, prices bigint[], more jsonb)"
    " RETURNS text[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE"
)


def _write_object(values: str) -> str:
    four = ", ".join(f"'{unit}', {values}[{place}]" for place, unit in enumerate(UNITS, 1))
    return f"jsonb_build_object({four})"


def _list(*units: str) -> str:
    return f"'{{{','.join(units)}}}'::text[]"


BODY = f"""
DECLARE
  total bigint := 0;
  level int := 0;
  counts jsonb := {_write_object("four")} || coalesce(further, '{{}}');
  rates jsonb := {_write_object("prices")} || coalesce(more, '{{}}');
  tier jsonb;
  unit text;
  tokens bigint;
  cost numeric;
  lacks text[] := '{{}}';
BEGIN
  IF more ? 'tiers' THEN
    FOREACH unit IN ARRAY {_list(*(u for u in UNITS if u != "output"), *FURTHER_INPUT)} LOOP
      total := total + coalesce((counts ->> unit)::bigint, 0);
    END LOOP;
    LOOP
      tier := more -> 'tiers' -> level;
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
