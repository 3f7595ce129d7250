"""Connections of our own: a caller who holds one of the host's never waits for another of them."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy_lite import SQLAlchemy
from tests.spend.test_store import Spender
from tests.support import Client, budget_path, make_app
from tests.web.helpers import outcome, put_limit, read_row

from govbudget import BudgetExceeded, GovBudget, SettingsError, Tokens
from govbudget.db.own_pool import find_own
from govbudget.db.retries import connect

pytestmark = pytest.mark.slow

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


@contextmanager
def open_engine(url, **options):
    engine = sa.create_engine(url, **options)
    try:
        yield engine
    finally:
        engine.dispose()


def ask_pid(engine):
    """Give the process of the server that a unit of work is served by."""
    with connect(engine) as connection:
        return connection.scalar(sa.text("SELECT pg_backend_pid()"))


def read_alive(engine, pids):
    """Give which of these processes of the server are still there."""
    query = sa.text("SELECT pid FROM pg_stat_activity WHERE pid = ANY(:pids)")
    with engine.connect() as connection:
        return set(connection.scalars(query, {"pids": list(pids)}))


def test_an_engine_has_one_pool_of_ours_in_every_app_and_with_every_option(database_url):
    """Also where the host makes an engine with options anew in each request."""
    with open_engine(database_url) as engine:
        own = find_own(engine)
        assert find_own(engine) is find_own(own) is own
        pids = {ask_pid(find_own(engine.execution_options(number=n))) for n in range(9)}
        assert pids == {ask_pid(own)}
        with engine.connect() as connection:
            assert connection.connection.dbapi_connection.info.backend_pid not in pids


def test_it_is_made_as_the_hosts_is_creator_listeners_options_and_all(database_url):
    """What is set up on a connection of the host's (a role, a search path) is so on ours."""
    told = []
    with open_engine("postgresql+psycopg://nobody@127.0.0.1:1/none") as engine:

        @sa.event.listens_for(engine, "do_connect")
        def reach(dialect, _record, _arguments, _options):
            text = database_url.set(drivername="postgresql")
            return dialect.dbapi.connect(text.render_as_string(hide_password=False))

        @sa.event.listens_for(engine, "connect")
        def set_up(connection, _record):
            connection.autocommit = True
            connection.execute("SET search_path = the_hosts")
            connection.autocommit = False

        own = find_own(engine.execution_options(the_hosts="option"))
        sa.event.listen(engine, "before_execute", lambda *_: told.append("executed"))
        with connect(own) as connection:
            assert connection.scalar(sa.text("SHOW search_path")) == "the_hosts"
            assert connection.get_execution_options()["the_hosts"] == "option"
    assert told == ["executed"]


def test_its_connections_are_in_autocommit_and_the_hosts_are_not(database_url):
    """So no unit pays for the change and the change back; after a transaction one does, once."""
    with open_engine(database_url) as engine:
        own = find_own(engine)
        changes = []
        sa.event.listen(engine, "set_connection_execution_options", lambda *_: changes.append(1))
        assert ask_pid(own) == ask_pid(own)
        assert changes == []
        with connect(own, "READ COMMITTED") as connection:
            assert not connection.connection.dbapi_connection.autocommit
        assert changes == [1]
        with connect(own) as connection:
            assert connection.connection.dbapi_connection.autocommit
        with engine.connect() as connection:
            assert not connection.connection.dbapi_connection.autocommit


def test_it_has_the_size_of_the_hosts_and_no_overflow(database_url):
    options = {"pool_size": 2, "max_overflow": 5, "pool_timeout": 0.05}
    with open_engine(database_url, **options) as engine:
        own = find_own(engine)
        with own.connect(), own.connect():
            with pytest.raises(sa.exc.TimeoutError):
                own.connect()
            with engine.connect():
                pass
    with open_engine(database_url, pool_size=0) as engine:  # without a limit, and so is ours
        own = find_own(engine)
        with own.connect(), own.connect():
            pass


