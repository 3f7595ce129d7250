"""Makes .venv-bench: govbudget and, one by one, the peers of the dependency group `bench`.

Run by `make bench` with the Python of .venv. A peer that has no build for this platform or Python
is named here and again in the table; the others are measured all the same.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".venv-bench"
MADE = VENV / ".made"  # written last, so that a run that was cut short is not taken for a good one


def install() -> None:
    """Make the environment, or find that it is ready; end with status 1 where it can't be made."""
    project = (ROOT / "pyproject.toml").read_bytes()
    wanted = f"{sys.version} {ROOT} {zlib.crc32(project)}\n"
    if MADE.exists() and MADE.read_text() == wanted:
        return
    MADE.unlink(missing_ok=True)
    say("making .venv-bench (the first time takes a minute)")
    # Without pip: not every Python has ensurepip, and the pip of .venv can install into another.
    run("-m", "venv", "--clear", "--without-pip", str(VENV))
    if not pip_install("--editable", f"{ROOT}[embedded,serve]"):
        sys.exit("bench: the installation failed; check the network")
    for peer in tomllib.loads(project.decode())["dependency-groups"]["bench"]:
        if not pip_install(peer):
            say(f"the peer {peer} can't be installed here; the table will say so")
    MADE.write_text(wanted)


def pip_install(*what: str) -> bool:
    """Install into the environment; give whether that worked."""
    python = str(VENV / "bin" / "python")
    return run("-m", "pip", "--python", python, "--disable-pip-version-check", "install", *what)


def run(*arguments: str) -> bool:
    """Run a Python command quietly; show what it wrote to stderr where it fails."""
    done = subprocess.run(  # noqa: S603 - our own Python and arguments
        [sys.executable, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
    return done.returncode == 0


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"bench: {text}", file=sys.stderr)


if __name__ == "__main__":
    install()
