"""What is loaded when: a policy without a database, a host without pydantic, the command alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import govbudget
from govbudget.authz.files import packaged_policy_dir

pytestmark = pytest.mark.slow

ROOT = Path(govbudget.__file__).parent
MODULES = sorted(path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("room", ["web", "cli"])
def test_only_what_serves_imports_web_or_cli(room):
    serving = {
        "web": {"web", "installation", "extension", "cli", "spend", "pages", "server"},
        "cli": {"cli", "extension", "__main__", "spend", "server"},
    }[room]
    for module in MODULES:
        tree = ast.parse((ROOT / module).with_suffix(".py").read_text())
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        if any(f"{name}.".startswith(f"govbudget.{room}.") for name in names):
            assert module.parts[0] in serving, f"{module} imports {room}"


DECIDE = """
import sys
from govbudget import Assignment, Domain, Group, Policy, Scope, Subject
policy = Policy.load()
assert policy.decide({"group-member"}, "group", "read").allowed
member = Subject("u", (Assignment("group-member", Domain(Scope.GROUP, "g")),))
assert policy.authorize(member, "read", Group("g", "o")).lines
"""
INSTALL = """
import sys
import sqlalchemy
from flask import Flask
from govbudget import GovBudget
engine = sqlalchemy.create_engine("postgresql+psycopg://")
GovBudget(Flask("host"), engine=engine, identify=lambda: None)
"""
SAY = 'print(*sorted({name.partition(".")[0] for name in sys.modules}))'


def list_loaded(program):
    command = [sys.executable, "-W", "error", "-c", program + SAY]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_policy_is_loaded_and_asked_without_flask_or_a_database():
    loaded = list_loaded(DECIDE)
    assert {"govbudget", "casbin"} <= loaded
    heavy = {"flask", "werkzeug", "sqlalchemy", "psycopg", "pydantic", "alembic", "click"}
    assert loaded & heavy == set()


def test_a_host_starts_without_pydantic_and_alembic():
    """Which is half of the time; they are loaded with the first body, or migration."""
    assert list_loaded(INSTALL) & {"pydantic", "pydantic_core", "alembic"} == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["matrix"],
        ["explain", "--role", "owner", "--action", "read"],
        ["diff", str(packaged_policy_dir()), str(packaged_policy_dir())],
    ],
)
def test_a_reviewers_command_loads_neither_flask_nor_a_databases_library(arguments):
    """Which takes longer than the command itself."""
    program = (
        "import sys\nfrom govbudget.cli import main\n"
        f"try: main({['policy', *arguments]!r})\n"
        "except SystemExit as ended: assert not ended.code\n"
    )
    loaded = list_loaded(program)
    assert {"govbudget", "casbin"} <= loaded
    assert loaded & {"flask", "werkzeug", "sqlalchemy", "psycopg", "pydantic", "alembic"} == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["spend", "verify"],
        ["token", "list"],
        ["db", "current"],
        ["budget", "clear", "123e4567-e89b-12d3-a456-426614174000"],
        ["audit", "export"],
        ["notices", "sweep"],
    ],
    ids=" ".join,
)
def test_a_command_on_a_database_loads_neither_flask_nor_pydantic(arguments):
    """Which takes a third of its start."""
    program = (
        "import os, sys\nfrom govbudget.cli import main\n"
        "os.environ['GOVBUDGET_DATABASE_URL'] = 'postgresql://nobody@127.0.0.1:1/nothing'\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as ended: assert ended.code == 2\n"
    )
    loaded = list_loaded(program)
    assert {"govbudget", "psycopg"} <= loaded
    assert loaded & {"flask", "werkzeug", "pydantic"} == set()
