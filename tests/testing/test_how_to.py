"""The how-tos are run: the tests that one tells people to write, the checks of the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.review.helpers import FOLDERS, append, copy_policy

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to"


def read_blocks(name, language):
    text = (HOW_TO / name).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


# -- test-your-policy.md --


@pytest.fixture
def project(tmp_path):
    """A user's project, with the files that the page tells of."""
    (table,) = read_blocks("test-your-policy.md", "csv")
    plugin, tests = read_blocks("test-your-policy.md", "python")
    copy_policy(FOLDERS["shipped"], tmp_path / "policy")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "expected.csv").write_text(table)
    (tmp_path / "tests" / "test_policy.py").write_text(tests)
    watch = (
        "import sys\n"
        "def pytest_unconfigure(config):\n"
        "    loaded = {'flask', 'sqlalchemy', 'psycopg', 'alembic'} & set(sys.modules)\n"
        "    print('loaded:', sorted(loaded))\n"
    )
    (tmp_path / "conftest.py").write_text(plugin + watch)
    return tmp_path


def run_pytest(project):
    arguments = ("-q", "-p", "no:cacheprovider", "-W", "error")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=project,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


@pytest.mark.slow
def test_the_tests_of_the_page_pass_without_flask_and_without_a_database(project):
    status, said = run_pytest(project)
    assert status == 0, said
    rows = (project / "policy" / "matrix.csv").read_text().splitlines()[1:]
    assert f"{len(rows) + 108 + 3} passed" in said  # the reviewed, every cell, and three more
    assert "loaded: []" in said


@pytest.mark.long
def test_the_tests_of_the_page_find_a_decision_that_is_not_expected(project):
    append(project / "policy" / "policy.csv", "p, group-member, group, group, update, allow\n")
    (project / "policy" / "matrix.csv").unlink()
    status, said = run_pytest(project)
    assert status == 1
    assert "test_decision[group-member-group-update-deny]" in said
    assert "test_a_member_reads_and_does_not_change" in said
    assert "test_no_edit_of_one_step_goes_unnoticed" in said


# -- review-a-policy-change.md --


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a remote branch; `run` runs the page's two lines in it."""
    root = tmp_path / "checkout"
    copy_policy(FOLDERS["shipped"], root / "policy")
    header = "role,object,action,decision,scope\n"
    (root / "approved-gains.csv").write_text(header)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }

    def run(*command):
        return subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False
        )

    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for command in (
        ("init", "--quiet"),
        ("add", "."),
        ("commit", "--quiet", "-m", "the policy"),
        ("update-ref", "refs/remotes/origin/main", "HEAD"),
    ):
        assert run("git", *who, *command).returncode == 0
    (script,) = read_blocks("review-a-policy-change.md", "sh")
    return root, lambda: run("sh", "-e", "-c", script)


@pytest.mark.long
def test_a_gain_fails_the_checks_of_the_page_until_its_row_is_there(checkout):
    root, run_checks = checkout
    append(root / "policy" / "policy.csv", "p, budget-viewer, organization, group, read, allow\n")
    append(root / "policy" / "matrix.csv", "budget-viewer,group,read,allow,organization\n")
    gained = run_checks()
    assert gained.returncode == 1
    assert "+ gains group read: deny -> allow" in gained.stdout
    (approved,) = read_blocks("review-a-policy-change.md", "csv")
    (root / "approved-gains.csv").write_text(approved)
    passed = run_checks()
    assert passed.returncode == 0, passed.stderr
    assert "[approved]" in passed.stdout


@pytest.mark.long
def test_each_command_that_the_page_tells_of_does_what_it_says(checkout):
    root, _ = checkout
    page = (HOW_TO / "review-a-policy-change.md").read_text()
    text = page.split("\n## Name the people\n")[0]  # what follows asks a database
    commands = [
        " ".join(command.split()) for command in re.findall(r"`(govbudget policy [^`]+)`", text)
    ]
    assert len(commands) == 4
    for command in commands:
        ran = subprocess.run(
            command,
            cwd=root,
            shell=True,
            env={"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, (command, ran.stderr)
    assert (root / "matrix.html").read_text().startswith("<!doctype html>")
