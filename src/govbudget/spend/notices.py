"""Notices: a member's spend has crossed a threshold of the limit that holds; each one once.

Usage reports a crossing in its own statement, by the row of the counter that it has locked: what
was spent before it and after it. Another limit may cross a threshold without any usage: a sweep
compares the counters with the limits. Whoever comes second finds the notice there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from govbudget.budgets.budget import LimitSource
from govbudget.db.governed import MEMBERS, Governed
from govbudget.db.times import IN_MICROSECONDS, find_time
from govbudget.db.unit import Grant
from govbudget.identity import Action, Id, Ledger, Organization
from govbudget.money import PICOS_PER_MICRO, round_up_to_micros
from govbudget.new_ids import write_new_id
from govbudget.spend.limits import describe_limits

CROSSED = "threshold_crossed"  # the signal
# One value, and texts in it, as of `REFUSAL`.
NOTICE = f"""jsonb_build_object(
  'id', n.id, 'organization_id', n.organization_id, 'user_id', n.user_id, 'period', n.period,
  'threshold', n.threshold, 'limit_micros', n.spend_limit_micros, 'limit_source', n.limit_source,
  'group_id', n.group_id, 'spent_picos', n.spent_picos::text,
  'created_at', {IN_MICROSECONDS.format("n.created_at")}
)"""
COLUMNS = (
    *("id", "organization_id", "user_id", "period", "threshold", "spend_limit_micros"),
    *("limit_source", "group_id", "spent_picos", "created_at"),
)
REACHED = f"e.spend_limit_micros::numeric * ({PICOS_PER_MICRO} / 100) * t.percent"


def write_notices(spent: str, limit: str, where: str) -> str:
    """Write the CTE `noticed`: notices of the thresholds that were crossed.

    `spent` gives, as `i`, whose counter it is and what has been spent; `limit`, as `e`, the limit
    that holds; `where` says which of the thresholds that are reached.
    """
    return f"""
, noticed AS (
  INSERT INTO {{s}}.ai_notices AS n ({", ".join(COLUMNS)})
  SELECT {write_new_id("i.organization_id")}, i.organization_id, i.user_id, i.period, t.percent,
         e.spend_limit_micros, e.limit_source, e.group_id, i.spent_picos,
         coalesce(i.now, statement_timestamp())
  FROM {spent} i CROSS JOIN LATERAL ({limit}) e CROSS JOIN unnest({{thresholds}}) t (percent)
  WHERE e.spend_limit_micros > 0 AND i.spent_picos >= {REACHED} AND {where}
  ORDER BY i.organization_id, i.user_id, t.percent
  ON CONFLICT DO NOTHING
  RETURNING {NOTICE} AS notice
)"""


def write_crossings(limit: str = "{effective}") -> str:
    """Write the CTE `noticed` of a statement that adds `recorded` to `counter`.

    A later one adds to what this one has added: each threshold is crossed by one of them.
    """
    return write_notices(
        """(
    SELECT u.organization_id, u.user_id, c.period, c.spent_picos, u.cost_picos, input.now
    FROM counter c, recorded u, input WHERE u.cost_picos > 0
  )""",
        limit,
        f"i.spent_picos - i.cost_picos < {REACHED}",
    )


NOTICED = "(SELECT jsonb_agg(notice) FROM noticed) AS notices"

LIST = Governed(
    "notices.list",
    Action.READ,
    Organization,
    """
SELECT {answer} FROM {s}.ai_notices n
WHERE n.organization_id = :organization_id AND {reach} {after}
ORDER BY n.id DESC LIMIT :page_size
""",
    (f"{NOTICE} AS notice",),
    reach=MEMBERS,
    column="n.user_id",
    past=("entry_id", "n.id < :entry_id"),
)


def _sweep(name: str, which: str, past: str) -> Governed[Ledger]:
    """Write the statement that sweeps a page of this month's counters, and says which was last."""
    return Governed(
        name,
        Action.CREATE,
        Ledger,
        f"""
WITH {{directory}}, input AS (
  SELECT *, date_trunc('month', timezone({{zone}}, coalesce(now, statement_timestamp())))::date
              AS period
  FROM (SELECT :now AS now) passed
), page AS (
  SELECT c.organization_id, c.user_id, c.period, c.spent_picos, input.now
  FROM {{s}}.ai_spend_counters c, input
  WHERE c.period = input.period AND {which} {{after}}
  ORDER BY c.organization_id, c.user_id LIMIT :limit
){
            write_notices(
                "page",
                "{effective}",
                '''NOT EXISTS (
    SELECT FROM {s}.ai_notices n
    WHERE (n.organization_id, n.user_id, n.period, n.threshold, n.spend_limit_micros)
      = (i.organization_id, i.user_id, i.period, t.percent, e.spend_limit_micros))''',
            )
        }
SELECT {{answer}} FROM page p ORDER BY p.organization_id DESC, p.user_id DESC LIMIT 1
""",
        ("p.organization_id", "p.user_id", NOTICED),
        past=("after", past),
        parts=describe_limits,
    )


