"""The quick start: its commands are run as they stand, and print what it shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from tests.docs.support import ROOT
from tests.docs.test_tutorial import BLOCK, mask
from tests.server.support import environment, open_folder, serving

from govbudget.money import write_usd

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "quick-start.md"
COUNTS = re.compile(r"\d+ received, \d+ changed")  # the book grows
MARK = "-- the next block --"


def read_steps():
    """Each block of the shell, and the block of text after it, or nothing where there is none."""
    blocks = [(language, text) for _, language, text in BLOCK.findall(PAGE.read_text())]
    for (language, text), (following, shown) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "sh":
            yield text, shown if following == "text" else ""


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks with curl")
def test_a_reader_of_the_quick_start_gets_what_it_shows(tmp_path):
    """From the first command to the refused call; only the port is another one here."""
    (install, _), (serve, _), (activate, _), *steps = read_steps()
    asked, extras = re.search(r"pip install (~/govbudget)'\[([\w,]+)\]'\n$", install).groups()
    offered = distribution("govbudget").metadata.get_all("Provides-Extra")
    assert (asked, set(extras.split(",")) - set(offered)) == ("~/govbudget", set())
    assert (serve, activate) == (
        "govbudget serve --embedded data >> server.log\n",
        ". .venv/bin/activate\n",
    )
    (tmp_path / "govbudget").symlink_to(ROOT)
    with open_folder() as folder, serving("--embedded", folder / "data") as server:
        (paste,) = [line for line in server.said if line.startswith("export GOVBUDGET_")]
        assert paste.startswith("export GOVBUDGET_DATABASE_URL=")
        blocks = [paste, *(text for text, _ in steps)]
        script = f"\necho '{MARK}'\n".join(blocks)
        done = subprocess.run(
            ["sh", "-e", "-c", script.replace("localhost:8080", f"127.0.0.1:{server.port}")],
            cwd=tmp_path,
            env={
                **environment(),
                "HOME": str(tmp_path),
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.split(f"{MARK}\n")[1:]
    assert len(printed) == len(steps)
    for (_, shown), text in zip(steps, printed, strict=True):
        if shown.startswith("{"):  # an answer may say more than the page shows
            assert json.loads(mask(shown)).items() <= json.loads(mask(text)).items()
        else:
            assert COUNTS.sub("all", mask(text)) == COUNTS.sub("all", mask(shown))
    refused = json.loads(printed[-3])
    assert refused["code"] == "budget-exceeded"
    figures = ("spend_limit_micros", "current_spend_micros", "held_micros", "cost_micros")
    limit, spent, held, cost = (refused[name] for name in figures)
    said = [f"{write_usd(micros)} USD" for micros in (limit, held, cost, limit - spent - held)]
    assert [amount for amount in said if amount not in PAGE.read_text()] == []
