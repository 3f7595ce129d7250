"""What a report says of a member, in micros: spent and held rounded up, left rounded down."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from govbudget.spend.answers import MemberSpendAnswer
from govbudget.spend.this_month import MemberSpend, Period

MAY, JUNE = (datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6))


@pytest.mark.parametrize(
    ("limit", "spent", "held", "expected"),
    [
        (None, 1, 0, (1, 0, None)),
        (5, 0, 0, (0, 0, 5)),
        (5, 1, 0, (1, 0, 4)),
        (5, 1_500_000, 1_400_000, (2, 2, 2)),
        (5, 1_500_000, 1_500_000, (2, 2, 2)),
        (5, 5_000_000, 0, (5, 0, 0)),
        (0, 7_000_001, 3, (8, 1, 0)),
    ],
)
def test_micros_are_whole_and_promise_nothing_that_would_be_refused(limit, spent, held, expected):
    spend = MemberSpend(1, 2, Period(MAY, JUNE), 3, limit, "group", spent, held)
    answer = MemberSpendAnswer.model_validate(spend)
    assert (answer.current_spend_micros, answer.held_micros, spend.left_micros) == expected
    assert (spend.spent_micros, spend.held_micros, spend.left_micros) == expected
    assert answer.period_end == spend.period_end == JUNE
