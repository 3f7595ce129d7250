"""uv.lock: it covers what pyproject.toml asks for, and names no machine's own index."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from pip._internal.models.index import PyPI  # what pip, as delivered, asks
from tools import install_oldest

CHECKOUT = Path(__file__).parents[2]
TEXT = (CHECKOUT / "uv.lock").read_text()
LOCK = tomllib.loads(TEXT)
ASKED = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
GROUPS = ASKED["dependency-groups"]
VERSIONS = {package["name"]: package.get("version") for package in LOCK["package"]}
(OURS,) = (package for package in LOCK["package"] if package["name"] == "govbudget")


def list_asked(group):
    """The requirements of a dependency group, with those of the groups that it includes."""
    for entry in GROUPS[group]:
        if isinstance(entry, str):
            yield read(entry)
        else:
            yield from list_asked(entry["include-group"])


def read(text, extra=None):
    """A requirement in a form that can be compared."""
    asked = Requirement(text)
    return asked.name, frozenset(asked.extras), asked.specifier, extra


def read_locked(entries):
    """The requirements that the lock file was made for."""
    for entry in entries:
        extra = re.search(r"extra == '(\w+)'", entry.get("marker", ""))
        specifier = SpecifierSet(entry.get("specifier", ""))
        yield entry["name"], frozenset(entry.get("extras", ())), specifier, extra and extra[1]


def test_it_was_made_for_the_dependencies_that_are_asked_for():
    """Else: `uv lock`."""
    project = ASKED["project"]
    asked = {read(text) for text in project["dependencies"]}
    for extra, texts in project["optional-dependencies"].items():
        asked |= {read(text, extra) for text in texts}
    assert set(read_locked(OURS["metadata"]["requires-dist"])) == asked
    assert LOCK["requires-python"] == project["requires-python"]


@pytest.mark.parametrize("group", GROUPS)
def test_it_was_made_for_the_group(group):
    """Else: `uv lock`."""
    assert set(read_locked(OURS["metadata"]["requires-dev"][group])) == set(list_asked(group))


def test_it_locks_the_version_that_is_released():
    assert OURS["version"] == ASKED["project"]["version"]
    assert None not in VERSIONS.values()


def test_it_names_the_public_index_and_no_other():
    """A lock file made behind a mirror names the mirror, which others can't reach."""
    registries = {p["source"].get("registry") for p in LOCK["package"] if p is not OURS}
    assert registries == {PyPI.simple_url}
    hosts = set(re.findall(r"https?://([^/\"]+)", TEXT))
    assert hosts == {PyPI.netloc, PyPI.file_storage_domain}


def find_installed():
    """The distributions that `make test-oldest` installs, with all that they need."""
    needed = {package["name"]: package.get("dependencies", ()) for package in LOCK["package"]}
    found, left = {"pip"}, ["govbudget"]
    left += [name for group in install_oldest.GROUPS for name, *_ in list_asked(group)]
    while left:
        name = canonicalize_name(left.pop())
        if name not in found:
            found.add(name)
            left += [entry["name"] for entry in needed[name]]
    return found


def find_imported():
    """The names of the modules that tests import, each as the first part."""
    for path in (CHECKOUT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.split(".")[0]


def test_the_oldest_environment_has_what_the_tests_import():
    """They run there seldom, and each that imports something else fails."""
    installed, providers = find_installed(), packages_distributions()
    for module in set(find_imported()) - sys.stdlib_module_names:
        names = {canonicalize_name(name) for name in providers.get(module, ())}
        assert not names or names & installed, module
