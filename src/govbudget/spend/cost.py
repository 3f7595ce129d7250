"""What a call costs, in SQL: inline for most, by a function where a price or a call says more."""

from __future__ import annotations

from govbudget.db import price_function
from govbudget.money import PRICES, TOKENS


def write_cost(of: str, at: str) -> str:
    """Join, as `k`, what tokens of `of` cost at the prices of `at`: `cost_picos` and `unpriced`.

    The cost is what is known of it (NULL: there are tokens and none is priced), `unpriced` the
    units of which there are some and no price (NULL: none).

    The function is called at most once, and only where the sum is not enough: a subquery under CASE
    would be initialised for every call, and without its fence (OFFSET 0) be called twice.
    """
    pairs = list(zip(TOKENS, PRICES, strict=True))
    fast = "+".join(
        f"CASE {of}.{count} WHEN 0 THEN 0 ELSE {of}.{count}::numeric * {at}.{price} END"
        for count, price in pairs
    )
    counts = ",".join(f"{of}.{count}" for count in TOKENS)
    prices = ",".join(f"{at}.{price}" for price in PRICES)
    asked = f"ARRAY[{counts}], {of}.further_tokens, ARRAY[{prices}], {at}.more"
    return f"""LATERAL (
    SELECT coalesce(sum, found[1]::numeric) AS cost_picos,
           nullif(found[2:], '{{{{}}}}') AS unpriced
    FROM (SELECT CASE WHEN {of}.further_tokens IS NULL AND {at}.more -> 'tiers' IS NULL
                      THEN {fast} END AS sum) AS f,
      LATERAL (SELECT CASE WHEN sum IS NULL
                      THEN {{s}}.{price_function.NAME}({asked}) END AS found
               OFFSET 0) AS g
  ) AS k"""
