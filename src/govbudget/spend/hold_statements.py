"""The rest of a hold's life: looked up, extended, released. `statements` explains the locks."""

from __future__ import annotations

from govbudget.spend.statements import (
    HOLDS,
    MAY_BE_UNPRICED,
    MOST,
    NOW,
    REFUSAL,
    close_due,
    free,
    govern_ledger,
)

# A hold that expired has this state whether or not its money was taken out of the counter.
STATE = f"""CASE WHEN h.ended IS NOT NULL THEN split_part(h.ended, ' ', 1)
  WHEN h.is_open AND h.expires_at > {NOW} THEN 'open' ELSE 'expired' END AS state"""
FIND_HOLD = govern_ledger(
    "spend.find_hold",
    "SELECT {answer} FROM {s}.ai_holds h WHERE h.id = :hold_id",
    (
        *("h.id", "h.organization_id", "h.user_id", "h.group_id", "h.provider", "h.model"),
        *("h.priced_as", "h.cost_picos", "h.unpriced", "h.expires_at", "h.body_digest", STATE),
    ),
)

# An expired hold is admitted anew, so the counter's row is locked first, and `seen` is the hold as
# it is then: settled, released, extended or taken out of the counter by now. `mine` is what of it
# the counter has, although it expired.
EXTEND = govern_ledger(
    "spend.extend",
    f"""
WITH {{directory}}, input AS (
  SELECT h.*, ttl, now, coalesce(now, statement_timestamp()) AS at
  FROM (SELECT :hold_id AS hold_id, CAST(:ttl AS interval) AS ttl, :now AS now) passed
  JOIN {{s}}.ai_holds h ON h.id = passed.hold_id AND NOT {{s}}.is_closed(h.period)
), asked AS (
  SELECT *, coalesce(cost_picos, 0) AS cost, {MOST}, {MAY_BE_UNPRICED} AS may_be_unpriced
  FROM (
    SELECT i.*, {{is_member}} AS is_member, e.group_id AS limiting_group_id, e.spend_limit_micros,
           e.limit_source, e.limit_expires_at
    FROM input i LEFT JOIN LATERAL ({{effective}}) e ON true
  ) AS limited
), asking AS (
  SELECT * FROM asked
  WHERE is_member AND ended IS NULL AND (may_be_unpriced OR is_open AND expires_at > at)
), {close_due("AND h.id <> a.id")}, seen AS (
  SELECT is_open, expires_at, ended FROM {{s}}.ai_holds
  WHERE id = (SELECT id FROM asking) FOR UPDATE
), counter AS (
  INSERT INTO {{s}}.ai_spend_counters AS c
    (organization_id, user_id, period, spent_picos, held_picos)
  SELECT organization_id, user_id, period, 0, 0 FROM asking
  ON CONFLICT (organization_id, user_id, period) DO UPDATE SET (held_picos, last_hold_id) = (
    SELECT CASE WHEN fits THEN live + cost ELSE live + mine END,
           CASE WHEN fits THEN id ELSE NULLIF(c.last_hold_id, id) END
    FROM (
      SELECT *, ended IS NULL AND (is_live OR may_be_unpriced
                                   AND c.spent_picos + live + cost <= most) AS fits
      FROM (
        SELECT a.id, cost, most, may_be_unpriced, mine, s.ended,
               s.is_open AND s.expires_at > a.at AS is_live,
               c.held_picos - mine - coalesce((SELECT sum(cost_picos) FROM expired), 0) AS live
        FROM asking a, seen s, LATERAL (SELECT CASE WHEN s.is_open THEN cost ELSE 0 END AS mine) m
      ) AS found
    ) AS decided
  )
  RETURNING spent_picos, last_hold_id, (SELECT ended FROM seen),
            held_picos - coalesce((SELECT cost FROM asking, seen s WHERE s.is_open), 0)
              AS held_picos
), extended AS (
  INSERT INTO {{s}}.ai_holds AS h ({", ".join(HOLDS)})
  SELECT {", ".join(HOLDS)} FROM asking, counter WHERE last_hold_id = id
  ON CONFLICT (id) DO UPDATE SET is_open = true, expires_at = greatest(
    h.expires_at, (SELECT coalesce(now, clock_timestamp()) + ttl FROM input)
  )
  RETURNING h.expires_at
)
SELECT {{answer}} FROM asked a LEFT JOIN counter c ON true LEFT JOIN extended h ON true
""",
    (
        *("a.id", "a.organization_id", "a.user_id", "a.cost_picos", "a.unpriced", "h.expires_at"),
        *("a.provider", "a.model", "a.priced_as", "'open' AS state"),
        "CASE WHEN h.expires_at IS NULL THEN a.limiting_group_id ELSE a.group_id END AS group_id",
        "coalesce(c.ended, a.ended) AS ended",
        f"CASE WHEN h.expires_at IS NULL THEN {REFUSAL} END AS refusal",
    ),
)

RELEASE = govern_ledger(
    "spend.release",
    f"""
WITH hold AS (
  SELECT * FROM {{s}}.ai_holds WHERE id = :hold_id AND NOT {{s}}.is_closed(period)
), closed AS (
  UPDATE {{s}}.ai_holds
  SET is_open = false, ended = CASE WHEN is_open THEN 'released' ELSE 'released late' END
  WHERE id = (SELECT id FROM hold) AND ended IS NULL
  RETURNING CASE ended WHEN 'released' THEN cost_picos END AS cost_picos
), {free("hold WHERE ended IS NULL", "closed")}
SELECT id FROM hold
""",
)
