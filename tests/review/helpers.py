"""Policies in memory and in folders, and hypothesis's small ones."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import strategies as st
from tests.review.oracle import ACTIONS, OBJECTS

from govbudget.authz.evaluator import build_table
from govbudget.authz.files import PolicyFiles, packaged_policy_dir, read_policy_files
from govbudget.authz.matrix import list_cells
from govbudget.authz.reader import read_policy

FOLDERS = {"shipped": packaged_policy_dir(), "dedicated": packaged_policy_dir() / "dedicated"}
MODEL = read_policy_files(FOLDERS["shipped"]).model
FILES = ("model.conf", "policy.csv", "matrix.csv")

both_policies = pytest.mark.parametrize("shipped", FOLDERS.values(), ids=FOLDERS)


def write_rows(rows):
    """The text of a policy.csv."""
    return "".join(f"p, {', '.join(row)}\n" for row in rows)


def make_table(text, model=MODEL):
    """The table of a policy.csv, which must pass the reader."""
    files = PolicyFiles(model, text.encode("ascii"), None)
    lines, findings = read_policy(files)
    assert findings == []
    return build_table(files, lines)


def read_cells(table):
    """A table as the oracle gives it: every cell, and each role's scope."""
    cells = {
        (role, str(obj), str(action)): str(table.cell(role, obj, action).verdict)
        for role, obj, action in list_cells(table)
    }
    return cells, {role: str(scope) for role, scope in table.scopes.items()}


def copy_policy(source, target):
    """Copy the three files of a policy folder."""
    target.mkdir(exist_ok=True, parents=True)
    for name in FILES:
        shutil.copy(source / name, target)
    return target


def append(path, text):
    with path.open("a") as file:
        file.write(text)


ROLES = ("ada", "bob", "cy", "dee")


@st.composite
def policy_rows(draw, max_rows=10, objects=OBJECTS, min_rows=1):
    """Rows over at most four roles, each of one scope; a third of them deny."""
    scopes = {
        role: draw(st.sampled_from(("site", "organization", "group", "user")))
        for role in ROLES[: draw(st.integers(1, len(ROLES)))]
    }
    row = st.builds(
        lambda role, obj, action, effect: (role, scopes[role], obj, action, effect),
        st.sampled_from(sorted(scopes)),
        st.sampled_from(objects),
        st.sampled_from(ACTIONS),
        st.sampled_from(("allow", "allow", "deny")),
    )
    return draw(st.lists(row, min_size=min_rows, max_size=max_rows))
