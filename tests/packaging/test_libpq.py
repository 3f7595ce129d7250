"""No system libpq is needed: the extras bring one inside psycopg's binary wheel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SAY = "import psycopg; print(psycopg.pq.__impl__)"


@pytest.fixture
def no_libpq(tmp_path):
    """An environment in which a system's libpq can't be loaded."""
    for name in ("libpq.so", "libpq.so.5", "libpq.dylib", "libpq.5.dylib"):
        (tmp_path / name).write_text("not a library")
    folder = str(tmp_path)
    ours = {key: value for key, value in os.environ.items() if not key.startswith("PSYCOPG_")}
    return ours | {"PATH": folder, "LD_LIBRARY_PATH": folder, "DYLD_LIBRARY_PATH": folder}


def python(code, env):
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_psycopg_brings_its_own(no_libpq):
    done = python(SAY, no_libpq)
    assert (done.stdout, done.stderr) == ("binary\n", "")


@pytest.mark.long
def test_a_system_libpq_is_indeed_out_of_the_way_in_that_check(no_libpq):
    done = python(SAY, no_libpq | {"PSYCOPG_IMPL": "python"})
    assert done.returncode != 0
    assert "libpq" in done.stderr
