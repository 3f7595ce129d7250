"""All that a test does, the shop's part and govbudget's, is in one transaction, rolled back."""

import pytest

from shop.main import create_app
from shop.models import db

pytest_plugins = ["govbudget.testing.host"]


@pytest.fixture
def app():
    app = create_app()
    with app.app_context():
        engine = db.engine
    yield app
    engine.dispose()


@pytest.fixture(autouse=True)
def joined(app, govbudget):
    """Put the shop's session into the same transaction; it may commit and roll back there."""
    with app.app_context():
        engines, engine = db.engines, db.engine
        db.session.configure(join_transaction_mode="create_savepoint")
    engines[None] = govbudget.connection
    yield govbudget
    engines[None] = engine
