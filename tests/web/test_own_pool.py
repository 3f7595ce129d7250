"""Connections of our own: a caller who holds one of the host's never waits for another of them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy_lite import SQLAlchemy
from tests.spend.test_store import Spender
from tests.support import budget_path

from govbudget import GovBudget, Tokens

POOL = 5 + 10  # SQLAlchemy's defaults
CALLERS = 40


class Host:
    """A host on Flask-SQLAlchemy-Lite, whose log-in reads the session of the request.

    The first callers wait for one another, so that they hold all that its pool has.
    """

    def __init__(self, url, spender):
        self.app, self.db, self.town = Flask(__name__), SQLAlchemy(), spender.world
        self.app.config["SQLALCHEMY_ENGINES"] = {"default": url}
        self.db.init_app(self.app)
        self.arrived, self.all_held = [], threading.Event()
        GovBudget(self.app, engine=lambda: self.db.engine, identify=self.load_user)
        self.call = spender.call
        self.app.add_url_rule("/ask", view_func=self.ask)

    def load_user(self):
        people = self.town.tables.users
        query = sa.select(people.c.id).where(people.c.id == self.town.member)
        found = self.db.session.scalar(query)
        self.arrived.append(found)
        if len(self.arrived) == POOL:
            self.all_held.set()
        assert self.all_held.wait(10)
        return found

    def ask(self):
        assert self.load_user() == self.call.user_id
        govbudget = self.app.extensions["govbudget"]
        with govbudget.hold(self.town.gateway, self.call, Tokens(input=1)) as hold:
            hold.settle(Tokens(input=1))
        return "asked\n"


@pytest.fixture
def host(database_url, world):
    spender = Spender(world)
    spender.limit(world.a1, 10**6)
    host = Host(database_url, spender)
    yield host
    with host.app.app_context():
        host.db.engine.dispose()


@pytest.mark.parametrize("path", ["/ask", None])
def test_forty_callers_at_once_who_hold_a_connection_of_the_host_are_all_served(host, path):
    """INVARIANT: govbudget never waits for a pool from which its own caller holds a connection."""
    path = path or f"/api/v2{budget_path(host.town.a1)}"
    with ThreadPoolExecutor(CALLERS) as threads:
        answers = list(
            threads.map(lambda _: host.app.test_client().get(path).status_code, range(CALLERS))
        )
    assert answers == [200] * CALLERS
