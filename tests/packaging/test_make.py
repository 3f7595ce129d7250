"""What `make` and the quick suite say where nothing is to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*command):
    """Run a command as from a shell, though `make` may have started these tests."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tests/reveiw"], "there is no tests/reveiw"),
        (["tests/review/test_findings.py"], "no quick test matches; try `make test-slow`"),
        (["tests/policy", "-k", "no_such_word"], "no quick test matches; try `make test-slow`"),
    ],
)
def test_where_nothing_runs_it_is_said_why(arguments, says):
    ran = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
    assert ran.returncode != 0
    assert says in ran.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("name", ["benchmarks", "policy", "src", "tests", "tools", "tets"])
def test_what_is_not_a_target_is_answered_with_one(name):
    """`make tests`, a folder, looked like a suite that passed."""
    ran = run("make", name)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"no target `{name}`: try `make test`" in ran.stderr
