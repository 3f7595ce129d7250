"""The formula that policy/README.md gives a reviewer is what decides: it is run as an oracle."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from tests.policy.helpers import LINES, MORE, answer, load_unreviewed
from tests.policy.test_authorize import OBJECTS, PEOPLE

from govbudget.authz.files import packaged_policy_dir
from govbudget.identity import Action, Scope

README = (packaged_policy_dir() / "README.md").read_text()
DEDICATED = (packaged_policy_dir() / "dedicated" / "policy.csv").read_bytes()


def read_lines(text):
    rows = (line.split(",") for line in text.decode().splitlines() if line.startswith("p,"))
    keys = ("role", "scope", "object", "action", "effect")
    return [
        SimpleNamespace(**dict(zip(keys, map(str.strip, row[1:]), strict=True))) for row in rows
    ]


def make_formula(lines):
    """Run the block of the README over some lines."""
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    names = {"policy_csv": lines}
    exec(block, names)
    return names["is_allowed"]


def describe(obj, lines):
    """An object as the formula has it; of a group, its budget where lines name that."""
    kind = str(obj.type)
    if kind == "group" and any(line.object == "group_ai_budget" for line in lines):
        kind = "group_ai_budget"
    domains = {str(s): str(d) for s in Scope if (d := obj.domain(s)) is not None}
    return SimpleNamespace(type=kind, domains=domains)


def list_held(subject, lines):
    """The pairs of the formula: what is assigned, and what everyone holds toward themselves."""
    own = {(line.role, f"user:{subject.id}") for line in lines if line.scope == "user"}
    assigned = {
        (role, str(domain))
        for role, domain in subject.assignments
        if domain.scope is not Scope.USER
    }
    return SimpleNamespace(holds=own | assigned)


@pytest.mark.parametrize("text", [LINES, DEDICATED, MORE], ids=["shipped", "dedicated", "more"])
def test_the_formula_of_the_readme_is_what_decides(text):
    lines, policy = read_lines(text), load_unreviewed(text)
    is_allowed, answers = make_formula(lines), set()
    objects = [(obj, describe(obj, lines)) for obj in OBJECTS]
    for subject in PEOPLE.values():
        caller = list_held(subject, lines)
        for obj, described in objects:
            for action in Action:
                allowed = is_allowed(caller, action, described)
                assert allowed is (answer(policy, subject, action, obj) == "allowed")
                answers.add(allowed)
    assert answers == {True, False}


def test_the_readme_lists_what_is_asked_and_nothing_else():
    table = load_unreviewed(LINES).table
    rows = re.findall(r"^\| `(\w+)` \| .* \| (`.*`) \|$", README, re.MULTILINE)
    shown = [(obj, action) for obj, actions in rows for action in re.findall(r"`(\w+)`", actions)]
    assert sorted(shown) == sorted((str(obj), str(action)) for obj, action in table.asked)


def test_the_readme_answers_nine_questions():
    questions = re.findall(r"^## (.*\?)$", README, re.MULTILINE)
    assert len(questions) == 9
    assert "What does a plain member of the organization see?" in questions
