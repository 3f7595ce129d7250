"""Prove that holds, ledger, rollups and counters tell one story."""

from __future__ import annotations

from typing import NamedTuple

from govbudget.db.unit import Grant
from govbudget.identity import Id, Ledger
from govbudget.money import PRICES, TOKENS
from govbudget.spend.corrections import TAKEN, WAS, WAS_UNPRICED
from govbudget.spend.cost import write_cost
from govbudget.spend.statements import PRICE, govern_ledger

# See `WAS_UNPRICED`.
NO_TOKENS = f"{' + '.join(TOKENS)} = 0 AND coalesce({', '.join(PRICES)}) IS NULL"
OF_BEFORE = f"i.cost_picos IS NULL AND (i.unpriced IS NOT NULL OR {NO_TOKENS})"
# Of the organization asked about, or of any; a month that has a file is compared by `closing`.
ASKED_OF_ANY = "(CAST(:organization_id AS {id}) IS NULL OR {of}organization_id = :organization_id)"
CLOSED = (
    """coalesce((SELECT max(month) FROM {s}.ai_closings WHERE file IS NOT NULL), '-infinity')"""
)
ASKED, ASKED_OF_USAGE, ASKED_OF_CORRECTION = (
    f"({ASKED_OF_ANY.replace('{of}', of)} AND {of}period > {CLOSED})" for of in ("", "u.", "i.")
)
ASKED_OF_ROLLUP = (
    f"{ASKED_OF_ANY.replace('{of}', '')} AND starts_on >= {CLOSED} + interval '1 month'"
)
# What usage takes over from the hold that it settles: of a model that answered instead, no prices.
COPIED = ("organization_id", "user_id", "group_id", "period")
OF_HOLD, OF_USAGE = (", ".join(f"{of}.{name}" for name in COPIED) for of in ("h", "u"))
MODELS, PRICED = (
    [", ".join(f"{of}.{name}" for name in names) for of in ("h", "u")]
    for names in (("provider", "model"), PRICE)
)
IS_OTHER = (
    f"({OF_HOLD}) IS DISTINCT FROM ({OF_USAGE}) OR ({MODELS[0]}) = ({MODELS[1]})"
    f" AND ({PRICED[0]}) IS DISTINCT FROM ({PRICED[1]})"
)
OF_ORIGINAL, OF_CORRECTION = (", ".join(f"{of}.{name}" for name in TAKEN) for of in ("o", "i"))
# One statement, and so one snapshot.
VERIFY = govern_ledger(
    "spend.verify",
    f"""
WITH recorded AS (
  SELECT organization_id, user_id, period, day, group_id, provider, model,
         coalesce(sum(cost_picos), 0) AS cost,
         count(*) FILTER (WHERE corrects IS NULL) AS calls,
         count(*) FILTER (WHERE {WAS_UNPRICED.format("u")} AND by IS NULL) AS unpriced
  FROM {{s}}.ai_usage u LEFT JOIN (
    SELECT organization_id AS at, corrects AS event, event_id AS by FROM {{s}}.ai_usage
    WHERE corrects IS NOT NULL AND {ASKED}
  ) AS corrected ON at = organization_id AND event = event_id
  WHERE {ASKED}
  GROUP BY organization_id, user_id, period, day, group_id, provider, model
), counters AS (
  SELECT organization_id, user_id, period, sum(spent) AS spent, sum(recorded) AS recorded,
         sum(held) AS held, sum(open) AS open
  FROM (
    SELECT organization_id, user_id, period, spent_picos AS spent, 0 AS recorded,
           held_picos AS held, 0 AS open
    FROM {{s}}.ai_spend_counters WHERE {ASKED}
    UNION ALL SELECT organization_id, user_id, period, 0, cost, 0, 0 FROM recorded
    UNION ALL SELECT organization_id, user_id, period, 0, 0, 0, coalesce(cost_picos, 0)
    FROM {{s}}.ai_holds WHERE is_open AND {ASKED}
  ) AS both_sides
  GROUP BY organization_id, user_id, period
), rollups AS (
  SELECT organization_id, user_id, grain, starts_on, group_id, provider, model,
         sum(c) FILTER (WHERE NOT in_ledger) AS cost, sum(n) FILTER (WHERE NOT in_ledger) AS calls,
         sum(u) FILTER (WHERE NOT in_ledger) AS unpriced, sum(c) FILTER (WHERE in_ledger) AS c,
         sum(n) FILTER (WHERE in_ledger) AS n, sum(u) FILTER (WHERE in_ledger) AS u
  FROM (
    SELECT organization_id, user_id, grain, starts_on, group_id, provider, model,
           false AS in_ledger, cost_picos AS c, calls AS n, unpriced_calls AS u
    FROM {{s}}.ai_spend_rollups WHERE {ASKED_OF_ROLLUP}
    UNION ALL SELECT organization_id, user_id, grain, starts_on, group_id, provider, model, true,
                     cost, calls, unpriced
    FROM recorded, LATERAL (VALUES ('day', day), ('month', period)) AS g (grain, starts_on)
  ) AS both_sides
  GROUP BY organization_id, user_id, grain, starts_on, group_id, provider, model
), findings (organization_id, user_id, sentence) AS (
  SELECT organization_id, user_id, format('the counter of %s has spent %s picos, the ledger %s',
                                          to_char(period, 'YYYY-MM'), spent, recorded)
  FROM counters WHERE spent <> recorded
  UNION ALL
  SELECT organization_id, user_id, format('the counter of %s holds %s picos, its open holds %s',
                                          to_char(period, 'YYYY-MM'), held, open)
  FROM counters WHERE held <> open
  UNION ALL
  SELECT organization_id, user_id,
         format('the rollup of the %s %s, group %s, model %s of %s, has %s picos of %s calls (%s '
                'unpriced), the ledger %s of %s (%s)', grain, to_char(starts_on, 'YYYY-MM-DD'),
                coalesce(group_id::text, 'none'), model, provider, coalesce(cost, 0),
                coalesce(calls, 0), coalesce(unpriced, 0), coalesce(c, 0), coalesce(n, 0),
                coalesce(u, 0))
  FROM rollups
  WHERE (coalesce(cost, 0), coalesce(calls, 0), coalesce(unpriced, 0))
    <> (coalesce(c, 0), coalesce(n, 0), coalesce(u, 0))
  UNION ALL
  SELECT organization_id, user_id, sentence
  FROM {{s}}.ai_usage i, {write_cost("i", "i")}, LATERAL (SELECT
    -- of a hold it may be more, where it is not wholly known
    corrects IS NULL AND i.cost_picos IS DISTINCT FROM k.cost_picos AND NOT ({OF_BEFORE})
      AND (i.unpriced IS NULL OR hold_id IS NULL OR i.cost_picos < k.cost_picos) AS cost_differs,
    i.unpriced IS DISTINCT FROM k.unpriced AS unpriced_differs,
    date_trunc('month', day::timestamp) <> period AS month_differs
  ) AS w, LATERAL (VALUES (
    CASE WHEN cost_differs
    THEN format('event %s costs %s picos, its tokens at its prices %s', to_jsonb(event_id),
                coalesce(i.cost_picos::text, 'unknown'), coalesce(k.cost_picos::text, 'unknown'))
    END
  ), (
    CASE WHEN unpriced_differs
    THEN format('event %s says that %s had no price, its tokens and prices say %s',
                to_jsonb(event_id), coalesce(array_to_string(i.unpriced, ', '), 'none'),
                coalesce(array_to_string(k.unpriced, ', '), 'none'))
    END
  ), (
    CASE WHEN month_differs
    THEN format('event %s is of the day %s and of the month from %s', to_jsonb(event_id),
                to_char(day, 'YYYY-MM-DD'), to_char(period, 'YYYY-MM-DD'))
    END
  )) AS said (sentence)
  -- first of all: PostgreSQL prepares the sentences for each row that comes to them
  WHERE (cost_differs OR unpriced_differs OR month_differs) AND sentence IS NOT NULL AND {ASKED}
  UNION ALL
  SELECT i.organization_id, i.user_id,
         format('correction %s of event %s adds %s picos to the %s that it corrects to %s; its '
                'tokens at its prices cost %s', to_jsonb(i.event_id), to_jsonb(i.corrects),
                i.cost_picos, coalesce({WAS.format("o")}, 0), coalesce(i.corrected_picos, 0),
                coalesce(k.cost_picos, 0))
  FROM {{s}}.ai_usage i
    LEFT JOIN {{s}}.ai_usage o ON o.organization_id = i.organization_id AND o.event_id = i.corrects
    CROSS JOIN {write_cost("i", "i")}
  WHERE i.corrects IS NOT NULL AND {ASKED_OF_CORRECTION} AND (
    o.event_id IS NULL OR ({OF_ORIGINAL}) IS DISTINCT FROM ({OF_CORRECTION})
    OR i.corrected_picos IS DISTINCT FROM k.cost_picos
    OR i.cost_picos <> coalesce(k.cost_picos, 0) - coalesce({WAS.format("o")}, 0)
  )
  UNION ALL
  SELECT u.organization_id, u.user_id,
         CASE WHEN h.is_open
           THEN format('event %s settled hold %s, which is open and holds %s picos',
                       to_jsonb(event_id), h.id, coalesce(h.cost_picos, 0))
           ELSE format('event %s is not of the member, group, month or prices of hold %s',
                       to_jsonb(event_id), h.id) END
  FROM {{s}}.ai_holds h JOIN {{s}}.ai_usage u ON u.hold_id = h.id
  WHERE (h.is_open OR {IS_OTHER}) AND {ASKED_OF_USAGE}
)
SELECT members, calls,
       'organization ' || organization_id || ', user ' || user_id || ': ' || sentence AS finding
FROM (
  SELECT (SELECT count(*) FROM (SELECT DISTINCT organization_id, user_id FROM counters) AS d)
           AS members,
         (SELECT coalesce(sum(calls), 0)::bigint FROM recorded) AS calls
) AS m LEFT JOIN findings f ON true ORDER BY organization_id, user_id, sentence
""",
)


class Verification(NamedTuple):
    """What was looked at, and what does not agree: a sentence each, saying where, both figures."""

    members: int
    calls: int
    findings: list[str]


def verify_spend(grant: Grant[Ledger], organization_id: Id | None = None) -> Verification:
    """Compare, in one statement that locks nothing, all that is stored of spend.

    Of each member and period the ledger, both rollups and what the counter has as spent; the open
    holds and what it has as held; of each call its cost, its prices and tokens, its day and period,
    and that it closed its hold and is as that says. None: of every organization. Needs a grant to
    `create` usage.
    """
    rows = grant.run(VERIFY, organization_id=organization_id).all()
    return Verification(rows[0].members, rows[0].calls, [r.finding for r in rows if r.finding])
