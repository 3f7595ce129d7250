"""Every error can leave its process: a pool or a task queue pickles what a worker raises."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from uuid import UUID

import pytest

from govbudget import errors
from govbudget.identity import Action
from govbudget.spend import errors as of_spend

HOLD = UUID(int=7)
ERRORS = [
    errors.GovBudgetError("invalid-id", "`x` is not an id"),
    errors.NotFound("group", ("policy.csv:7 (owner in its site)",)),
    errors.Forbidden(Action.UPDATE, ("policy.csv:9",), (), "; ask an owner"),
    errors.InvalidInput("wrong", [errors.FieldError("/limit", "too high")], "invalid-query"),
    errors.PreconditionFailed(),
    errors.GroupChanged(),
    errors.GrantRefused("another right"),
    errors.SettingsError("`X` is not a setting"),
    errors.PolicyError([errors.Finding("policy.csv", 3, "no-lines", "nothing")]),
    of_spend.BudgetExceeded(
        limit_micros=5,
        limit_source="group",
        group_id=HOLD,
        spent_picos=1,
        held_picos=2,
        cost_picos=3,
        period_end=datetime(2026, 12, 1, tzinfo=UTC),
    ),
    of_spend.UnpricedModel("openai", "gpt-0", ["output"]),
    of_spend.NotAMember(),
    of_spend.EventConflict("e1"),
    of_spend.HoldConflict(HOLD),
    of_spend.HoldClosed(HOLD, "released"),
    of_spend.EventCorrected("e1", "e2"),
]


def list_classes(base):
    return {base}.union(*map(list_classes, base.__subclasses__()))


def test_one_of_each_class_is_here():
    ours = {one for one in list_classes(errors.GovBudgetError) if "govbudget" in one.__module__}
    assert {type(error) for error in ERRORS} >= ours


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("send", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_it_arrives_with_all_that_it_says(error, send):
    arrived = send(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error) == arrived.detail
    assert vars(arrived) == vars(error)
    assert (arrived.status, arrived.members) == (error.status, error.members)
