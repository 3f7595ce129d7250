"""The statements of spend: each checks and takes, or records, in one go.

Under READ COMMITTED a statement that waits for a row lock reads that row anew and nothing else. So
what admission compares stands in the one row that it locks, the member's counter, and every change
of a counter is an INSERT .. ON CONFLICT DO UPDATE, whose SET reads the row as it was locked. What
other rows add to it comes from CTEs that change those rows, and so give only what they themselves
have changed; they run when the SET asks for them, after the lock. Locks are taken in one order
everywhere: the event, the counter, its holds, its rollups, its notices.
(https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from govbudget.db.governed import Governed
from govbudget.db.times import IN_MICROSECONDS
from govbudget.identity import Action, Ledger
from govbudget.money import MAX_COST_PICOS, PICOS_PER_MICRO, PRICES, TOKENS
from govbudget.prices.statements import DAY, find_in_force
from govbudget.spend.cost import write_cost
from govbudget.spend.limits import describe_limits
from govbudget.spend.notices import NOTICED, write_crossings

COUNTS = (*TOKENS, "further_tokens")
# The whole price, as holds and usage keep it.
PRICE = (*PRICES, "more", "priced_as")

NOW = "coalesce(:now, statement_timestamp())"
# When a call was made: as its caller says, else now.
AT = "occurred_at, now"

# What comes for a closed month counts now.
MONTH = "date_trunc('month', timezone({zone}, occurred_at))::date"
COUNTED_AT = f"CASE WHEN {{s}}.is_closed({MONTH}) THEN NULL ELSE occurred_at END, now"


def govern_ledger(
    name: str, text: str, answer: tuple[str, ...] = (), *, action: Action = Action.CREATE
) -> Governed[Ledger]:
    """Make a statement on the ledger, whose text may name the parts of `describe_limits`."""
    return Governed(name, action, Ledger, text, answer, parts=describe_limits)


def find_start(day: str) -> str:
    """Find when a day starts in the time zone `{zone}`; `day` is a date or a timestamp.

    PostgreSQL gives the second midnight of a day whose clock is set back at midnight.
    """
    start = f"timezone({{zone}}, {day}::timestamp)"
    an_hour_before = f"timezone({{zone}}, {start} - interval '1 hour')"
    return f"{start} + ({day}::timestamp - interval '1 hour' - {an_hour_before})"


def take(*names: str, at: str = "now") -> str:
    """Write the CTE `input`: parameters under their own names, and the time of the call as `at`.

    Each stands here alone: psycopg reads the text of a long statement at every call, and that
    takes the longer the more parameters it names.
    """
    passed = ",".join(f":{name} AS {name}" for name in names)
    time = f"coalesce({at}, statement_timestamp()) AS at"
    return f"input AS (SELECT *, {time} FROM (SELECT {passed}) passed)"


def _ask(*more: str, at: str = "now", priced_at: str = "i.at") -> str:
    """Write the CTEs `input` and `asked`: who asks, and for what. `more` is passed besides."""
    names = ("organization_id", "user_id", "provider", "model", "candidate", *COUNTS, "now", *more)
    return f"""
WITH {{directory}}, {take(*names, at=at)}, asked AS (
  SELECT i.*, {{is_member}} AS is_member, e.*, k.*, {", ".join(f"p.{name}" for name in PRICE)},
         date_trunc('month', timezone({{zone}}, i.at))::date AS period
  FROM input i
  {find_in_force("i", DAY.format(priced_at), "i.candidate")}
  LEFT JOIN LATERAL ({{effective}}) e ON true
  CROSS JOIN {write_cost("i", "p")}
)"""


HOLDS = (
    *("id", "organization_id", "user_id", "group_id", "period", "provider", "model", *PRICE),
    *("cost_picos", "unpriced", "is_open", "created_at", "expires_at"),
)
# Without these no row can be proposed to ON CONFLICT; one is there, as none is ever deleted.
REQUIRED = (
    *("id", "organization_id", "user_id", "period", "provider", "model"),
    *("is_open", "expires_at"),
)
# As many expired holds of a member are taken out of the counter by one statement.
DUE_AT_ONCE = 1000


def close_due(more: str = "") -> str:
    """Write the CTEs that close expired holds of who is `asking`, the first ones first.

    They take at most `DUE_AT_ONCE`. A statement that waited sees what others have closed by then,
    so what it tried counts, not what it closed: a refusal after fewer is final.
    """
    return f"""
