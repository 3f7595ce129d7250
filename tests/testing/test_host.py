"""The fixture for an application's own tests: whatever a test does is gone after it."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from uuid import uuid4

import pytest
import sqlalchemy as sa
from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy_lite import SQLAlchemy as Lite
from sqlalchemy import exc
from sqlalchemy.orm import Session
from tests.docs.support import ROOT, read_blocks
from tests.support import TABLES, Client, budget_path

from govbudget import BudgetExceeded, Call, Databases, GovBudget, IdType, SqlDirectory, Tokens
from govbudget.testing.host import Setup, govbudget

pytestmark = pytest.mark.slow

KEPT = ("groups", "role_assignments", "ai_model_prices", "group_ai_budgets", "ai_usage")
ONE = Tokens(input=1)


def make_host(engine):
    app = Flask(__name__)
    GovBudget(app, engine=engine, identify=lambda: request.headers.get("X-User"))
    return app


def run_a_hosts_test(app, setup):
    """What a host's test does: all of it in a line each."""
    member, service = uuid4(), uuid4()
    group = setup.add_group(member)
    setup.add_role(service, "gateway")
    setup.add_role(service, "gateway")
    setup.add_role(member, "org-admin", group.organization_id)
    setup.set_price("acme", "large", input_price=10**12)
    setup.set_limit(group.id, 1)
    setup.set_limit(group.id, 2_000_000)
    gov = app.extensions["govbudget"]
    call = Call(group.organization_id, member, "acme", "large")
    with gov.hold(service, call, ONE) as hold:
        hold.settle(ONE)
    with pytest.raises(BudgetExceeded), gov.hold(service, call, Tokens(input=2)):
        pytest.fail("the block was entered")
    send, limit = Client(app), {"spend_limit_micros": 3_000_000}
    assert send("GET", budget_path(group.id), member).json["spend_limit_micros"] == 2_000_000
    assert send("PUT", budget_path(group.id), member, json=limit).status_code == 200
    with gov.hold(service, call, Tokens(input=2)) as hold:
        hold.release()


def count_rows(engine):
    with engine.connect() as connection:
        return [
            connection.scalar(sa.select(sa.func.count()).select_from(getattr(TABLES, name)))
            for name in KEPT
        ]


def use_fixture(app):
    """Run the fixture by hand, as pytest does."""
    return govbudget.__wrapped__(app)


@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
def test_everything_that_a_test_does_is_rolled_back(database_url, engine, level):
    """Over HTTP and by `hold()`, whatever the isolation level of the engine."""
    before = count_rows(engine)
    hosts = sa.create_engine(database_url, isolation_level=level)
    app = make_host(lambda: hosts)
    found = app.extensions["govbudget"].find_engine
    ran = use_fixture(app)
    run_a_hosts_test(app, next(ran))
    assert count_rows(engine) == before
    assert next(ran, None) is None
    assert count_rows(engine) == before
    assert app.extensions["govbudget"].find_engine is found
    hosts.dispose()


def test_a_connection_that_the_application_gives_is_used_and_not_rolled_back(engine):
    before = count_rows(engine)
    with engine.connect() as connection:
        whole = connection.begin()
        app = make_host(connection)
        ran = use_fixture(app)
        setup = next(ran)
        assert setup.connection is connection
        run_a_hosts_test(app, setup)
        assert next(ran, None) is None
        assert not list(connection.dispatch.before_cursor_execute)  # one fixture follows at a time
        assert whole.is_active
        whole.rollback()
    assert count_rows(engine) == before


@pytest.fixture
def page(monkeypatch):
    """What the Python of the page defines; `myapp` is its application, to be given a `db`."""
    myapp = SimpleNamespace(create_app=lambda: myapp.app, app=Flask("myapp"))
    monkeypatch.setitem(sys.modules, "myapp", myapp)

    def read(db):
        myapp.db = db
        db.init_app(myapp.app)
        GovBudget(myapp.app, engine=db, identify=lambda: request.headers.get("X-User"))
        names = {}
        for block in read_blocks(ROOT / "docs" / "how-to" / "test-your-application.md", "python"):
            exec(compile(block, "test-your-application.md", "exec"), names)
        return SimpleNamespace(**names)

    return SimpleNamespace(read=read, config=myapp.app.config)


def test_the_page_is_right_and_the_session_may_commit_and_roll_back(page, database_url, engine):
    """It and govbudget see one another's rows, and both forget."""
    before = count_rows(engine)
    page.config["SQLALCHEMY_DATABASE_URI"] = database_url
    db = SQLAlchemy()
    names = page.read(db)
    made = names.app.__wrapped__()
    app = next(made)
    ran = use_fixture(app)
    joined = names.joined.__wrapped__(app, next(ran))
    setup = next(joined)
    names.test_a_call_over_the_limit_is_refused(app, setup)
    with app.app_context():
        usage = sa.select(sa.func.count()).select_from(TABLES.ai_usage)
        assert db.session.scalar(usage) == before[-1] + 1
        db.session.commit()
        db.session.execute(sa.insert(TABLES.users).values(id=uuid4(), name="one more"))
        db.session.rollback()
    run_a_hosts_test(app, setup)
    assert next(joined, None) is next(ran, None) is None
    assert count_rows(engine) == before
    ran = use_fixture(app)  # of the next test, with the same application
    joined = names.joined.__wrapped__(app, next(ran))
    run_a_hosts_test(app, next(joined))
    assert next(joined, None) is next(ran, None) is next(made, None) is None
    assert count_rows(engine) == before


