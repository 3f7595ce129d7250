"""What the source marks as an invariant is held by a test of that name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from govbudget import authz

TESTS = "".join(
    path.read_text()
    for room in ("policy", "authz")
    for path in (Path(__file__).parents[1] / room).glob("test_*.py")
)
INVARIANTS = [
    invariant
    for path in sorted(Path(authz.__file__).parent.glob("*.py"))
    for invariant in re.findall(r"# INVARIANT: (.+)", path.read_text())
]


def test_authz_has_invariants():
    assert len(INVARIANTS) >= 4


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_a_test_bears_the_name_of_each_invariant_of_authz(invariant):
    name = re.sub(r"\W+", "_", invariant.replace("'", ""))
    assert f"def test_{name}(" in TESTS
