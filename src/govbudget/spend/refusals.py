"""Calls that were refused: how many of a member, a day and a reason, and the last of them.

However often a caller is refused, and for however many models, these are a few rows a member and
day. The log has each refusal.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from govbudget.db.governed import Governed
from govbudget.db.retries import apart
from govbudget.db.unit import Grant
from govbudget.identity import Action, Id, Ledger, Member
from govbudget.ids import MAX_NAME
from govbudget.spend.errors import BudgetExceeded, UnpricedModel
from govbudget.spend.limits import describe_limits
from govbudget.spend.statements import NOW, govern_ledger

logger = logging.getLogger("govbudget")

KEY = "organization_id, user_id, day, code"
OF_LAST = (
    *("last_at", "provider", "model", "cost_picos"),
    *("spend_limit_micros", "limit_source", "group_id"),
)
# One row, one lock, and nothing is locked after it.
NOTE = govern_ledger(
    "refusals.note",
    f"""
INSERT INTO {{s}}.ai_refusals AS r ({KEY}, calls, {", ".join(OF_LAST)})
SELECT :organization_id, :user_id, timezone({{zone}}, at)::date, :code, 1,
       at, left(:provider, {MAX_NAME}), left(:model, {MAX_NAME}), :cost_picos,
       :limit, :source, :group_id
FROM (SELECT {NOW} AS at) i
ON CONFLICT ({KEY}) DO UPDATE
  SET calls = r.calls + 1, {", ".join(f"{name} = excluded.{name}" for name in OF_LAST)}
""",
)
LIST = Governed(
    "refusals.list",
    Action.READ,
    Member,
    f"""
SELECT {{answer}} FROM {{s}}.ai_refusals r
WHERE r.organization_id = :organization_id AND r.user_id = :user_id
  AND r.day >= date_trunc('month', timezone({{zone}}, {NOW}))::date
ORDER BY r.day DESC, r.code
""",
    ("r.day", "r.code", "r.calls", "r.last_at AS at", *(f"r.{name}" for name in OF_LAST[1:])),
    parts=describe_limits,
)


@dataclass(frozen=True, slots=True)
class Refused:
    """Calls of a member that were refused on a day for one reason, and the last of them.

    `day` is of the configured zone; `code` is `budget-exceeded` or `unpriced-model`. Of the last
    call: when it was, its model, what is known of its cost, in picos, and of `budget-exceeded` the
    limit that it did not fit under, and what set that: `group` or `user_override`.
    """

    day: date
    code: str
    calls: int
    last_at: datetime
    provider: str
    model: str
    cost_picos: int | None
    limit_micros: int | None
    limit_source: str | None
    group_id: Id | None


def note_refusal(
    grant: Grant[Ledger],
    call: Any,  # noqa: ANN401 - a call, or the row of a hold
    refusal: BudgetExceeded | UnpricedModel,
    cost_picos: int | None,
) -> None:
    """Note that a call was refused: one statement, on a connection of our own alone.

    A host's transaction may be rolled back, and its locks are the host's. Where it fails, the log
    says so, and the call is refused all the same.
    """
    # INVARIANT: a refusal is answered whether or not it could be noted
    unit = grant.unit
    if not unit.owns_connection:
        return
    limits: dict[str, Any] = dict.fromkeys(("limit", "source", "group_id"))
    if isinstance(refusal, BudgetExceeded):
        limits |= {"limit": refusal.limit_micros, "source": refusal.limit_source}
        limits |= {"group_id": refusal.group_id}
    names = ("organization_id", "user_id", "provider", "model")
    values = {name: getattr(call, name) for name in names} | {"cost_picos": cost_picos}
    try:
        with apart(unit.connection):
            grant.run(NOTE, **values, **limits, code=refusal.code)
    except Exception as error:  # noqa: BLE001 - whatever it is
        logger.error("a refused call was not noted: %s", str(error).partition("\n")[0])  # noqa: TRY400 - one line each


def list_refusals(grant: Grant[Member]) -> Sequence[Refused]:
    """List the member's refused calls of this month, the last day first.

    Needs a grant to `read` the member. One statement; never commits.
    """
    return [Refused(*row) for row in grant.run(LIST)]
