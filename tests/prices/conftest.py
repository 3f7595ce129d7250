"""The fixtures of tests that store prices."""

from __future__ import annotations

from uuid import uuid4

import pytest


@pytest.fixture
def provider():
    """Give a provider that no other test has prices of."""
    return f"provider {uuid4()}"


@pytest.fixture
def connection(engine, world):
    with engine.connect() as connection:
        yield connection
