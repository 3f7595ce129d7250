"""tools/bootstrap: what it says where the machine lacks something."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def bootstrap(tmp_path):
    """Run a copy of the script in an empty checkout, with only these commands on the PATH."""
    tools = tmp_path / "checkout" / "tools"
    tools.mkdir(parents=True)
    shutil.copy(CHECKOUT / "tools" / "bootstrap", tools)
    shutil.copy(CHECKOUT / "pyproject.toml", tools.parent)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("cat", "cksum", "dirname", "grep", "mkdir", "rm", "sh"):
        (commands / name).symlink_to(shutil.which(name))

    def bootstrap(*arguments, **fakes):
        for name, answer in fakes.items():
            path = commands / name
            path.write_text(f"#!/bin/sh\necho '{answer}'\n")
            path.chmod(0o755)
        return subprocess.run(
            [commands / "sh", tools / "bootstrap", *arguments],
            env={"PATH": str(commands), "HOME": str(tmp_path), "LANG": os.environ.get("LANG", "C")},
            capture_output=True,
            text=True,
            check=False,
        )

    return bootstrap


def test_an_old_python_alone_is_one_sentence_with_status_1(bootstrap):
    done = bootstrap("demo", python3="3009002 3.9.2 able")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "bootstrap: install Python 3.11 or newer, or uv (the newest Python here: 3.9.2).\n"
    )


def test_no_python_at_all_is_one_sentence_too(bootstrap):
    done = bootstrap("dev")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "bootstrap: install Python 3.11 or newer, or uv (the newest Python here: none).\n"
    )


def test_a_python_without_venv_names_what_to_install(bootstrap):
    done = bootstrap("dev", python3="3012004 3.12.4 unable")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "Python 3.12.4 cannot make virtual environments" in line
    assert "apt install python3.12-venv" in line


def test_a_wrong_word_is_status_2(bootstrap):
    done = bootstrap("prod")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "usage: tools/bootstrap demo|dev\n"


def test_a_second_run_leaves_alone_what_the_first_one_is_making(bootstrap, tmp_path):
    venv = tmp_path / "checkout" / ".venv"
    venv.mkdir()
    (venv / ".making").write_text(f"{os.getpid()}\n")
    (venv / "half").touch()
    done = bootstrap("demo", python3="3012004 3.12.4 able")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"bootstrap: another run (process {os.getpid()}) is making .venv: "
        "wait until it is ready, then try again.\n"
    )
    assert (venv / "half").exists()
