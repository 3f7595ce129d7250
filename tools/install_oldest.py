"""Makes .venv-oldest: govbudget and its tests on the oldest versions that pyproject.toml admits."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".venv-oldest"
GROUPS = ("test", "rights", "seed")  # what the quick tests import


def run(*arguments: str) -> None:
    """Run a Python command in the project's folder; end with its status where it fails."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False)  # noqa: S603 - ours
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = [dependency.replace(">=", "==") for dependency in project["dependencies"]]
    groups = [f"--group={name}" for name in GROUPS]
    # By the pip of .venv, which can install into another: not every Python has ensurepip.
    run("-m", "venv", "--without-pip", str(VENV))
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--python", f"{VENV}/bin/python")
    run(*pip, "install", "pip", *groups, "--editable", ".[embedded,serve]", *oldest)
