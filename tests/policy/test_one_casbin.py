"""The evaluator is pycasbin, whole and alone: anything else imported as `casbin` is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import casbin
import pytest

import govbudget
from govbudget import Policy, PolicyError

pytestmark = pytest.mark.slow

LOAD = """
from govbudget import Policy, PolicyError
try:
    Policy.load()
except PolicyError as error:
    print(*error.findings, sep="\\n")
else:
    print("loaded")
"""


def load_with(path):
    """Load the packaged policy in a new process that looks for packages in `path` first."""
    ours = Path(govbudget.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (path, ours)))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOAD],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path):
    """A folder with a whole copy of pycasbin."""
    installed = Path(metadata.distribution("pycasbin").locate_file(""))
    folder = tmp_path / "packages"
    shutil.copytree(Path(casbin.__file__).parent, folder / "casbin")
    (info,) = installed.glob("pycasbin-*.dist-info")
    shutil.copytree(info, folder / info.name)
    return folder


def test_a_whole_copy_is_accepted(copied):
    assert load_with(copied) == "loaded"


def test_a_file_that_another_package_overwrote_is_refused(copied):
    with (copied / "casbin" / "effect" / "default_effectors.py").open("a") as file:
        file.write("# one comment more\n")
    answer = load_with(copied)
    assert answer.startswith("pycasbin:0: wrong-casbin: `casbin/effect/default_effectors.py`")
    assert "reinstall pycasbin" in answer


def test_a_file_that_is_gone_is_refused(copied):
    (copied / "casbin" / "persist" / "watcher_ex.py").unlink()
    assert load_with(copied).startswith("pycasbin:0: wrong-casbin: `casbin/persist/watcher_ex.py`")


def test_a_package_that_hides_pycasbin_is_refused(copied):
    for info in copied.glob("*.dist-info"):
        shutil.rmtree(info)
    answer = load_with(copied)
    assert "is imported as `casbin`, not what pycasbin installed" in answer


def add_old_casbin(folder):
    info = folder / "casbin-1.43.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: casbin\nVersion: 1.43.0\n")


def test_the_frozen_predecessor_beside_pycasbin_is_refused_at_load_and_at_reload(
    tmp_path, monkeypatch
):
    policy = Policy.load()
    table = policy.table
    add_old_casbin(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PolicyError, match="wrong-casbin: the distribution `casbin` is installed"):
        Policy.load()
    with pytest.raises(PolicyError, match="uninstall both, then install pycasbin again"):
        policy.reload()
    assert policy.table is table
    monkeypatch.undo()
    policy.reload()
