"""The statements of spend: each checks and takes, or books, in one go.

Under READ COMMITTED a statement that waits for a row lock reads that row anew and nothing else. So
what admission compares stands in the one row that it locks, the member's counter, and every change
of a counter is an INSERT .. ON CONFLICT DO UPDATE, whose SET reads the row as it was locked. What
other rows add to it comes from CTEs that change those rows, and so give only what they themselves
have changed; they run when the SET asks for them, after the lock. Locks are taken in one order
everywhere: the event, the counter, its holds, its rollups.
(https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.spend.limits import Limits
from govbudget.spend.usage import Unpriced
from govbudget.sql import NOW, find_start, prepare
from govbudget.tables import MAX_COST_PICOS, PRICES, TOKENS, UNITS

if TYPE_CHECKING:
    from sqlalchemy import Executable

    from govbudget.identity import Directory
    from govbudget.spend.usage import SpendRules
    from govbudget.tables import Tables

PRICED = tuple(zip(UNITS, TOKENS, PRICES, strict=True))
# Whether tokens `i` lack one of the prices `p`, and of which units.
LACKS_PRICE = " OR ".join(f"i.{count} > 0 AND p.{price} IS NULL" for _, count, price in PRICED)
UNPRICED = "CASE WHEN {} THEN array_remove(ARRAY[{}], NULL) END".format(
    LACKS_PRICE,
    ", ".join(
        f"CASE WHEN i.{count} > 0 AND p.{price} IS NULL THEN '{unit}' END"
        for unit, count, price in PRICED
    ),
)
# What is known of what tokens `i` cost at prices `p`: NULL where there are some and none is priced.
COST = "CASE WHEN coalesce({}) IS NOT NULL OR {} = 0 THEN {} END".format(
    ", ".join(f"CASE WHEN i.{count} > 0 THEN p.{price} END" for _, count, price in PRICED),
    " + ".join(f"i.{count}" for count in TOKENS),
    " + ".join(f"i.{count}::numeric * coalesce(p.{price}, 0)" for _, count, price in PRICED),
)

# Who asks, and for what.
ASK = f"""
WITH input AS (
  SELECT CAST(:organization_id AS {{id}}) AS organization_id, CAST(:user_id AS {{id}}) AS user_id,
         CAST(:provider AS text) AS provider, CAST(:model AS text) AS model,
         {", ".join(f"CAST(:{count} AS bigint) AS {count}" for count in TOKENS)},
         {{now}} AS now, {{at}} AS at
), asked AS (
  SELECT i.*, {{is_member}} AS is_member, e.group_id, e.limit_source, e.spend_limit_micros,
         e.spend_limit_micros::numeric * 1000000 AS limit_picos,
         {", ".join(f"p.{price}" for price in PRICES)},
         {COST} AS cost_picos, {UNPRICED} AS unpriced,
         date_trunc('month', timezone(:time_zone, i.at))::date AS period,
         timezone(:time_zone, i.at)::date AS day
  FROM input i
  LEFT JOIN LATERAL (
    SELECT * FROM {{s}}.ai_model_prices p
    WHERE p.provider = i.provider AND p.model = i.model
    ORDER BY p.source DESC LIMIT 1  -- custom before book
  ) p ON true
  LEFT JOIN LATERAL ({{effective}}) e ON true
)"""

HOLD = """
, asking AS (
  SELECT *, coalesce(cost_picos, 0) AS cost FROM asked
  WHERE is_member AND coalesce(cost_picos <= {max_cost}, true)
    AND (unpriced IS NULL OR {allows_unpriced} OR limit_picos IS NULL)
), expired AS (
  UPDATE {s}.ai_holds h SET is_open = false FROM asking a
  WHERE h.organization_id = a.organization_id AND h.user_id = a.user_id AND h.period = a.period
    AND h.is_open AND h.expires_at <= a.now
  RETURNING h.cost_picos
), counter AS (
  INSERT INTO {s}.ai_spend_counters AS c
    (organization_id, user_id, period, spent_picos, held_picos, last_hold_id)
  SELECT organization_id, user_id, period, 0,
         CASE WHEN {fits_nothing_taken} THEN cost ELSE 0 END,
         CASE WHEN {fits_nothing_taken} THEN CAST(:hold_id AS uuid) END
  FROM asking
  ON CONFLICT (organization_id, user_id, period) DO UPDATE SET (held_picos, last_hold_id) = (
    SELECT CASE WHEN fits THEN live + cost ELSE live END,
           CASE WHEN fits THEN CAST(:hold_id AS uuid) ELSE c.last_hold_id END
    FROM (
      SELECT live, cost, {fits_what_is_left} AS fits
      FROM asking,
        (SELECT c.held_picos - coalesce(sum(cost_picos), 0) AS live FROM expired) AS h
    ) AS decided
  )
  RETURNING spent_picos, held_picos, last_hold_id
), held AS (
  INSERT INTO {s}.ai_holds
    (id, organization_id, user_id, group_id, period, provider, model, {prices}, cost_picos,
     unpriced, is_open, created_at, expires_at)
  SELECT CAST(:hold_id AS uuid), organization_id, user_id, group_id, period, provider, model,
         {prices}, cost_picos, unpriced, true, now,
         -- from when it is held: the statement may have waited for the counter
         coalesce(CAST(:now AS timestamptz), clock_timestamp()) + CAST(:ttl AS interval)
  FROM asking, counter WHERE last_hold_id = :hold_id
  RETURNING expires_at
)
SELECT {answer} FROM asked a LEFT JOIN counter c ON true LEFT JOIN held h ON true
"""
HELD = (
    *("a.is_member", "a.group_id", "a.limit_source", "a.spend_limit_micros", "a.cost_picos"),
    *("a.unpriced", "c.spent_picos", "c.held_picos", "h.expires_at"),
    find_start("(a.period + interval '1 month')") + " AS period_end",
)

# What is known to cost nothing always does. What is not wholly known costs more than what is known.
FITS = """(limit_picos IS NULL OR cost_picos = 0 AND unpriced IS NULL
      OR {taken} + cost + (unpriced IS NOT NULL)::integer <= limit_picos)"""

USAGE = (
    *("organization_id", "event_id", "user_id", "group_id", "hold_id", "period", "day"),
    *("provider", "model", *PRICES, *TOKENS, "cost_picos", "unpriced"),
    *("occurred_at", "recorded_at"),
)
# Of a row of usage, what its caller does not know.
BOOKED = (
    *("b.organization_id", "b.user_id", "b.group_id", "b.provider", "b.model"),
    *("b.cost_picos", "b.unpriced", "b.recorded_at"),
)

BOOK = f"""
, booked AS (
  INSERT INTO {{s}}.ai_usage ({", ".join(USAGE)})
  SELECT organization_id, CAST(:event_id AS text), user_id, group_id, {{hold_id}}, period, day,
         provider, model, {", ".join(PRICES)}, {", ".join(TOKENS)}, {{cost}}, {{unpriced}},
         CAST(:occurred_at AS timestamptz), now
  FROM {{source}} WHERE coalesce({{cost}} <= {MAX_COST_PICOS}, true)
  ON CONFLICT DO NOTHING
  RETURNING *
)"""

# Adds what was booked to the counter and the rollups; {freed}: what a closed hold held.
ADD_UP = """
, counter AS (
  INSERT INTO {s}.ai_spend_counters AS c
    (organization_id, user_id, period, spent_picos, held_picos)
  SELECT organization_id, user_id, period, coalesce(cost_picos, 0), 0 FROM booked
  ON CONFLICT (organization_id, user_id, period) DO UPDATE
    SET spent_picos = c.spent_picos + excluded.spent_picos, held_picos = c.held_picos - {freed}
  RETURNING c.period
), rolled_up AS (
  INSERT INTO {s}.ai_spend_rollups AS r
    (organization_id, grain, starts_on, group_id, user_id, cost_picos, calls, unpriced_calls)
  SELECT organization_id, grain, starts_on, group_id, user_id, coalesce(cost_picos, 0), 1,
         (unpriced IS NOT NULL)::integer
  FROM counter, booked b, LATERAL (VALUES ('day', b.day), ('month', b.period)) g (grain, starts_on)
  ON CONFLICT (organization_id, grain, starts_on, group_id, user_id) DO UPDATE
    SET cost_picos = r.cost_picos + excluded.cost_picos, calls = r.calls + 1,
        unpriced_calls = r.unpriced_calls + excluded.unpriced_calls
)"""

# A call belongs to the period of its hold: its day is one of that month. Where its cost is not
# wholly known and that of its hold was, it costs at least what the hold set aside: not free.
SETTLE = (
    f"""
