"""What a newcomer does first: install, serve, load the files that the documents show."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.docs.support import ROOT, read_blocks
from tests.server.support import environment, open_folder, serving

from govbudget import Policy
from govbudget.db.tables import Tables
from govbudget.layout import Layout
from govbudget.prices.price import parse_prices, read_shipped_prices
from govbudget.server.directory_file import DirectoryFile, load_directory

pytestmark = pytest.mark.slow

README, REFERENCE = ROOT / "README.md", ROOT / "docs" / "reference.md"

# A command that installs, or a requirement that names, what no package index has.
FROM_AN_INDEX = re.compile(
    r"""\b(?:install|add|uvx|pipx\ run|run\ --with)\s(?:[^\n`]*\s)?["']?govbudget(?![\w./-])
    |(?<![\w./-])govbudget(?:\[\w|\s?[=~<>]=)""",
    re.VERBOSE,
)


# -- where it is installed from --


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("pip install govbudget", True),
        ('python -m pip install -U "govbudget[serve]"', True),
        ("uv add govbudget", True),
        ("uvx govbudget demo", True),
        ("no server here; install `govbudget[serve]`", True),
        ("dependencies = ['govbudget >= 0.1']", True),
        ("pip install ./govbudget", False),
        ('pip install ~/govbudget "psycopg[binary]"', False),
        ("pip install '.[serve]'` in a checkout of govbudget", False),
        ('app.extensions["govbudget"]', False),
    ],
)
def test_what_reads_as_an_installation_from_an_index(text, is_one):
    """The pattern of the next test finds what it must, and nothing else."""
    assert bool(FROM_AN_INDEX.search(text)) is is_one


def test_nobody_is_sent_to_a_package_index_for_govbudget():
    """No document, message, docstring, tool or workflow names an index's govbudget."""
    suffixes = {"", ".md", ".py", ".toml", ".json", ".csv", ".conf", ".html", ".txt"}
    places = [ROOT / name for name in ("docs", "src", "policy", "tools", "benchmarks", ".ci")]
    files = [path for place in places for path in place.rglob("*") if path.suffix in suffixes]
    files = [path for path in (*files, *ROOT.iterdir()) if path.is_file()]
    found = [
        f"{path.relative_to(ROOT)}: {hit[0]}"
        for path in files
        if path.suffix in suffixes and "__pycache__" not in path.parts
        for hit in FROM_AN_INDEX.finditer(path.read_text(errors="replace"))
    ]
    assert len(files) > 100
    assert found == []


def test_the_extras_that_texts_name_are_there():
    """`pip install '.[a,b]'` works for each a and b that a text names."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    texts = [README, *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.py")]
    named = {
        extra
        for path in texts
        for group in re.findall(r"(?:\.|/govbudget)\[([a-z,]+)\]", path.read_text())
        for extra in group.split(",")
    } | {
        extra
        for path in (ROOT / "src").rglob("*.py")
        for extra in re.findall(r"say_extra\([\"'](\w+)", path.read_text())
    }
    assert named == set(extras)


# -- the stand-alone server --


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks with curl")
@pytest.mark.long
def test_the_commands_of_the_readme_serve_and_the_last_one_is_a_hold():
    """The server starts, files are loaded, a budget is set, and a call is admitted under it."""
    start, ask = (
        block
        for block in read_blocks(README, "sh")
        if "localhost:" in block or "govbudget serve" in block
    )
    assert start.splitlines() == [
        "tools/bootstrap demo",
        ".venv/bin/govbudget serve --embedded data >> server.log",
    ]
    with open_folder() as folder, serving("--embedded", folder / "data") as server:
        (paste,) = [
            line for line in server.said if line.startswith("export GOVBUDGET_DATABASE_URL=")
        ]
        script = ask.replace("localhost:8080", f"127.0.0.1:{server.port}")
        script = script.replace(".venv/bin/", f"{Path(sys.executable).parent}{os.sep}")
        done = subprocess.run(
            [
                "sh",
                "-e",
                "-c",
                f"{paste}\n{script.replace('curl ', 'curl --silent --show-error ')}",
            ],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    said, _, answer = done.stdout.partition("{")
    assert "each member may spend 20 USD" in said
    assert json.loads("{" + answer)["cost_micros"] == 10_500


# -- the files --


def test_the_directory_file_of_the_reference_loads_and_shows_every_field(make_database, template):
    """It is loaded into an empty directory, and each field of each list is in it."""
    (text,) = [block for block in read_blocks(REFERENCE, "json") if '"users"' in block]
    assert text == (ROOT / "docs" / "directory.json").read_text()
    engine = sa.create_engine(make_database(template=template), poolclass=sa.NullPool)
    with engine.connect() as connection:
        changes = load_directory(
            connection, Tables(Layout()), text.encode(), Policy.load().table.scopes
        )
    shown = json.loads(text)
    assert len(changes) == sum(map(len, shown.values())) + len(shown["organizations"])
    file = DirectoryFile.model_validate_json(text)
    for name, entries in file:
        assert {key for entry in shown[name] for key in entry} == type(
            entries[0]
        ).model_fields.keys()


def test_the_price_file_of_the_reference_loads_and_shows_the_shipped_price():
    """Its rows are read as a price file, and the first is a row of the shipped book."""
    (text,) = [block for block in read_blocks(REFERENCE, "json") if '"input_price"' in block]
    first, _ = parse_prices(text.encode())
    assert first in parse_prices(read_shipped_prices())
