"""The hosted workflows and the hooks: what `make lint` can't see in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
WORKFLOWS = CHECKOUT / ".github" / "workflows"
TEST, RELEASE = (WORKFLOWS / f"{name}.yml" for name in ("test", "release"))
MAKEFILE = (CHECKOUT / "Makefile").read_text()

every_workflow = pytest.mark.parametrize("path", [TEST, RELEASE], ids=lambda path: path.name)


def test_each_supported_version_is_in_the_matrix_once():
    text = TEST.read_text()
    assert re.findall(r'{ python: "([\d.]+)"', text) == ["3.11", "3.12", "3.13", "3.14"]
    assert re.findall(r'postgresql: "(\d+)"', text) == ["15", "16", "17", "18"]
    chosen = re.findall(r"dependencies: ([\w.-]+)", text)
    assert sorted(chosen) == ["locked", "newest", "oldest", "sqlalchemy-2.0"]


@every_workflow
def test_an_action_is_pinned_to_a_commit_and_says_its_version(path):
    """A tag can be moved to another commit."""
    uses = re.findall(r"uses: (.+)", path.read_text())
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


@every_workflow
def test_a_job_has_no_right_that_it_does_not_name(path):
    text = path.read_text()
    assert "\npermissions: {}\n" in text
    jobs = text.count("    runs-on: ")
    assert text.count("\n    permissions:\n") == jobs == text.count("    timeout-minutes: ")


@every_workflow
def test_a_workflow_runs_what_a_contributor_runs(path):
    text = path.read_text()
    assert "run: bash .ci/run\n" in text
    for target in re.findall(r"run: make ([\w-]+)", text):
        assert re.search(rf"^{target}: ", MAKEFILE, re.MULTILINE)


@every_workflow
def test_a_job_runs_on_the_python_that_it_sets_up(path):
    """A runner has a python3.12 of its own, which tools/bootstrap takes rather than a 3.11."""
    text = path.read_text()
    assert "actions/setup-python@" in text
    assert re.search(r"^env:\n  PYTHON: python ", text, re.MULTILINE)


@every_workflow
def test_ci_run_has_the_tools_of_the_lock_file(path):
    """A new ruff has new rules: each change would fail, whatever it is."""
    before, _ = path.read_text().split("run: bash .ci/run\n")
    assert before.splitlines()[-2].startswith("      - run: python -m pip install uv")


def test_an_upload_is_trusted_for_who_it_is_and_has_no_secret():
    text = RELEASE.read_text()
    assert "secrets." not in text
    assert "password" not in text
    upload = text[text.index("  publish:\n") : text.index("  page:\n")]
    assert "environment: package-index" in upload
    assert re.findall(r"^      ([\w-]+: \w+)", upload, re.MULTILINE)[0] == "id-token: write"


def test_make_lint_runs_each_tool_of_the_hooks():
    hooks = (CHECKOUT / ".pre-commit-config.yaml").read_text()
    tools = re.findall(r"entry: (\.venv/bin/\S+)", hooks)
    assert len(tools) == 7
    assert {tool for tool in tools if tool not in MAKEFILE} == set()