def test_it_closes_with_the_engine_and_opens_anew_with_it(database_url, engine):
    with open_engine(database_url) as hosts:
        own = find_own(hosts)
        before = ask_pid(own)
        hosts.dispose()
        after = ask_pid(own)
        assert find_own(hosts) is own
    own.dispose()
    assert before != after
    assert read_alive(engine, {before, after}) == set()


def test_it_is_gone_when_the_engine_is(database_url):
    """A host may make an engine for each of many tenants, and forget it."""
    with open_engine(database_url) as engine:
        ask_pid(find_own(engine))
        gone = weakref.ref(find_own(engine))
    del engine
    gc.collect()
    assert gone() is None


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_uses_no_connection_of_its_parent(database_url, engine):
    """Nor does it close one, with or without the `dispose(close=False)` of a host that knows."""
    with open_engine(database_url) as hosts:
        own = find_own(hosts)
        parents = ask_pid(own)
        for disposes in (False, True):
            reader, writer = os.pipe()
            if os.fork() == 0:
                try:
                    if disposes:
                        hosts.dispose(close=False)
                    os.write(writer, f"{ask_pid(own)}".encode())
                finally:
                    os._exit(0)
            os.wait()
            childs = int(os.read(reader, 20))
            os.close(reader)
            os.close(writer)
            assert childs != parents
        assert ask_pid(own) == parents


@pytest.mark.parametrize("pool", [sa.NullPool, sa.StaticPool])
def test_a_pool_that_never_waits_is_used_as_it_is(database_url, pool):
    with open_engine(database_url, poolclass=pool) as engine:
        assert find_own(engine) is engine


@pytest.mark.parametrize("is_asked_late", [True, False])
def test_a_connection_is_used_as_it_is_and_is_the_hosts_to_roll_back(engine, world, is_asked_late):
    """A host's tests undo all that they did, and so all that govbudget did in them."""
    spender = Spender(world)
    spender.limit(world.a1, 3)
    with engine.connect() as connection:
        whole = connection.begin()
        app = make_app((lambda: connection) if is_asked_late else connection)
        send, govbudget = Client(app), app.extensions["govbudget"]
        assert put_limit(send, world.a1, world.owner, 7_000_000).status_code == 200
        assert outcome(put_limit(send, world.a1, world.member)) == (403, "forbidden")
        with govbudget.hold(world.gateway, spender.call, Tokens(input=5)) as hold:
            hold.settle(Tokens(input=5))
        with (
            pytest.raises(BudgetExceeded),
            govbudget.hold(world.gateway, spender.call, hold.usage.tokens),
        ):
            pytest.fail("the block was entered")
        assert connection.get_transaction() is whole
        assert whole.is_active
        whole.rollback()
    assert read_row(engine, world.a1) == 3_000_000
    assert spender.read("ai_usage", "event_id") == []


@pytest.mark.parametrize("is_first", [True, False])
def test_the_db_of_flask_sqlalchemy_is_taken_with_and_without_a_context(
    database_url, world, is_first
):
    """Its `init_app` may come before ours or after it; `hold()` works from any thread."""
    spender = Spender(world)
    db, app = SQLAlchemy(), Flask(__name__)
    app.config["SQLALCHEMY_ENGINES"] = {"default": database_url}
    if is_first:
        db.init_app(app)
    GovBudget(app, engine=db, identify=lambda: world.owner)
    if not is_first:
        db.init_app(app)
    assert put_limit(Client(app), world.a1, world.owner, 7_000_000).status_code == 200
    govbudget = app.extensions["govbudget"]
    with Flask("another").app_context(), govbudget.unit(world.owner) as unit:
        assert unit.authorize("read", group=world.a1).object.id == world.a1
    with govbudget.hold(world.gateway, spender.call, Tokens(input=5)) as hold:
        hold.settle(Tokens(input=5))
    with app.app_context():
        db.engine.dispose()


def test_a_db_for_sqlite_is_refused_when_the_application_starts():
    db, app = SQLAlchemy(), Flask(__name__)
    app.config["SQLALCHEMY_ENGINES"] = {"default": "sqlite://"}
    db.init_app(app)
    with pytest.raises(SettingsError, match="`engine=` is for `sqlite"):
        GovBudget(app, engine=db, identify=lambda: None)