due AS (
  SELECT h.id FROM asking a CROSS JOIN LATERAL (
    SELECT id FROM {{s}}.ai_holds h
    WHERE h.organization_id = a.organization_id AND h.user_id = a.user_id AND h.period = a.period
      AND h.is_open AND h.expires_at <= a.at {more}
    ORDER BY h.expires_at LIMIT {DUE_AT_ONCE}
  ) h
), expired AS (
  UPDATE {{s}}.ai_holds h SET is_open = false FROM asking a, due d
  WHERE h.id = d.id AND h.is_open AND h.expires_at <= a.at
  RETURNING h.cost_picos
)"""


def free(whose: str, closed: str) -> str:
    """Write the CTE that takes what the rows of `closed` held out of the counter of `whose`."""
    return f"""counter AS (
  INSERT INTO {{s}}.ai_spend_counters AS c
    (organization_id, user_id, period, spent_picos, held_picos)
  SELECT organization_id, user_id, period, 0, 0 FROM {whose}
  ON CONFLICT (organization_id, user_id, period) DO UPDATE
    SET held_picos = c.held_picos - (SELECT coalesce(sum(cost_picos), 0) FROM {closed})
)"""


# Of a call that is not held. One value: the driver takes its time over each column of an answer.
REFUSAL = f"""jsonb_build_object(
  'is_member', a.is_member, 'limit_micros', a.spend_limit_micros, 'limit_source', a.limit_source,
  'limit_expires_at', {IN_MICROSECONDS.format("a.limit_expires_at")},
  -- texts: a reader of JSON may take so large a number for a float
  'spent_picos', c.spent_picos::text, 'held_picos', c.held_picos::text,
  'is_final', (SELECT count(*) FROM due) < {DUE_AT_ONCE},
  'closed', (SELECT count(*) FROM expired),
  'period_end', {IN_MICROSECONDS.format(find_start("(a.period + interval '1 month')"))}
)"""
# What may be taken in all: what is known to cost nothing always fits, and what is not wholly known
# costs more than what is known.
MOST = f"""CASE WHEN spend_limit_micros IS NULL OR cost_picos = 0 AND unpriced IS NULL
              THEN 'infinity'
              ELSE spend_limit_micros::numeric * {PICOS_PER_MICRO} - (unpriced IS NOT NULL)::integer
         END AS most"""
MAY_BE_UNPRICED = "(unpriced IS NULL OR {allows_unpriced} OR spend_limit_micros IS NULL)"
HOLD = govern_ledger(
    "spend.hold",
    f"""{_ask("hold_id")}
, asking AS (
  SELECT *, coalesce(cost_picos, 0) AS cost, {MOST} FROM asked
  WHERE is_member AND coalesce(cost_picos <= {MAX_COST_PICOS}, true)
    AND {MAY_BE_UNPRICED}
), {close_due()}, counter AS (
  INSERT INTO {{s}}.ai_spend_counters AS c
    (organization_id, user_id, period, spent_picos, held_picos, last_hold_id)
  SELECT organization_id, user_id, period, 0,
         CASE WHEN cost <= most THEN cost ELSE 0 END, CASE WHEN cost <= most THEN hold_id END
  FROM asking
  ON CONFLICT (organization_id, user_id, period) DO UPDATE SET (held_picos, last_hold_id) = (
    SELECT CASE WHEN fits THEN live + cost ELSE live END,
           CASE WHEN fits THEN hold_id ELSE NULLIF(c.last_hold_id, hold_id) END
    FROM (
      SELECT live, cost, hold_id, c.spent_picos + live + cost <= most AS fits
      FROM asking,
        (SELECT c.held_picos - coalesce(sum(cost_picos), 0) AS live FROM expired) AS h
    ) AS decided
  )
  RETURNING spent_picos, held_picos, last_hold_id
), held AS (
  INSERT INTO {{s}}.ai_holds ({", ".join(HOLDS)}, body_digest)
  SELECT hold_id, organization_id, user_id, group_id, period, provider, model,
         {", ".join(PRICE)}, cost_picos, unpriced, true, at,
         -- from when it is held: the statement may have waited for the counter
         coalesce(now, clock_timestamp()) + :ttl, :body_digest
  FROM asking, counter WHERE last_hold_id = hold_id
  RETURNING expires_at
)
SELECT {{answer}} FROM asked a LEFT JOIN counter c ON true LEFT JOIN held h ON true
""",
    (
        *("a.group_id", "a.priced_as", "a.cost_picos", "a.unpriced", "h.expires_at"),
        f"CASE WHEN h.expires_at IS NULL THEN {REFUSAL} END AS refusal",
    ),
)

USAGE = (
    *("organization_id", "event_id", "user_id", "group_id", "hold_id", "period", "day"),
    *("provider", "model", *PRICE, *COUNTS, "cost_picos", "unpriced"),
    *("occurred_at", "recorded_at"),
)
# Of a row of usage, what its caller does not know, besides the cost.
RECORDED = ("organization_id", "user_id", "group_id", "provider", "model", "recorded_at")
OF_RECORDED = ("u.priced_as", "u.unpriced", *(f"u.{name}" for name in RECORDED))


def record(
    source: str,
    *,
    where: str,
    hold_id: str,
    day: str,
    cost: str,
    unpriced: str,
    group_id: str = "group_id",
    more: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write the CTE `recorded`: the row of usage, unless its event is known."""
    return f"""
, recorded AS (
  INSERT INTO {{s}}.ai_usage ({",".join((*USAGE, *more))})
  SELECT organization_id,event_id,user_id,{group_id},{hold_id},period,{day},
         provider,model,{",".join((*PRICE, *COUNTS))},{cost},{unpriced},
         {",".join(("occurred_at", "coalesce(now, statement_timestamp())", *more.values()))}
  FROM {source} WHERE {where} AND coalesce({cost} <= {MAX_COST_PICOS}, true)
  ON CONFLICT DO NOTHING
  RETURNING *
)"""


