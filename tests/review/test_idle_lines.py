"""A line is idle exactly where taking it out changes no decision of any set of roles."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from tests.review.helpers import both_policies, make_table, policy_rows, write_rows
from tests.review.oracle import ASKED, is_allowed, read_rows
from tests.review.test_table import list_sets

from govbudget.review.check import check_policy
from govbudget.review.meaning import find_idle_lines

pytestmark = pytest.mark.slow

LINE_CODES = {"duplicate-line", "dead-line", "idle-deny", "unasked-right"}


def decide_everything(rows, roles):
    """Every decision that is ever asked for, of every set of the roles, by brute force."""
    return [is_allowed(rows, held, *cell) for held in list_sets(roles) for cell in sorted(ASKED)]


def find_idle_numbers(rows, codes):
    findings = find_idle_lines(make_table(write_rows(rows)))
    return {finding.line for finding in findings if finding.code in codes}


DENIES = ("ada", "site", "group", "read", "deny")
ALLOWS = ("ada", "site", "group", "read", "allow")


@given(policy_rows(max_rows=9, objects=("group", "ai_model_price")))
@example([ALLOWS, ALLOWS])
@example([ALLOWS, DENIES])
@example([DENIES])
@example([DENIES, ("bob", "group", "group", "read", "allow")])
@example([DENIES, ("bob", *ALLOWS[1:]), ("bob", *DENIES[1:])])
@example([("bob", "organization", "ai_model_price", "read", "allow"), ALLOWS])
@example([("bob", "group", "group", "create", "allow"), ALLOWS])
@example([("bob", "site", "ai_model_price", "create", "deny"), ALLOWS])
def test_a_line_is_reported_where_taking_it_out_changes_nothing_and_only_there(rows):
    roles = {row[0] for row in rows}
    before = decide_everything(rows, roles)
    expected = {
        number
        for number, row in enumerate(rows, start=1)
        # Of lines that say the same, the later ones are idle; the first counts for them all.
        if row in rows[: number - 1]
        or decide_everything([other for other in rows if other != row], roles) == before
    }
    assert find_idle_numbers(rows, LINE_CODES) == expected
    for number in expected:
        assert decide_everything(rows[: number - 1] + rows[number:], roles) == before


@given(policy_rows(max_rows=7, objects=("group", "ai_model_price")))
@example([ALLOWS, DENIES])
@example([ALLOWS, DENIES, ("bob", "group", "group", "read", "allow")])
def test_a_role_is_powerless_where_taking_it_out_changes_nothing_and_only_there(rows):
    roles = {row[0] for row in rows}
    before = decide_everything(rows, roles)
    expected = {
        min(number for number, row in enumerate(rows, start=1) if row[0] == role)
        for role in roles
        if decide_everything([row for row in rows if row[0] != role], roles) == before
    }
    assert find_idle_numbers(rows, {"powerless-role"}) == expected


@both_policies
def test_each_line_of_a_shipped_policy_changes_a_decision(shipped):
    rows = read_rows((shipped / "policy.csv").read_text())
    roles = {row[0] for row in rows}
    before = decide_everything(rows, roles)
    for index in range(len(rows)):
        assert decide_everything(rows[:index] + rows[index + 1 :], roles) != before
    assert check_policy(shipped).findings == ()
