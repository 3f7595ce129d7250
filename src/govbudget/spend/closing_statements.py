"""The statements of a closing: each needs the right to `update` the ledger."""

from __future__ import annotations

from govbudget.db.governed import Governed
from govbudget.db.sql import read_time
from govbudget.identity import Action, Ledger
from govbudget.new_ids import write_new_id
from govbudget.spend.statements import NOW, close_due, find_start, free, govern_ledger

KEYS = {"ai_usage": ("organization_id", "event_id"), "ai_holds": ("id",)}
NEXT_MONTH = "(m.month + interval '1 month')"
MAY_END = f"{find_start(NEXT_MONTH)} + :days * interval '1 day'"
OF_MONTH = "starts_on >= :since AND starts_on < CAST(:until AS date) + interval '1 month'"
MONTH_OF = "date_trunc('month', {}::timestamp)::date"


def _govern(name: str, text: str) -> Governed[Ledger]:
    return govern_ledger(f"closing.{name}", text, action=Action.UPDATE)


LOOK = _govern(
    "look",
    f"""
SELECT {MAY_END} <= {NOW} AS has_ended, {read_time(MAY_END, "at")}, c.month AS marked, c.file,
       c.closed_at IS NOT NULL AS is_closed, {{s}}.is_closed(m.month) AS is_past,
       least((SELECT min(period) FROM {{s}}.ai_usage WHERE period < m.month),
             (SELECT min(period) FROM {{s}}.ai_holds WHERE period < m.month)) AS earlier,
       (SELECT p.file ->> 'sha256' FROM {{s}}.ai_closings p WHERE p.month < m.month
        ORDER BY p.month DESC LIMIT 1) AS previous
FROM (SELECT CAST(:month AS date) AS month) m
LEFT JOIN {{s}}.ai_closings c ON c.month = m.month
""",
)
MARK = _govern("mark", "INSERT INTO {s}.ai_closings (month) VALUES (:month) ON CONFLICT DO NOTHING")
# What was under way when the month was marked has a snapshot, or a number, from before `boundary`.
LOCK = _govern("lock", "SELECT pg_try_advisory_xact_lock(hashtextextended('{s}.ai_closings', 0))")
BOUNDARY = _govern(
    "boundary", "SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)"
)
# Who may not read another's statistics sees no `backend_type`; workers of the server have no user.
OLDER = _govern(
    "older",
    """
SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) < :boundary
         OR count(pid) FILTER (WHERE age(backend_xmin) > b.age AND datname = current_database()) > 0
         AS is_there,
       coalesce(string_agg(pid::text, ', ' ORDER BY pid), 'none') AS processes
FROM (SELECT age(CAST(CAST(:boundary % 4294967296 AS text) AS xid)) AS age) b
LEFT JOIN pg_catalog.pg_stat_activity
  ON pid <> pg_backend_pid() AND usesysid IS NOT NULL
  AND (age(backend_xmin) > b.age OR age(backend_xid) > b.age)
""",
)
# Of one member and past month, the first of which some expired; of a closed month all have.
SWEEP = _govern(
    "sweep",
    f"""
WITH asking AS (
  SELECT organization_id, user_id, period, at
  FROM (
    SELECT h.*, CASE WHEN period <= (SELECT max(month) FROM {{s}}.ai_closings) THEN 'infinity'
                     ELSE {NOW} END AS at
    FROM {{s}}.ai_holds h
    WHERE is_open AND period < {MONTH_OF.format(f"timezone({{zone}}, {NOW})")}
  ) AS open
  WHERE expires_at <= at LIMIT 1
), {close_due()}, {free("asking", "expired")}
SELECT count(*) FROM asking
""",
)


def _read_rows(table: str) -> Governed[Ledger]:
    text = f"SELECT to_json(t)::text AS row FROM {{s}}.{table} t WHERE period = :month"
    return _govern(f"read_{table}", text)


