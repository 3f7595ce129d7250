"""The table says what a second, independent reading of the same lines says."""

from __future__ import annotations

from itertools import chain, combinations

import casbin
import pytest
from hypothesis import given
from tests.review.helpers import (
    FOLDERS,
    both_policies,
    make_table,
    policy_rows,
    read_cells,
    write_rows,
)
from tests.review.oracle import ACTIONS, ASKED, OBJECTS, decide_all, is_allowed, read_rows

from govbudget import Policy
from govbudget.review.meaning import find_broken_invariants


def list_sets(roles):
    return chain.from_iterable(combinations(sorted(roles), n) for n in range(len(roles) + 1))


def find_differences(table, rows):
    """The sets of roles that the table and the oracle decide differently."""
    return [
        (roles, obj, action)
        for roles in list_sets(table.scopes)
        for obj in OBJECTS
        for action in ACTIONS
        if table.decide(roles, obj, action).allowed is not is_allowed(rows, roles, obj, action)
    ]


@both_policies
def test_a_shipped_policy_decides_what_its_lines_say(shipped):
    rows = read_rows((shipped / "policy.csv").read_text())
    table = Policy.load(shipped).table
    assert read_cells(table) == decide_all(rows)
    assert find_differences(table, rows) == []


@both_policies
def test_the_reviewed_matrix_of_a_shipped_policy_is_what_its_lines_say(shipped):
    cells, scopes = decide_all(read_rows((shipped / "policy.csv").read_text()))
    header, *reviewed = (shipped / "matrix.csv").read_text().splitlines()
    assert header == "role,object,action,decision,scope"
    asked = [cell for cell in sorted(cells) if cell[1:] in ASKED]
    if shipped == FOLDERS["shipped"]:
        asked = [cell for cell in asked if cell[1] != "group_ai_budget"]
    assert reviewed == [",".join((*cell, cells[cell], scopes[cell[0]])) for cell in asked]
    assert {cells[cell] for cell in cells.keys() - set(asked)} == {"deny"}


@given(policy_rows())
def test_any_policy_decides_what_its_lines_say_for_every_set_of_roles(rows):
    table = make_table(write_rows(rows))
    assert read_cells(table) == decide_all(rows)
    assert find_differences(table, rows) == []


@given(policy_rows())
def test_the_deciding_lines_are_all_the_lines_that_say_so(rows):
    table = make_table(write_rows(rows))
    for roles in list_sets(table.scopes):
        for obj in OBJECTS:
            for action in ACTIONS:
                decision = table.decide(roles, obj, action)
                matching = [
                    number
                    for number, row in enumerate(rows, start=1)
                    if is_allowed([(*row[:4], "allow")], roles, obj, action)
                ]
                denying = [n for n in matching if rows[n - 1][4] == "deny"]
                expected = denying or matching
                assert decision.lines == tuple(f"policy.csv:{n}" for n in expected)


def count_questions(monkeypatch, roles):
    """How many lines Casbin walks while a policy of twelve lines a role is loaded and checked."""
    rows = [
        (f"role-{number}", "organization", obj, action, effect)
        for number in range(roles)
        for obj in OBJECTS
        for action in ACTIONS
        for effect in ("allow", "deny")
    ]
    walked = []
    enforce = casbin.Enforcer.enforce

    def count(enforcer, *asked):
        walked.append(len(enforcer.get_policy()))
        return enforce(enforcer, *asked)

    with monkeypatch.context() as patch:
        patch.setattr(casbin.Enforcer, "enforce", count)
        list(find_broken_invariants(make_table(write_rows(rows))))
    return sum(walked)


@pytest.mark.slow
def test_the_work_of_loading_grows_as_the_lines_and_not_as_their_square(monkeypatch):
    assert count_questions(monkeypatch, 12) == 3 * count_questions(monkeypatch, 4) > 0
