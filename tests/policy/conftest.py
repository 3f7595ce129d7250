"""The shipped policy, loaded once. Nothing here needs a database or Flask."""

from __future__ import annotations

import pytest
from tests.policy.helpers import MATRIX, load

from govbudget.authz import evaluator

ask_casbin = evaluator.build_table
tables = {}


def build_once(files, lines):
    """The table of these files; Casbin is asked about the same model and lines once."""
    if files.digest not in tables:
        tables[files.digest] = ask_casbin(files, lines)
    return tables[files.digest]


@pytest.fixture(autouse=True)
def tables_by_digest(request, monkeypatch):
    """Many tests load the same few lines. A test marked `usefixtures("casbin")` asks each time."""
    if "casbin" not in request.fixturenames:
        monkeypatch.setattr(evaluator, "build_table", build_once)


@pytest.fixture
def casbin():
    """Casbin itself is asked at every load."""


@pytest.fixture(scope="session")
def policy():
    """The shipped policy."""
    shipped = load(matrix=MATRIX)
    tables[shipped.digest] = shipped.table
    return shipped
