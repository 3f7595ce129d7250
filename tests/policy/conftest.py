"""The shipped policy, loaded once. Nothing here needs a database or Flask."""

from __future__ import annotations

import pytest
from tests.policy.helpers import MATRIX, load


@pytest.fixture(scope="session")
def policy(asked_tables):
    """The shipped policy."""
    shipped = load(matrix=MATRIX)
    asked_tables[shipped.digest] = shipped.table
    return shipped