OF_ROLLUP = "organization_id,grain,starts_on,group_id,user_id,provider,model"
SUMS = ("cost_picos", "calls", "unpriced_calls")
IS_UNPRICED = "(unpriced IS NOT NULL)::integer"


def add_up(freed: str = "0", calls: str = "1", unpriced: str = IS_UNPRICED) -> str:
    """Write the CTEs that add what was recorded to counter and rollups.

    `freed` is what a closed hold held; `calls` and `unpriced` are how many calls it adds.
    """
    return f"""
, counter AS (
  INSERT INTO {{s}}.ai_spend_counters AS c
    (organization_id, user_id, period, spent_picos, held_picos)
  SELECT organization_id, user_id, period, coalesce(cost_picos, 0), 0 FROM recorded
  ON CONFLICT (organization_id, user_id, period) DO UPDATE
    SET spent_picos = c.spent_picos + excluded.spent_picos, held_picos = c.held_picos - {freed}
  RETURNING c.period, c.spent_picos
), rolled_up AS (
  INSERT INTO {{s}}.ai_spend_rollups AS r
    ({OF_ROLLUP},cost_picos,calls,unpriced_calls)
  SELECT {OF_ROLLUP},coalesce(cost_picos, 0),{calls},{unpriced}
  FROM counter, recorded u,
    LATERAL (VALUES ('day', u.day), ('month', u.period)) g (grain, starts_on)
  ON CONFLICT ON CONSTRAINT ai_spend_rollups_key DO UPDATE
    SET {",".join(f"{name}=r.{name}+excluded.{name}" for name in SUMS)}
)"""


def _settle(hold: str) -> str:
    """Write the statement that settles; `hold` gives the hold, whose price is the call's.

    A call belongs to the period of its hold: its day is one of that month. Where its cost is not
    wholly known and that of its hold was, it costs at least what the hold set aside: not free.
    """
    return f"""
WITH {{directory}}, {take("event_id", *COUNTS, "now", "occurred_at", "hold_id", at=AT)}, priced AS (
  SELECT i.*, p.*,
         greatest(k.cost_picos, CASE WHEN k.unpriced IS NOT NULL AND p.unpriced IS NULL
                                     THEN p.cost_picos END) AS cost,
         k.unpriced AS lacks,
         least(greatest(timezone({{zone}}, i.at)::date, p.period),
               (p.period + interval '1 month -1 day')::date) AS day
  FROM input i, {hold} p, {write_cost("i", "p")}
  WHERE p.id = i.hold_id AND NOT {{s}}.is_closed(p.period)
){record("priced", where="true", hold_id="id", day="day", cost="cost", unpriced="lacks")}
, closed AS (
  INSERT INTO {{s}}.ai_holds AS h ({",".join(REQUIRED)})
  SELECT {",".join(f"p.{name}" for name in REQUIRED)} FROM priced p, recorded
  ON CONFLICT (id) DO UPDATE
    SET is_open = false, ended = CASE WHEN h.is_open THEN 'settled' ELSE 'settled late' END
  RETURNING CASE h.ended WHEN 'settled' THEN h.cost_picos END AS cost_picos
){add_up("(SELECT coalesce(sum(cost_picos), 0) FROM closed)")}{write_crossings()}
SELECT {{answer}} FROM priced p LEFT JOIN recorded u ON true
"""