def test_a_connection_that_an_earlier_test_left_behind_fails_with_a_sentence(engine):
    with engine.connect() as connection:
        app = make_host(connection)
    with pytest.raises(pytest.fail.Exception, match="put the engine back when a test ends"):
        next(use_fixture(app))


def test_the_isolation_of_flask_sqlalchemy_lite_holds_govbudget_too(page, database_url, engine):
    """With the fixture or without; after it all is committed as before."""
    before = count_rows(engine)
    page.config["SQLALCHEMY_ENGINES"] = {"default": database_url}
    db = Lite()
    names = page.read(db)
    app = names.create_app()
    with db.test_isolation():
        ran = use_fixture(app)
        setup = next(ran)
        names.test_a_call_over_the_limit_is_refused(app, setup)
        assert next(ran, None) is None
        run_a_hosts_test(app, setup)
    assert count_rows(engine) == before
    with app.app_context():
        own = app.extensions["govbudget"].find_engine(None)
        db.engine.connect = partial(sa.Engine.connect, db.engine)  # of a kind that isolates nothing
        assert app.extensions["govbudget"].find_engine(None) is own
        db.engine.dispose()


@pytest.fixture
def asking(engine):
    """A host's session in the test's transaction, and what govbudget does while it is open."""
    ran = use_fixture(app := make_host(engine))
    setup = next(ran)
    member = uuid4()
    group = setup.add_group(member)
    setup.add_role(member, "org-admin", group.organization_id)
    path, limit = budget_path(group.id), {"spend_limit_micros": 7}
    yield SimpleNamespace(
        session=Session(setup.connection, join_transaction_mode="create_savepoint"),
        put=lambda: Client(app)("PUT", path, member, json=limit).status_code,
        get=lambda: Client(app)("GET", path, member).json.get("spend_limit_micros"),
        insert=sa.insert(TABLES.users).values(id=uuid4(), name="one more"),
        count=lambda: setup.connection.scalar(sa.select(sa.func.count(TABLES.users.c.id))),
    )
    next(ran, None)


READ = sa.select(TABLES.users.c.id)


@pytest.mark.parametrize("end", ["rollback", "close"])
@pytest.mark.parametrize("read", [READ, sa.select(READ.cte("named"))], ids=["select", "with"])
def test_what_govbudget_did_outlives_a_session_that_only_read(asking, end, read):
    """As where each has a connection: the session of a log-in ends with the request."""
    asking.session.execute(read)
    assert asking.put() == 200
    with suppress(exc.ProgrammingError), asking.session.begin_nested():
        asking.session.execute(sa.text("SELECT no_such_thing"))
    asking.session.execute(sa.select(TABLES.users.c.id))
    getattr(asking.session, end)()
    assert asking.get() == 7


def test_what_the_session_wrote_is_rolled_back_and_what_it_committed_stays(asking):
    before = asking.count()
    with asking.session.begin_nested():
        asking.session.execute(asking.insert)
    assert asking.put() == 200
    asking.session.rollback()
    assert (asking.count(), asking.get()) == (before, None)
    asking.session.execute(asking.insert)
    assert asking.put() == 200
    asking.session.commit()
    asking.session.execute(sa.select(TABLES.users.c.id))
    asking.session.rollback()
    assert (asking.count(), asking.get()) == (before + 1, 7)


def test_a_command_works_in_the_transaction_where_there_are_several_databases(database_url, engine):
    """Also where the application's session says whose a group is, and is closed after it."""
    before, hosts = count_rows(engine), [sa.create_engine(database_url) for _ in range(2)]
    groups, app = TABLES.groups.c, Flask(__name__)

    def find_organization(group):
        return session.scalar(sa.select(groups.organization_id).where(groups.id == group))

    several = Databases({"0-2047": hosts[0], "2048-4095": hosts[1]})
    options = {"identify": lambda: None, "organization_of": find_organization}
    GovBudget(app, engine=several, **options)
    ran = use_fixture(app)
    setup = next(ran)
    session = Session(setup.connection, join_transaction_mode="create_savepoint")

    def run(*arguments):
        done = app.test_cli_runner().invoke(args=["govbudget", *arguments])
        session.close()
        return done.output

    group = str(setup.add_group().id)
    find_organization(group)
    assert "may spend 2 USD" in run("budget", "set", group, "--usd", "2")
    find_organization(group)
    assert "may spend 2 USD" in run("budget", "show", group)
    assert "`engine=` gives a Connection" in run("db", "current")
    assert next(ran, None) is None
    assert count_rows(engine) == before


def test_a_test_that_ends_the_transaction_fails_with_a_sentence(database_url):
    hosts = sa.create_engine(database_url, poolclass=sa.NullPool)
    ran = use_fixture(make_host(hosts))
    next(ran).connection.commit()
    with pytest.raises(pytest.fail.Exception, match="ended the transaction"):
        next(ran)
    hosts.dispose()


def test_groups_in_tables_of_ones_own_are_to_be_added_there():
    app = Flask(__name__)
    app.config.update(GOVBUDGET_GROUPS="none", GOVBUDGET_ID_TYPE="bigint")
    engine = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    table = sa.table(*("t", *map(sa.column, ("id", "organization_id", "group_id", "user_id"))))
    directory = SqlDirectory(
        groups=table,
        group_members=table,
        organization_members=table,
        role_assignments=sa.table(
            "r", sa.column("user_id"), sa.column("role"), sa.column("organization_id")
        ),
    )
    gov = GovBudget().init_app(app, engine=engine, identify=lambda: None, directory=directory)
    assert gov.settings.id_type is IdType.BIGINT
    with pytest.raises(ValueError, match="`organizations` are in tables of your own; add yours"):
        Setup(gov, None).add_group()
