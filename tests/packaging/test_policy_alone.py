"""A policy tester installs pycasbin and pytest, and nothing else."""

from __future__ import annotations

import os
import subprocess
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]


def find_needed(*names):
    """The distributions of these names and all that they need here, by name."""
    needed, left = {}, list(names)
    while left:
        name = left.pop()
        if name not in needed:
            needed[name] = metadata.distribution(name)
            wanted = map(Requirement, needed[name].requires or ())
            left += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return needed


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of a new environment: this one's pycasbin and pytest, and what these two need."""
    root = tmp_path_factory.mktemp("alone")
    venv.create(root, symlinks=True)
    (packages,) = root.glob("lib/python*/site-packages")
    for distribution in find_needed("pycasbin", "pytest").values():
        for name in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (packages / name).symlink_to(distribution.locate_file(name))
    return root / "bin" / "python"


def run(python, *arguments):
    outside = ("PYTHON", "PYTEST", "COV", "GOVBUDGET_")
    return subprocess.run(
        [python, *arguments],
        cwd=CHECKOUT,
        env={key: value for key, value in os.environ.items() if not key.startswith(outside)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("missing", ["flask", "sqlalchemy", "pydantic", "psycopg", "click"])
def test_the_environment_has_no_other_dependency(python, missing):
    """Else the next test would prove nothing."""
    assert f"No module named '{missing}'" in run(python, "-c", f"import {missing}").stderr


def test_the_policys_own_tests_pass_with_pycasbin_and_pytest_alone(python):
    done = run(python, "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/policy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_plugin_tests_every_decision_with_pycasbin_and_pytest_alone(python):
    """And it loads only where it is asked for."""
    script = (
        "import pytest, sys; sys.path.insert(0, 'src');"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))"
    )
    done = run(python, "-c", script, "-p", "govbudget.testing.plugin", "policy")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        len(path.read_text().splitlines()) - 1 for path in CHECKOUT.glob("policy/**/matrix.csv")
    ]
    assert f"{sum(rows)} passed" in done.stdout
    without = run(python, "-c", script, "policy")
    assert "no tests ran" in without.stdout
