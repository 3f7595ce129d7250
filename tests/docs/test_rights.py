"""The page of rights says of each right what its statements can touch, and nothing is left out."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
import sqlalchemy as sa
from tools.write_rights import DOCUMENT, TRIGGERED, find_tables, write_page

import govbudget
from govbudget import Policy
from govbudget.authz.files import packaged_policy_dir
from govbudget.db.governed import Governed, Ungoverned
from govbudget.identity import Action, ObjectType
from govbudget.statements import MODULES, list_governed, list_ungoverned

pytestmark = pytest.mark.slow

ROOT = Path(govbudget.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
# Where a connection is used: what loads and runs, and the commands of the database's operator.
TOUCHING = {
    "db": "runs the statements of grants",
    "directory": "loads the caller and the object, before the decision",
    "migrations": "makes the schema",
    "testing": "looks at what a directory loads",
    "cli/database.py": "migrations: the operator's",
    "cli/environment.py": "opens the database of a command",
    "cli/people.py": "who and diff --people ask the directory and nothing else",
    "cli/policy.py": "explain --user asks the directory and nothing else",
    "server/app.py": "/readyz looks at the server",
    "server/audit.py": "what a command changed, in its transaction",
    "server/cli.py": "the directory file and bearer tokens: the operator's",
    "server/directory_file.py": "the directory file: the operator's",
    "server/names.py": "ids by name: the operator's",
    "server/serve.py": "migrates the embedded database",
    "server/tokens.py": "bearer tokens: the operator's, and who the caller is",
}
CALLS = {"execute", "exec_driver_sql", "scalar", "scalars", "begin", "begin_nested", "connect"}


def test_the_page_is_what_the_statements_say():
    assert DOCUMENT.read_text() == write_page(), "run `python -m tools.write_rights`"


def test_the_parser_finds_what_is_read_and_what_is_written():
    text = """WITH c AS (DELETE FROM govbudget.group_ai_budgets b USING govbudget.groups g
      WHERE b.group_id = g.id RETURNING b.*) INSERT INTO govbudget.x SELECT * FROM c"""
    assert find_tables(text) == ({"groups"}, {"group_ai_budgets", "x", "audit_log"})


def test_the_triggers_are_those_of_the_schema(engine):
    question = """
      SELECT DISTINCT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = 'govbudget' AND NOT t.tgisinternal AND c.relname <> 'audit_log'"""
    with engine.connect() as connection:
        assert set(connection.scalars(sa.text(question))) == TRIGGERED.keys()


def test_every_statement_is_in_the_list():
    names = re.compile(rf"\b({Governed.__name__}|{Ungoverned.__name__}|govern_\w+)[(\[]")
    naming = [path.relative_to(ROOT) for path in SOURCES if names.search(path.read_text())]
    modules = {".".join(name.with_suffix("").parts) for name in naming if name.parts[0] != "db"}
    assert modules <= {*MODULES, "statements"}
    assert len(modules) > 3


def test_only_a_grant_runs_a_statement():
    """Outside the rooms and modules that are named here, no code touches a connection."""
    calls = re.compile(rf"\.({'|'.join(CALLS)})\(")
    touched = []
    for path in SOURCES:
        name, text = path.relative_to(ROOT), path.read_text()
        if name.parts[0] in TOUCHING or str(name) in TOUCHING or not calls.search(text):
            continue
        touched += [
            f"{name}:{node.lineno}: {node.func.attr}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CALLS
            and not (
                isinstance(node.func.value, ast.Name) and node.func.value.id in {"gov", "self"}
            )
        ]
    assert touched == []


def test_the_policy_is_asked_what_some_governed_statement_needs_and_nothing_else():
    """The policy's tools know it without the statements, which need a database's library."""
    for folder in (packaged_policy_dir(), packaged_policy_dir() / "dedicated"):
        table = Policy.load(folder).table
        needed = {cell for s in list_governed().values() for cell in s.list_cells(table)}
        # Where a budget is a resource of its own, its group is asked about for the 403 or 404.
        known = {cell for cell in table.asked if cell[0] is ObjectType.GROUP}
        itself = {(ObjectType.POLICY, Action.READ)}  # which takes no statement to show
        assert set(table.asked) == needed | known | itself
        assert len(table.asked) == len(set(table.asked))


def test_no_two_statements_have_one_name():
    """The list is by name: a second one would hide the first."""
    modules = [import_module(f"govbudget.{name}") for name in MODULES]
    made = {value for module in modules for value in vars(module).values() if is_statement(value)}
    assert len(made) == len(list_governed()) + len(list_ungoverned())


def is_statement(value):
    return isinstance(value, Governed | Ungoverned)
