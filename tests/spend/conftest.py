"""The command's fixtures, and the time."""

from __future__ import annotations

import pytest
from tests.commands import empty_url, here, own_url, run, url  # noqa: F401 - fixtures
from tests.spend.test_hold_life import Clock


@pytest.fixture
def clock():
    """The time of an installation, which a test sets."""
    return Clock()
