"""What the source marks as an invariant is held by a test of that name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
INVARIANTS = [
    invariant
    for path in sorted((ROOT / "src").rglob("*.py"))
    for invariant in re.findall(r"# INVARIANT: (.+)", path.read_text())
]


def test_the_source_has_invariants():
    assert len(INVARIANTS) >= 6


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_a_test_bears_the_name_of_each_invariant(invariant):
    name = re.sub(r"\W+", "_", invariant.replace("'", ""))
    assert f"def test_{name}(" in TESTS