def _delete_rows(table: str) -> Governed[Ledger]:
    """Delete rows that are, to the last column, as the file has them."""
    is_it = " AND ".join(f"t.{key} = f.{key}" for key in KEYS[table])
    return _govern(
        f"delete_{table}",
        f"""
DELETE FROM {{s}}.{table} t
USING jsonb_populate_recordset(CAST(NULL AS {{s}}.{table}), CAST(:batch AS jsonb)) f
WHERE {is_it} AND t = f
""",
    )


READ_USAGE, READ_HOLDS = map(_read_rows, KEYS)
DELETE_USAGE, DELETE_HOLDS = map(_delete_rows, KEYS)
ROLLUPS = f"""
SELECT organization_id, group_id, user_id, provider, model, grain, starts_on, cost_picos AS cost,
       calls, unpriced_calls AS unpriced
FROM {{s}}.ai_spend_rollups WHERE {OF_MONTH}"""
# The sums of a month and organization, and a digest of every sum of a member, in any order.
SUMS = _govern(
    "sums",
    f"""
SELECT month, organization_id, jsonb_build_object(
  'cost_picos', sum(cost)::text, 'calls', sum(calls), 'unpriced_calls', sum(unpriced),
  'digest', sum(CAST(CAST('x' || left(md5(line), 15) AS bit(60)) AS bigint))::text) AS sums
FROM (
  SELECT {MONTH_OF.format("starts_on")} AS month, organization_id,
         CASE grain WHEN 'month' THEN cost ELSE 0 END AS cost,
         CASE grain WHEN 'month' THEN calls ELSE 0 END AS calls,
         CASE grain WHEN 'month' THEN unpriced ELSE 0 END AS unpriced,
         jsonb_build_array(grain, starts_on - date '2000-01-01', group_id, user_id, provider,
                           model, cost, calls, unpriced)::text AS line
  FROM ({ROLLUPS}) AS r
  UNION ALL
  SELECT period, organization_id, 0, 0, 0, concat_ws('/', user_id, spent_picos, held_picos)
  FROM {{s}}.ai_spend_counters WHERE period BETWEEN :since AND :until
) AS lines GROUP BY month, organization_id
""",
)
SPENT = _govern(
    "spent",
    f"""
SELECT organization_id, group_id, user_id, grain, sum(cost) AS cost, sum(calls) AS calls,
       sum(unpriced) AS unpriced
FROM ({ROLLUPS}) AS r GROUP BY organization_id, group_id, user_id, grain
""",
)
STORE = _govern(
    "store",
    f"""
WITH stored AS (
  UPDATE {{s}}.ai_closings SET file = :facts, sums = :sums
  WHERE month = :month AND file IS NULL RETURNING month
)
INSERT INTO {{s}}.audit_log (id, object_type, object_id, after, receipt)
SELECT {write_new_id()}, 'ai_closing', to_char(month, 'YYYY-MM'), :facts, :receipt FROM stored
""",
)
END = _govern(
    "end",
    """
UPDATE {s}.ai_closings SET closed_at = coalesce(closed_at, now())
WHERE month = :month AND NOT EXISTS (SELECT FROM {s}.ai_usage WHERE period = :month)
  AND NOT EXISTS (SELECT FROM {s}.ai_holds WHERE period = :month)
RETURNING month
""",
)
# What was refused in the month and before: the file does not have it, as it cost nothing.
FORGET = _govern(
    "forget",
    "DELETE FROM {s}.ai_refusals WHERE day < CAST(:month AS date) + interval '1 month'",
)
LIST = _govern(
    "list",
    """
SELECT month, file, sums, EXISTS (
  SELECT FROM {s}.audit_log l WHERE l.organization_id IS NULL AND l.object_type = 'ai_closing'
  AND l.object_id = to_char(month, 'YYYY-MM') AND l.after = c.file) AS is_in_trail
FROM {s}.ai_closings c WHERE file IS NOT NULL ORDER BY month
""",
)
