"""Makes a release of the commit that is checked out, in dist/; called by `make release`.

Wheel and sdist are built from the commit, and not from the folder: a file that git ignores is not
in them. The build backend is that of uv.lock and the time is the commit's, so the same commit gives
the same bytes, with the same Python and zlib. Each is built twice to prove it; one wheel is made
from the sdist and one from the commit, so the sdist lacks nothing. The SBOM lists what uv.lock
installs with both extras, with the Python and on the platform where it is made.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
UNRELEASED = "CHANGELOG.md has lines under [Unreleased]"


def run(*command: str | Path, cwd: Path, epoch: str = "") -> bytes:
    """Run a command and give its output; end with its status where it fails."""
    env = os.environ | ({"SOURCE_DATE_EPOCH": epoch} if epoch else {})
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, check=False)  # noqa: S603 - ours
    if done.returncode:
        sys.exit(f"release: `{command[0]}` failed with status {done.returncode}")
    return done.stdout


def ask_git(root: Path, *arguments: str) -> str:
    """Give what git says of the checkout."""
    return run("git", *arguments, cwd=root).decode().strip()


def read_version(root: Path) -> str:
    """Read the version from the one place where it is written."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def has_section(root: Path, version: str) -> bool:
    """Say whether the changelog has a section of the version, with a date, and not empty."""
    section = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n++(?!## |\Z)"
    return bool(re.search(section, (root / "CHANGELOG.md").read_text(), re.MULTILINE))


def has_unreleased(root: Path) -> bool:
    """Say whether the changelog has lines that are not in the section of any version."""
    section = r"^## \[Unreleased\]\n++(?!## |\Z)"
    return bool(re.search(section, (root / "CHANGELOG.md").read_text(), re.MULTILINE))


def find_obstacles(root: Path) -> list[str]:
    """Say why this checkout can't be released; nothing where it can."""
    version, found = read_version(root), []
    if ask_git(root, "status", "--porcelain"):
        found.append("there are changes that are not committed: commit them, or remove them")
    if not has_section(root, version):
        found.append(
            f"CHANGELOG.md has no section of {version}: write `## [{version}] - YYYY-MM-DD`, and "
            "under it what changed"
        )
    tags = ask_git(root, "tag", "--points-at", "HEAD", "v*").split()
    found += [
        f"the tag {tag} is not that of version {version}: remove it, or change the version"
        for tag in tags
        if tag != f"v{version}"
    ]
    if tags and has_unreleased(root):
        found.append(f"{UNRELEASED}: move them into the section of {version}")
    return found


def export(root: Path, target: Path, *options: str) -> Path:
    """Write a part of uv.lock, with hashes, as a file of requirements."""
    chosen = ("--no-emit-project", *options, "--output-file", target)
    run(UV, "export", "--quiet", "--frozen", *chosen, cwd=root)
    return target


def build(root: Path, folder: Path, *options: str) -> list[Path]:
    """Build the commit, in a new folder; give the two files."""
    source, built = folder / "source", folder / "built"
    archive = run("git", "archive", "--format=tar", "HEAD", cwd=root)
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(source, filter="data")
    backend = export(source, folder / "backend.txt", "--only-group", "release")
    locked = ("--build-constraints", backend, "--require-hashes", "--python", sys.executable)
    epoch = ask_git(root, "log", "-1", "--format=%ct")
    run(UV, "build", "--quiet", *locked, *options, "--out-dir", built, cwd=source, epoch=epoch)
    return sorted((*built.glob("*.tar.gz"), *built.glob("*.whl")))


def write_sbom(root: Path, folder: Path, target: Path) -> None:
    """Write what is installed with govbudget and both extras, as CycloneDX; it is validated."""
    python = folder / "venv" / "bin" / "python"
    locked = export(root, folder / "locked.txt", "--no-default-groups", "--all-extras")
    run(UV, "venv", "--quiet", "--python", sys.executable, python.parents[1], cwd=folder)
    install = (UV, "pip", "install", "--quiet", "--python", python, "--require-hashes")
    run(*install, "--requirements", locked, cwd=folder)
    command = (sys.executable, "-m", "cyclonedx_py", "environment", "--validate")
    about = ("--pyproject", root / "pyproject.toml", "--mc-type", "library")
    epoch = ask_git(root, "log", "-1", "--format=%ct")
    output = ("--output-reproducible", "--output-file", target)
    run(*command, *about, *output, python, cwd=folder, epoch=epoch)


def release(root: Path, dist: Path) -> None:
    """Fill the folder `dist` anew: wheel, sdist, SBOM, and their SHA-256 checksums."""
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (first := folder / "first").mkdir()
        (second := folder / "second").mkdir()
        # The first wheel is built from the sdist, the second from the commit.
        for one, other in zip(
            build(root, first), build(root, second, "--sdist", "--wheel"), strict=True
        ):
            if one.read_bytes() != other.read_bytes():
                sys.exit(f"release: {one.name} differs from build to build")
            shutil.copy(one, dist)
        run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir(), cwd=dist)
        write_sbom(root, folder, dist / f"govbudget-{read_version(root)}.cdx.json")
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"
        for path in sorted(dist.iterdir())
    ]
    (dist / "SHA256SUMS").write_text("".join(f"{line}\n" for line in sums))


if __name__ == "__main__":
    obstacles = find_obstacles(ROOT)
    if obstacles:
        sys.exit("".join(f"release: {obstacle}.\n" for obstacle in obstacles).rstrip())
    release(ROOT, ROOT / "dist")
    print(f"govbudget {read_version(ROOT)}, commit {ask_git(ROOT, 'rev-parse', 'HEAD')}")
    print("wheel and sdist: built twice, the same bytes. SBOM: valid CycloneDX. In dist/:")
    print((ROOT / "dist" / "SHA256SUMS").read_text(), end="")
    if has_unreleased(ROOT):
        print(f"{UNRELEASED}, so a tag on this commit would be refused.", file=sys.stderr)
