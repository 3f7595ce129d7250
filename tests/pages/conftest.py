"""One application with pages, over the shared database."""

from __future__ import annotations

from functools import partial

import pytest
from tests.support import Client, World, make_app

from govbudget import Policy


@pytest.fixture(scope="session")
def policy():
    """The packaged policy; it is immutable as long as nobody reloads it."""
    return Policy.load()


@pytest.fixture(scope="module")
def app(engine, policy):
    """An application with pages."""
    return make_app(engine, policy=policy, pages="/ai")


@pytest.fixture(scope="module")
def fill(engine):
    """Makes a world; a module may have one that is filled."""
    return partial(World, engine)


@pytest.fixture(scope="module")
def town(fill):
    """A world for the tests of one module that leave it as it was, or don't mind."""
    return fill()


@pytest.fixture(scope="module")
def other_town(fill):
    """Another such world, for tests that leave it as the others could not use it."""
    return fill()


@pytest.fixture(scope="module")
def visit(app):
    """Opens pages as people of a world."""
    client = app.test_client()

    def visit(path, person=None, method="GET", **options):
        headers = {} if person is None else {"X-User": str(person)}
        return client.open(f"/ai{path}", method=method, headers=headers, **options)

    return visit


@pytest.fixture(scope="module")
def send(app):
    """Sends requests to the API as people of a world."""
    return Client(app)
