"""No one-step edit of a shipped policy goes unnoticed by its matrix.csv."""

from __future__ import annotations

from functools import cache

import pytest
from tests.review.helpers import FOLDERS, copy_policy
from tests.review.oracle import ACTIONS, OBJECTS, REACHED_FROM, decide_all, read_rows

from govbudget import Policy
from govbudget.testing import mutants

pytestmark = pytest.mark.slow

SCOPES, EFFECTS = ("site", "organization", "group", "user"), ("allow", "deny")


def list_edits(rows):
    """Every one-step edit, worked out a second time: the rows that it leads to."""
    roles = sorted({row[0] for row in rows})
    sets = (roles, SCOPES, OBJECTS, ACTIONS, EFFECTS)
    for index, row in enumerate(rows):
        before, after = rows[:index], rows[index + 1 :]
        yield [*before, *after]
        for place, values in enumerate(sets):
            for value in values:
                if value != row[place]:
                    yield [*before, (*row[:place], value, *row[place + 1 :]), *after]
    scopes = {row[0]: row[1] for row in rows}
    for role in roles:
        for obj in OBJECTS:
            for action in ACTIONS:
                yield [*rows, (role, scopes[role], obj, action, "deny")]


@pytest.fixture(scope="module")
def make_mutants():
    """The mutants of a shipped policy, made once."""
    return cache(lambda name: list(mutants(Policy.load(FOLDERS[name]))))


each_policy = pytest.mark.parametrize(
    "name", ["shipped", pytest.param("dedicated", marks=pytest.mark.long)]
)


@each_policy
def test_every_one_step_edit_is_killed_or_means_the_same(name, make_mutants):
    made = make_mutants(name)
    assert [mutant.edit for mutant in made if mutant.survives] == []
    edits = list(list_edits(read_rows((FOLDERS[name] / "policy.csv").read_text())))
    assert len({mutant.edit for mutant in made}) == len(made) == len(edits)


@each_policy
def test_a_mutant_that_is_called_equivalent_decides_the_same(name, make_mutants):
    """The proof of equivalence, by the oracle: the same cells and the same scopes."""
    rows = read_rows((FOLDERS[name] / "policy.csv").read_text())
    before = decide_all(rows)
    same = sum(
        decide_all(edited) == before
        for edited in list_edits(rows)
        if len({row[:2] for row in edited}) == len({row[0] for row in edited})  # one scope a role
    )
    assert sum(mutant.is_equivalent for mutant in make_mutants(name)) == same
    # The only such edit is to deny a role what can't be reached from its scope.
    places = [scope for _, scope in {row[:2] for row in rows}]
    beyond = sum(scope not in REACHED_FROM[obj] for scope in places for obj in OBJECTS)
    assert same == beyond * len(ACTIONS)


def find_survivors(folder):
    return [mutant.edit for mutant in mutants(Policy.load(folder)) if mutant.survives]


def test_mutants_survive_where_the_scopes_were_not_reviewed_and_more_without_a_review(tmp_path):
    folder = copy_policy(FOLDERS["shipped"], tmp_path / "policy")
    (folder / "policy.csv").write_text("p, member, group, group, read, allow\n")
    review = folder / "matrix.csv"
    review.write_text("role,object,action,decision,scope\nmember,group,read,allow,group\n")
    assert find_survivors(folder) == []
    review.write_text("role,object,action,decision\nmember,group,read,allow\n")
    moved = [f"change group to {scope} in policy.csv:1" for scope in ("site", "organization")]
    assert find_survivors(folder) == moved
    review.unlink()
    assert "change allow to deny in policy.csv:1" in find_survivors(folder)
