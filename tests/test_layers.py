"""Imports run one way: values, authz, db, stores, what serves them; the parts lie on top."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import govbudget

ROOT = Path(govbudget.__file__).parent
REPOSITORY = Path(__file__).resolve().parent.parent
# From the bottom to the top; a room imports those below it, and itself.
LAYERS = (
    {"errors", "identity", "ids", "layout", "money", "new_ids", "text"},
    {"strict_json"},
    {"authz"},
    {"review"},
    {"settings", "parts"},
    {"db", "directory", "migrations"},
    {"audit", "budgets", "prices"},
    {"statements"},
    {"web", "installation", "cli", "engines", "extension", "testing"},
    {"spend"},
    {"pages"},
    {"server"},
)
PARTS = ("spend", "pages", "server")
LEVELS = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
MODULES = sorted(ROOT.rglob("*.py"))


@cache
def read_module(path):
    """The modules of govbudget that a module imports, for types too, and its functions' lines."""
    imports, lines = set(), {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "govbudget":
                imports |= {f"govbudget.{alias.name}" for alias in node.names}
            imports.add(node.module)
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines[node.name, node.lineno] = node.end_lineno - node.lineno
    return {name for name in imports if name.startswith("govbudget.")}, lines


def test_a_room_imports_what_is_below_it():
    wrong = []
    for path in MODULES:
        room = path.relative_to(ROOT).with_suffix("").parts[0]
        if room in {"__init__", "__main__"}:  # the public names, and the command
            continue
        imports, _ = read_module(path)
        above = [name for name in imports if LEVELS[name.split(".")[1]] > LEVELS[room]]
        wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in above]
    assert wrong == []


@pytest.mark.slow
def test_no_module_imports_in_a_circle():
    """At run time, inside a room too; what is imported for types alone does not count."""
    graph = {}
    for path in MODULES:
        name = ".".join(("govbudget", *path.relative_to(ROOT).with_suffix("").parts))
        tree = ast.parse(path.read_text())
        graph[name] = {
            module
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module.startswith("govbudget")
            for module in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        }
    done = set()

    def visit(name, way):
        assert name not in way, f"a circle: {' -> '.join((*way, name))}"
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_a_function_fits_on_a_screen():
    functions = {(path, *name): n for path in MODULES for name, n in read_module(path)[1].items()}
    assert len(functions) > len(MODULES)
    assert [name for name, lines in functions.items() if lines >= 40] == []


VALUES = sorted(f"govbudget.{room}" for room in LAYERS[0])


@pytest.mark.parametrize("module", VALUES)
def test_values_import_neither_sqlalchemy_nor_flask(module):
    program = f"import sys, {module}; print(sorted(set(sys.modules) & {{'sqlalchemy', 'flask'}}))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


EMBED = """
import sqlalchemy as sa
from flask import Flask
from govbudget import GovBudget, SettingsError
engine = sa.create_engine("postgresql+psycopg://nowhere")
app = Flask("host")
GovBudget(app, engine=engine, identify=lambda: None, spend=False)
assert "/api/v2/groups/<group>/ai/budget" in {rule.rule for rule in app.url_map.iter_rules()}
assert app.test_client().get("/api/v2/openapi.json").status_code == 200
try:
    GovBudget(Flask("other"), engine=engine, identify=lambda: None)
except SettingsError as error:
    assert "spend=False" in str(error)
else:
    raise AssertionError("there is no spend here")
from govbudget.cli import cli
assert not {"serve", "spend", "token"} & set(cli.list_commands(None))
from govbudget.statements import list_governed
assert "budgets.set" in list_governed() and "spend.hold" not in list_governed()
"""


@pytest.mark.slow
def test_the_core_stands_without_the_parts(tmp_path):
    """The tree is copied, the parts are deleted, and an application has budgets and prices."""
    shutil.copytree(
        ROOT, tmp_path / "govbudget", ignore=shutil.ignore_patterns("__pycache__", *PARTS)
    )
    shutil.copytree(REPOSITORY / "policy", tmp_path / "govbudget" / "policy", dirs_exist_ok=True)
    (tmp_path / "embed.py").write_text(EMBED)
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    ran = subprocess.run(
        [sys.executable, tmp_path / "embed.py"],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
