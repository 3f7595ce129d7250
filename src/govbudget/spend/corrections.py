"""A correction: a further row of the ledger, which says what another one should have said, and why.

Nothing is rewritten. Its cost is the difference, so that the sum of all rows is what was spent; it
stands in the period, on the day, and for the group of the original.
"""

from __future__ import annotations

from govbudget.identity import Action
from govbudget.money import MAX_COST_PICOS, PRICES
from govbudget.new_ids import write_new_id
from govbudget.prices.statements import DAY, find_in_force, find_levels, find_rates
from govbudget.spend.cost import write_cost
from govbudget.spend.notices import NOTICED, write_crossings
from govbudget.spend.statements import (
    COUNTS,
    IS_UNPRICED,
    OF_RECORDED,
    add_up,
    govern_ledger,
    is_same,
    record,
    take,
)

# What a row of usage should cost: of a correction, what it corrects the cost to.
WAS = "CASE WHEN {0}.corrects IS NULL THEN {0}.cost_picos ELSE {0}.corrected_picos END"
# Recorded before the units without a price were kept: a cost that was not wholly known is NULL, and
# so is that of no tokens of a model that nobody knew.
WAS_UNPRICED = "({0}.cost_picos IS NULL OR {0}.unpriced IS NOT NULL)"
HAD_NO_PRICE = (
    f"""coalesce({", ".join(f"o.{price}" for price in PRICES)}) IS NULL AND o.more IS NULL"""
)
# What the original has no price for has that of today, at each length of the prompt; of what it
# knows nothing, the whole one.
FILLED_TIERS = f"""
  SELECT jsonb_build_object('tiers', jsonb_agg(
    {find_rates("p")} || jsonb_strip_nulls({find_rates("o")})
      || jsonb_build_object('above', level) ORDER BY level))
  FROM ({find_levels("o")} UNION {find_levels("p")}) AS levels HAVING count(*) > 0"""
FILLED = {
    **{price: f"coalesce(o.{price}, p.{price})" for price in PRICES},
    "more": f"""CASE WHEN {HAD_NO_PRICE} THEN p.more
    ELSE nullif(coalesce(p.more - 'tiers', '{{{{}}}}')
                || coalesce(jsonb_strip_nulls(o.more - 'tiers'), '{{{{}}}}')
                || coalesce(({FILLED_TIERS}), '{{{{}}}}'), '{{{{}}}}') END""",
    "priced_as": f"CASE WHEN {HAD_NO_PRICE} THEN p.priced_as ELSE o.priced_as END",
}
# What a correction takes over from what it corrects.
TAKEN = ("user_id", "group_id", "period", "day", "provider", "model", "occurred_at")
SHOWN_TOKENS = ", ".join(f"'{count}', {{0}}.{count}" for count in COUNTS)
# The name of the model, which the rules of names ask for.
FIND_CORRECTED = govern_ledger(
    "spend.find_corrected",
    """
SELECT provider, model FROM {s}.ai_usage
WHERE organization_id = :organization_id AND event_id = :corrects AND NOT {s}.is_closed(period)
""",
    action=Action.UPDATE,
)
CORRECT = govern_ledger(
    "spend.correct",
    f"""
WITH {{directory}}, {
        take("organization_id", "event_id", "corrects", "candidate", *COUNTS, "reason", "now")
    },
original AS (
  SELECT o.*, {WAS.format("o")} AS was_picos,
         {WAS_UNPRICED.format("o")}::integer AS was_unpriced
  FROM input i JOIN {{s}}.ai_usage o
    ON o.organization_id = i.organization_id AND o.event_id = i.corrects
     AND NOT {{s}}.is_closed(o.period)
), priced AS (
  SELECT i.*, {", ".join(f"o.{name}" for name in (*TAKEN, "was_picos", "was_unpriced"))},
         {", ".join(f"{price} AS {name}" for name, price in FILLED.items())}
  FROM input i CROSS JOIN original o {find_in_force("o", DAY.format("i.at"), "i.candidate")}
), costed AS (
  SELECT p.*, k.cost_picos AS cost, k.unpriced AS lacks,
         coalesce(k.cost_picos, 0) - coalesce(was_picos, 0) AS difference
  FROM priced p, {write_cost("p", "p")}
){
        record(
            "costed",
            where=f"coalesce(cost <= {MAX_COST_PICOS}, true)",
            hold_id="CAST(NULL AS uuid)",
            day="day",
            cost="difference",
            unpriced="lacks",
            more={"corrects": "corrects", "corrected_picos": "cost", "reason": "reason"},
        )
    }
{
        add_up(
            calls="0",
            unpriced=f"{IS_UNPRICED} - (SELECT was_unpriced FROM original)",
        )
    }{write_crossings()}, entry AS (
  INSERT INTO {{s}}.audit_log (id, organization_id, object_type, object_id, before, after, receipt)
  SELECT {write_new_id("u.organization_id")}, u.organization_id, 'ai_usage', u.corrects,
         jsonb_build_object('cost_picos', o.was_picos, {SHOWN_TOKENS.format("o")}),
         jsonb_build_object('cost_picos', u.corrected_picos, {SHOWN_TOKENS.format("u")},
                            'event_id', u.event_id, 'reason', u.reason),
         :receipt
  FROM recorded u, original o
)
SELECT {{answer}} FROM costed p LEFT JOIN recorded u ON true
""",
    ("p.cost AS cost_picos", "p.difference AS difference_picos", NOTICED, *OF_RECORDED),
    action=Action.UPDATE,
)

# What stands in the way of a correction: its own event, or another correction of the same one.
FIND_CORRECTION = govern_ledger(
    "spend.find_correction",
    """
SELECT {answer} FROM {s}.ai_usage u
WHERE u.organization_id = :organization_id AND (u.event_id = :event_id OR u.corrects = :corrects)
ORDER BY u.event_id = :event_id DESC LIMIT 1
""",
    (
        is_same("event_id", "corrects", "reason", *COUNTS),
        *("u.event_id", "u.corrected_picos AS cost_picos", "u.cost_picos AS difference_picos"),
        *OF_RECORDED,
    ),
    action=Action.UPDATE,
)
