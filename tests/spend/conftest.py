"""The command's fixtures, and the time."""

from __future__ import annotations

from uuid import uuid4

import pytest
from tests.commands import empty_url, here, own_url, run, url  # noqa: F401 - fixtures
from tests.forking import start_forker
from tests.spend.test_hold_life import Clock


@pytest.fixture
def clock():
    """The time of an installation, which a test sets."""
    return Clock()


@pytest.fixture(scope="session")
def gateways():
    """The process that forks the gateways of all tests; it ends with its standard input."""
    with start_forker("tests.spend.gateways") as process:
        yield process


@pytest.fixture
def make_place(engine, tmp_path, gateways):
    """A function that makes a place where gateways make so many calls."""
    from tests.spend.test_processes import Place

    def make(calls):
        folder = tmp_path / uuid4().hex
        folder.mkdir()
        return Place(engine, folder, gateways, calls)

    return make