SWEEP = _sweep(
    "notices.sweep", "true", "(c.organization_id, c.user_id) > (:after_organization, :after)"
)
SWEEP_ONE = _sweep(
    "notices.sweep_one", "c.organization_id = :organization_id", "c.user_id > :after"
)


@dataclass(frozen=True, slots=True)
class Notice:
    """A member's spend has crossed a threshold of their limit, in a period.

    `period` is the first day of the month; `threshold` is percent of `limit_micros`, the limit that
    held. `group_id` is the group whose budget or override set it; `spent_picos` is what was spent
    when it was noticed.
    """

    id: UUID
    organization_id: Id
    user_id: Id
    period: date
    threshold: int
    limit_micros: int
    limit_source: LimitSource
    group_id: Id
    spent_picos: int
    created_at: datetime

    @property
    def spent_micros(self) -> int:
        """What was spent when it was noticed, rounded up."""
        return round_up_to_micros(self.spent_picos)

    @property
    def month(self) -> str:
        """The month, such as `2026-11`."""
        return f"{self.period:%Y-%m}"


class Notices:
    """The functions on notices, run by a grant. They never commit."""

    @staticmethod
    def list(
        grant: Grant[Organization], *, limit: int, after: UUID | None = None
    ) -> Sequence[Notice]:
        """List notices, the newest first: of the caller, and of members whose spend they may read.

        At most `limit`, those older than the notice `after`. Needs a grant to `read` the
        organization. One statement.
        """
        rows = grant.run(LIST, page_size=limit, entry_id=after)
        return [_read_notice(grant, row.notice) for row in rows]

    @staticmethod
    def sweep(
        grant: Grant[Ledger], organization_id: Id | None = None, *, page_size: int = 1000
    ) -> Sequence[Notice]:
        """Notice what this month's spend has crossed by another limit, and give what is new.

        Compares each member's counter with the limit that holds now, of all organizations or of
        one: a limit that was lowered, another membership, an override that has ended. Needs a grant
        to `create` on the ledger. One statement for each `page_size` counters. Once more finds
        nothing.
        """
        values: dict[str, Id | None] = {"limit": page_size, "after": None}
        statement = SWEEP
        if organization_id is not None:
            statement, values["organization_id"] = SWEEP_ONE, organization_id
        found: list[Notice] = []
        while (row := grant.run(statement, **values).one_or_none()) is not None:
            found += report_crossings(grant, row.notices)
            values["after"] = row.user_id
            if statement is SWEEP:
                values["after_organization"] = row.organization_id
        return found


def report_crossings(grant: Grant[Any], notices: Iterable[dict[str, Any]] | None) -> list[Notice]:
    """Read the notices that a statement made, and let the unit report each of them."""
    found = [_read_notice(grant, facts) for facts in notices or ()]
    for notice in found:
        grant.report(CROSSED, notice=notice)
    return found


def _read_notice(grant: Grant[Any], facts: dict[str, Any]) -> Notice:
    accept = grant.unit.gov.settings.id_type.accept
    ids = ("organization_id", "user_id", "group_id")
    return Notice(
        **{
            **facts,
            **{name: accept(facts[name]) for name in ids},
            "id": UUID(facts["id"]),
            "period": date.fromisoformat(facts["period"]),
            "limit_source": LimitSource(facts["limit_source"]),
            "spent_picos": int(facts["spent_picos"]),
            "created_at": find_time(facts["created_at"]),
        }
    )