WITH input AS (
  SELECT {", ".join(f"CAST(:{count} AS bigint) AS {count}" for count in TOKENS)},
         {{now}} AS now, {{at}} AS at
), priced AS (
  SELECT i.*, p.*,
         greatest({COST}, CASE WHEN ({LACKS_PRICE}) AND p.unpriced IS NULL THEN p.cost_picos END)
           AS cost,
         {UNPRICED} AS lacks,
         least(greatest(timezone(:time_zone, i.at)::date, p.period),
               (p.period + interval '1 month' - interval '1 day')::date) AS day
  FROM input i, {{s}}.ai_holds p WHERE p.id = :hold_id
)"""
    + BOOK.format(source="priced", hold_id="id", cost="cost", unpriced="lacks", s="{s}")
    + """
, closed AS (
  INSERT INTO {s}.ai_holds AS h ({columns})
  SELECT {of_priced} FROM priced p, booked
  ON CONFLICT (id) DO UPDATE SET is_open = false WHERE h.is_open
  RETURNING h.cost_picos
)"""
    + ADD_UP.replace("{freed}", "(SELECT coalesce(sum(cost_picos), 0) FROM closed)")
    + "\nSELECT {answer} FROM priced p LEFT JOIN booked b ON true"
)

RECORD = (
    ASK
    + BOOK.format(
        source="asked",
        hold_id="CAST(NULL AS uuid)",
        cost="cost_picos",
        unpriced="unpriced",
        s="{s}",
    ).replace("WHERE", "WHERE is_member AND")
    + ADD_UP.replace("{freed}", "0")
    + "\nSELECT {answer} FROM asked a LEFT JOIN booked b ON true"
)

RELEASE = """
WITH hold AS (
  SELECT * FROM {s}.ai_holds WHERE id = :hold_id
), closed AS (
  UPDATE {s}.ai_holds SET is_open = false WHERE id = :hold_id AND is_open RETURNING cost_picos
), counter AS (
  INSERT INTO {s}.ai_spend_counters AS c
    (organization_id, user_id, period, spent_picos, held_picos)
  SELECT organization_id, user_id, period, 0, 0 FROM hold WHERE is_open
  ON CONFLICT (organization_id, user_id, period) DO UPDATE
    SET held_picos = c.held_picos - (SELECT coalesce(sum(cost_picos), 0) FROM closed)
)
SELECT id FROM hold
"""

TOLD = ("occurred_at", *TOKENS)
FIND_EVENT = """
SELECT {answer} FROM {s}.ai_usage b
WHERE b.organization_id = :organization_id AND b.event_id = :event_id
"""

# What stands in the way of settling a hold: its event, or another one that it was settled by.
FIND_SETTLED = """
SELECT {answer} FROM {s}.ai_holds h
JOIN {s}.ai_usage b
  ON b.organization_id = h.organization_id AND b.event_id = :event_id OR b.hold_id = h.id