SETTLED = ("p.cost AS cost_picos", NOTICED, *OF_RECORDED)
SETTLE = govern_ledger("spend.settle", _settle("{s}.ai_holds"), SETTLED)
# Another model answered than was held: it has the price of the table, of the day of the hold.
IS_SAME_MODEL = "(f.provider, f.model) = (h.provider, h.model)"
OF_FALLBACK = {
    **{name: f"h.{name}" for name in HOLDS},
    **{name: f"f.{name}" for name in ("provider", "model")},
    **{p: f"CASE WHEN {IS_SAME_MODEL} THEN h.{p} ELSE p.{p} END AS {p}" for p in PRICE},
}
SETTLE_FALLBACK = govern_ledger(
    "spend.settle_fallback",
    _settle(f"""(
    SELECT {", ".join(OF_FALLBACK.values())}
    FROM {{s}}.ai_holds h
    CROSS JOIN LATERAL (
      SELECT coalesce(:provider, h.provider) AS provider, coalesce(:model, h.model) AS model,
             :candidate AS candidate
    ) f
    {find_in_force("f", DAY.format("h.created_at"), "f.candidate")}
    WHERE h.id = :hold_id
  )"""),
    SETTLED,
)

# Who has left is known by a counter of the organization; their spend is Everyone's, or nobody's.
IS_KNOWN = """(is_member OR EXISTS (
    SELECT FROM {s}.ai_spend_counters c
    WHERE c.organization_id = a.organization_id AND c.user_id = a.user_id))"""
EVERYONE = """(
    SELECT g.id FROM govbudget_groups g
    WHERE g.is_everyone AND g.organization_id = a.organization_id ORDER BY g.id LIMIT 1)"""
RECORD = govern_ledger(
    "spend.record",
    _ask("event_id", "occurred_at", at=COUNTED_AT, priced_at="coalesce(i.occurred_at, i.at)")
    + record(
        "asked a",
        where=IS_KNOWN,
        group_id=f"CASE WHEN is_member THEN group_id ELSE {EVERYONE} END",
        hold_id="CAST(NULL AS uuid)",
        day="timezone({zone}, at)::date",
        cost="cost_picos",
        unpriced="unpriced",
        more={"late_for": f"CASE WHEN occurred_at <> at THEN {MONTH} END"},
    )
    + add_up()
    + write_crossings("SELECT spend_limit_micros, limit_source, group_id FROM asked")
    + "\nSELECT {answer} FROM asked a LEFT JOIN recorded u ON true",
    (f"{IS_KNOWN} AS is_known", "a.cost_picos", NOTICED, *OF_RECORDED),
)


def is_same(*names: str, **values: str) -> str:
    """Say whether a row of usage is what is asked to be recorded."""
    asked = {**{name: f":{name}" for name in names}, **values}
    stored = ", ".join(f"u.{name}" for name in asked)
    return f"ROW({stored}) IS NOT DISTINCT FROM ROW({', '.join(asked.values())}) AS is_same"


REPORTED = ("occurred_at", *COUNTS)
FIND_EVENT = govern_ledger(
    "spend.find_event",
    """
SELECT {answer} FROM {s}.ai_usage u
WHERE u.organization_id = :organization_id AND u.event_id = :event_id
""",
    (
        is_same("user_id", "provider", "model", *REPORTED, hold_id="NULL", corrects="NULL"),
        "u.cost_picos",
        *OF_RECORDED,
    ),
)

# What stands in the way of settling a hold: its event, or another one that it was settled by.
FIND_SETTLED = govern_ledger(
    "spend.find_settled",
    """
SELECT {answer} FROM {s}.ai_holds h
JOIN {s}.ai_usage u
  ON u.organization_id = h.organization_id AND u.event_id = :event_id OR u.hold_id = h.id
WHERE h.id = :hold_id ORDER BY u.event_id = :event_id DESC LIMIT 1
""",
    (
        is_same(
            *("event_id", "hold_id", *REPORTED),
            provider="coalesce(:provider, h.provider)",
            model="coalesce(:model, h.model)",
        ),
        "u.cost_picos",
        *OF_RECORDED,
    ),
)
