"""The benchmarks still run, whatever they would say on a quiet machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.__main__ import ALONE, WITH_DATABASE
from benchmarks.database import TEST_URL

ROOT = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.parametrize("sections", [ALONE, WITH_DATABASE], ids=["alone", "with a database"])
def test_each_section_runs_and_its_peers_agree(sections, postgres_url):
    """With the peers that are installed here: pycasbin at least. One process for several."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *sections, "--quick", "--json", "-"],
        cwd=ROOT,
        env=os.environ | {TEST_URL: postgres_url.render_as_string(hide_password=False)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["section"] for row in rows if row["value"] is not None} == set(sections)
    assert {row["section"] for row in rows} == set(sections)
