"""The ledger of a range of days, row by row: for an auditor's own tools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from govbudget.db.governed import MEMBERS, Governed
from govbudget.db.unit import Grant
from govbudget.identity import Action, Organization
from govbudget.money import PRICES, TOKENS
from govbudget.spend.report import Question
from govbudget.text import write_value

# `at` is when the call was made, as its caller says.
_READ = {"occurred_at": "u.occurred_at AS at"}
COLUMNS = (
    *("event_id", "occurred_at", "recorded_at", "day", "user_id", "group_id", "hold_id"),
    *("provider", "model", "priced_as", *TOKENS, "further_tokens", *PRICES, "more"),
    *("cost_picos", "unpriced", "corrects", "corrected_picos", "reason"),
)
# By day, so that no index has to be written at each call for it; the database sorts.
LEDGER = Governed(
    "spend.ledger",
    Action.READ,
    Organization,
    """
SELECT {answer} FROM {s}.ai_usage u
WHERE u.organization_id = :organization_id AND u.day >= :since AND u.day < :until AND {reach}
ORDER BY u.day, u.event_id
""",
    tuple(_READ.get(name, f"u.{name}") for name in COLUMNS),
    reach=MEMBERS,
    column="u.user_id",
)

# Months whose rows are in a file, and how many calls of the organization are.
CLOSED = Governed(
    "spend.closed",
    Action.READ,
    Organization,
    """
SELECT c.month, c.file ->> 'sha256' AS sha256,
       coalesce(c.sums -> CAST(:organization_id AS text) ->> 'calls', '0') AS calls
FROM {s}.ai_closings c
WHERE c.file IS NOT NULL AND c.month < :until AND c.month + interval '1 month' > :since
ORDER BY c.month
""",
)


def list_closed(grant: Grant[Organization], question: Question) -> Iterator[tuple[str, str, int]]:
    """Give each closed month in the range of the question, as `2026-08`, with its file's SHA-256.

    And how many calls of the organization that file has. Needs a grant to `read` the organization.
    """
    for month, digest, calls in grant.run(CLOSED, since=question.since, until=question.until):
        yield f"{month:%Y-%m}", digest, int(calls)


def read_ledger(grant: Grant[Organization], question: Question) -> Iterator[dict[str, Any]]:
    """Give each row of the ledger in the range of the question, by day and event, as JSON has it.

    Costs are exact picos; a correction's is the difference. Of the users whose spend the caller may
    read. Needs a grant to `read` the organization. How many rows are in memory at once is said by
    the `yield_per` of the connection.
    """
    for row in grant.run(LEDGER, since=question.since, until=question.until):
        yield dict(zip(COLUMNS, map(write_value, row), strict=True))
