"""The tutorial, top to bottom: its files are written, its commands run, its answers come back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from importlib.metadata import distribution
from pathlib import Path

import pytest
from tests.host.servers import serve

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
SHOP = ROOT / "tests" / "host" / "shop"
# A block, and the name of the file that it is, where a line before it gives one.
BLOCK = re.compile(r"(?:^`([\w./]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What differs from one run to the next by nature.
NEVER_THE_SAME = {
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.+:\dZ]*": "a time",
    r"sha256:[0-9a-f]{64}": "a digest",
    r"^policy: \S+": "policy: a folder",
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "an id",
    r"\b0\d{3}$": "a revision",
    r"passed in [\d.]+s": "passed",
}


def read_page():
    return BLOCK.findall(PAGE.read_text())


def mask(text):
    for pattern, word in NEVER_THE_SAME.items():
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text


class Reader:
    """Somebody who does what the page says, in a folder of their own."""

    def __init__(self, folder, servers, settings):
        self.folder, self.servers, self.settings = folder, servers, settings
        self.port = None

    def write(self, file, text):
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, script):
        """Run a block of the shell; give what it prints."""
        if "pip install" in script:  # is done, where this runs
            for wanted in re.search(r"pip install (.*)", script)[1].split():
                assert distribution(re.match(r"\"?([\w-]+?)(-\*\.whl|\[\w+\]\")?$", wanted)[1])
            return ""
        if script.startswith("export"):
            assert set(re.findall(r"^export (\w+)=", script, re.MULTILINE)) == set(self.settings)
            return ""
        if found := re.fullmatch(r"flask --app (\S+) run\n", script):
            self.servers.close()
            server = serve(self.folder, (found[1], self.settings), cwd=self.folder)
            (self.port,) = self.servers.enter_context(server)
            return ""
        done = subprocess.run(
            ["sh", "-e", "-c", script.replace("localhost:5000", f"127.0.0.1:{self.port}")],
            cwd=self.folder,
            env={
                **os.environ,
                **self.settings,
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the reader has none; ours take a second
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return "" if " db init" in script else done.stdout  # what Flask-Migrate says is long


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks with curl")
@pytest.mark.long
def test_a_reader_of_the_page_gets_what_it_shows(make_database, tmp_path):
    """Each block of the shell prints the block of text after it, or nothing where there is none."""
    settings = {
        "SHOP_DATABASE": make_database().render_as_string(hide_password=False),
        "SHOP_SECRET": "a secret of the shop's",
    }
    page = read_page()
    shown = [text if language == "text" else "" for _, language, text in page[1:]] + [""]
    with ExitStack() as servers:
        reader = Reader(tmp_path, servers, settings)
        for (file, language, text), expected in zip(page, shown, strict=True):
            if file:
                reader.write(file, text)
            elif language == "sh":
                assert mask(reader.run(text)) == mask(expected), text
            else:
                assert language == "text"


def test_the_files_of_the_page_are_those_of_the_host_application():
    """A file that the page shows twice has grown."""
    shown = {}
    for file, _, text in read_page():
        if file.startswith("shop/"):
            before, shown[file] = shown.get(file, ""), text
            assert set(before.splitlines()) <= set(text.splitlines())
    files = {path.relative_to(SHOP.parent).as_posix(): path for path in SHOP.rglob("*.py")}
    assert shown == {name: path.read_text() for name, path in files.items()}
