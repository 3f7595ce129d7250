from __future__ import annotations

import pytest

from govbudget import Policy


@pytest.fixture(scope="session")
def policy():
    """The packaged policy."""
    return Policy.load()
