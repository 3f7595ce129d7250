"""One application over the shared database, and the command."""

from __future__ import annotations

import pytest
from tests.commands import empty_url, run, url  # noqa: F401 - fixtures
from tests.support import Client, World, make_app

from govbudget import Policy


@pytest.fixture(scope="session")
def policy():
    """The packaged policy; nobody reloads it here."""
    return Policy.load()


@pytest.fixture(scope="module")
def send(engine, policy):
    """Sends requests as people of a world."""
    return Client(make_app(engine, policy=policy))


@pytest.fixture(scope="module")
def town(engine):
    """A world for the tests of one module that make groups of their own in it."""
    return World(engine)


@pytest.fixture
def group(town):
    """A fresh group of organization a."""
    with town.engine.begin() as connection:
        return town.add_group(connection, town.a)
