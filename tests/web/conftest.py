"""One application over the shared database, and someone to send requests to it."""

from __future__ import annotations

import pytest
from tests.support import Client, World, make_app
from tests.web.helpers import clear_budgets

from govbudget import Policy


@pytest.fixture(scope="session")
def policy():
    """The packaged policy; it is immutable as long as nobody reloads it."""
    return Policy.load()


@pytest.fixture(scope="module")
def app(engine, policy):
    """An application with nothing but govbudget."""
    return make_app(engine, policy=policy)


@pytest.fixture(scope="module")
def send(app):
    """Sends requests as people of a world."""
    return Client(app)


@pytest.fixture(scope="module")
def town(engine):
    """A world for the tests of one module that leave it as it was, or don't mind."""
    return World(engine)


@pytest.fixture
def clean_town(engine, town):
    """The module's world, with no budget set: cheaper than a world for each test."""
    clear_budgets(engine, town)
    return town