WHERE h.id = :hold_id ORDER BY b.event_id = :event_id DESC LIMIT 1
"""


def _same(*names: str, **values: str) -> str:
    """Say whether a row of usage is what is asked to be booked."""
    asked = {**{name: f":{name}" for name in names}, **values}
    stored = ", ".join(f"b.{name}" for name in asked)
    return f"ROW({stored}) IS NOT DISTINCT FROM ROW({', '.join(asked.values())}) AS is_same"


class SpendStatements:
    """The statements over one layout's tables, one directory and one set of rules."""

    def __init__(self, tables: Tables, directory: Directory, rules: SpendRules) -> None:
        limits = Limits(tables, directory, rules.limit_rule)
        columns = [column.name for column in tables.ai_holds.c]
        parts: dict[str, object] = {
            "now": NOW,
            "is_member": limits.is_member,
            "effective": limits.effective,
            "allows_unpriced": rules.unpriced is Unpriced.ALLOW,
            "max_cost": MAX_COST_PICOS,
            "prices": ", ".join(PRICES),
            "columns": ", ".join(columns),
            "of_priced": ", ".join(f"p.{name}" for name in columns),
            "fits_nothing_taken": FITS.format(taken="0"),
            "fits_what_is_left": FITS.format(taken="c.spent_picos + live"),
        }
        at = f"coalesce(CAST(:occurred_at AS timestamptz), {NOW})"

        def make(template: str, *answer: str, at: str = at) -> Executable:
            return prepare(template, tables.layout, answer, at=at, **parts)

        self.hold = make(ASK + HOLD, *HELD, at=NOW)
        self.settle = make(SETTLE, "p.cost", *BOOKED)
        self.record = make(RECORD, "a.is_member", "a.cost_picos AS cost", *BOOKED)
        self.release = make(RELEASE)
        self.find_event = make(
            FIND_EVENT, _same("user_id", "provider", "model", *TOLD, hold_id="NULL"), *BOOKED
        )
        self.find_settled = make(FIND_SETTLED, _same("event_id", "hold_id", *TOLD), *BOOKED)
