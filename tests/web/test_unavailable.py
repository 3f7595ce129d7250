"""503: when the database can't serve, the answer says so, soon, and is never an allow."""

from __future__ import annotations

import socket
import zoneinfo
from contextlib import contextmanager
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.support import (
    Client,
    World,
    budget_path,
    count_statements,
    list_path,
    make_app,
    spend_requests,
)
from tests.web.helpers import (
    MeddlingDirectory,
    clear_budgets,
    outcome,
    put_limit,
    read_row,
)

from govbudget import Call, GovBudgetError, Tokens
from govbudget.db.own_pool import find_own

pytestmark = pytest.mark.slow

UNAVAILABLE = (503, "unavailable")
MAX_TRIES = 4


@pytest.fixture(scope="module")
def own_url(make_database, template):
    """A database of this module's own, in which triggers may raise and locks be held."""
    return make_database(template=template)


@pytest.fixture(scope="module")
def own_engine(own_url):
    engine = sa.create_engine(own_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def own_town(own_engine):
    return World(own_engine)


@pytest.fixture
def place(own_engine, own_town):
    clear_budgets(own_engine, own_town)
    return own_town


@contextmanager
def client_with(url, policy, **options):
    engine = sa.create_engine(url, **options)
    try:
        yield Client(make_app(engine, policy=policy)), engine
    finally:
        engine.dispose()


def ask_everything(send, town):
    """Send each kind of request, by someone who may do it and by someone who may do nothing."""
    for person in (town.owner, town.stranger):
        yield from ask_spend(send, town, *[person] * (person is town.stranger))
        yield send("GET", budget_path(town.a1), person)
        yield put_limit(send, town.a1, person)
        yield send("DELETE", budget_path(town.a1), person)
        yield send("GET", list_path(town.a), person)
        yield send("GET", "/ai/prices/a/b", person)
        yield send("PUT", "/ai/prices", person, json=[])


def ask_spend(send, town, person=None):
    """Send each request of spend, by the person, or by whoever may do it."""
    town.hold = uuid4()
    for method, path, body in spend_requests(town, "m").values():
        by = person or (town.gateway if path.startswith(("/ai/holds", "/ai/usage")) else town.owner)
        yield send(method, path, by, json=body)


def test_a_database_that_is_away_is_503(policy, town):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    url = f"postgresql+psycopg://x@127.0.0.1:{port}/x?connect_timeout=2"
    with client_with(url, policy) as (send, _):
        for response in ask_everything(send, town):
            assert outcome(response) == UNAVAILABLE
            assert int(response.headers["Retry-After"]) > 0
        # What needs no database is answered as ever.
        assert outcome(send("GET", budget_path(town.a1))) == (401, "unauthenticated")
        assert outcome(send("GET", budget_path("x"), town.owner)) == (400, "invalid-id")


def test_a_pool_that_is_exhausted_is_503_and_recovers(own_url, policy, place):
    """Ours, that is; the host's has no say."""
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.02}
    with client_with(own_url, policy, **options) as (send, engine):
        with engine.connect():
            assert put_limit(send, place.a1, place.owner).status_code == 200
        with find_own(engine).connect():
            for response in ask_everything(send, place):
                assert outcome(response) == UNAVAILABLE
        assert put_limit(send, place.a1, place.owner).status_code == 200
        # Every kind of end gives its connection back.
        for response in ask_everything(send, place):
            assert response.status_code != 503


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
def test_a_statement_that_waits_too_long_is_503(own_url, own_engine, policy, place, setting):
    """Another connection holds the budget's row: the write gives up, and nothing is written."""
    options = {"connect_args": {"options": f"-c {setting}=60"}}
    budgets = place.tables.group_ai_budgets
    with client_with(own_url, policy, **options) as (send, _):
        assert put_limit(send, place.a1, place.owner, 1).status_code == 200
        with own_engine.begin() as connection:
            row = sa.select(budgets).where(budgets.c.group_id == place.a1).with_for_update()
            connection.execute(row)
            assert outcome(put_limit(send, place.a1, place.owner, 2)) == UNAVAILABLE
            deleted = send("DELETE", budget_path(place.a1), place.owner)
            assert outcome(deleted) == UNAVAILABLE
            # A reader does not wait for a writer.
            assert send("GET", budget_path(place.a1), place.member).status_code == 200
        assert read_row(own_engine, place.a1) == 1
        assert put_limit(send, place.a1, place.owner, 3).status_code == 200


SPEND = (
    *("ai_holds", "ai_usage", "ai_spend_counters", "ai_spend_rollups", "ai_notices"),
    "member_ai_overrides",
)


def test_spend_that_waits_too_long_is_503_and_nothing_is_booked(own_url, own_engine, policy, place):
    """Its tables are locked: no call is admitted, and nobody is told that nothing was spent."""
    tables = [getattr(place.tables, name) for name in SPEND]
    count = [sa.select(sa.func.count()).select_from(table) for table in tables]
    options = {"connect_args": {"options": "-c statement_timeout=40"}}
    with client_with(own_url, policy, **options) as (send, _), own_engine.begin() as connection:
        names = ", ".join(map(str, tables))
        connection.exec_driver_sql(f"LOCK {names} IN ACCESS EXCLUSIVE MODE")
        before = [connection.scalar(query) for query in count]
        for response in ask_spend(send, place):
            assert outcome(response) == UNAVAILABLE
        connection.commit()
    with own_engine.begin() as connection:
        assert [connection.scalar(query) for query in count] == before


def test_a_decision_that_cannot_be_made_is_503_for_everyone(own_url, own_engine, policy, place):
    """The directory's own table is locked: nobody is allowed, and nobody is told of the group."""
    options = {"connect_args": {"options": "-c lock_timeout=10"}}
    with client_with(own_url, policy, **options) as (send, engine):
        find_own(engine).connect().close()
        with own_engine.begin() as connection:
            connection.exec_driver_sql("LOCK govbudget.role_assignments IN ACCESS EXCLUSIVE MODE")
            for response in ask_everything(send, place):
                assert outcome(response) == UNAVAILABLE
    assert read_row(own_engine, place.a1) is None


def test_a_read_only_standby_is_503_for_writes_and_serves_reads(own_url, own_engine, policy, place):
    put_limit(Client(make_app(own_engine, policy=policy)), place.a1, place.owner, 1)
    options = {"connect_args": {"options": "-c default_transaction_read_only=on"}}
    with client_with(own_url, policy, **options) as (send, _):
        assert send("GET", budget_path(place.a1), place.member).status_code == 200
        assert outcome(put_limit(send, place.a1, place.owner, 2)) == UNAVAILABLE
        assert outcome(put_limit(send, place.a1, place.member, 2)) == (403, "forbidden")
    assert read_row(own_engine, place.a1) == 1


def test_connections_that_were_cut_are_503_once_and_then_served(own_url, own_engine, policy, place):
    with client_with(own_url, policy) as (send, engine):
        assert put_limit(send, place.a1, place.owner).status_code == 200
        with find_own(engine).connect() as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with own_engine.connect() as connection:
            connection.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 5000)")
        assert outcome(send("GET", budget_path(place.a1), place.owner)) == UNAVAILABLE
        assert send("GET", budget_path(place.a1), place.owner).status_code == 200


def test_a_time_zone_that_the_database_does_not_know_is_503_and_the_setting_is_named(
    engine, policy, town, tmp_path
):
    """Its list of zones is not the one that Python has. What needs no zone is answered as ever."""
    (tmp_path / "Nowhere").mkdir()
    (tmp_path / "Nowhere" / "Town").write_bytes(b"TZif2" + bytes(39))
    zoneinfo.reset_tzpath([tmp_path])
    try:
        app = make_app(engine, {"GOVBUDGET_TIME_ZONE": "Nowhere/Town"}, policy=policy)
    finally:
        zoneinfo.reset_tzpath()
    send = Client(app)
    answers = [
        send("GET", f"/groups/{town.a1}/ai/spend", town.owner),
        send("POST", "/ai/holds", town.gateway, json=spend_requests(town, "m")["hold"][2]),
    ]
    for answer in answers:
        assert outcome(answer) == UNAVAILABLE
        assert "GOVBUDGET_TIME_ZONE" in answer.json["detail"]
    call = Call(town.a, town.member, "acme", "m")
    ask = app.extensions["govbudget"].hold(town.gateway, call, Tokens(input=1))
    with pytest.raises(GovBudgetError, match="GOVBUDGET_TIME_ZONE") as refused, ask:
        pytest.fail("the block was entered")
    assert refused.value.code == "unavailable"
    assert send("GET", list_path(town.a), town.owner).status_code == 200


def test_a_host_that_cannot_tell_who_calls_for_want_of_a_database_is_503(engine, policy, town):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    away = sa.create_engine(f"postgresql+psycopg://x@127.0.0.1:{port}/x")

    def identify():
        with away.connect() as connection:
            return connection.exec_driver_sql("SELECT 1").scalar()

    send = Client(make_app(engine, policy=policy, identify=identify))
    with count_statements(engine) as sent:
        assert outcome(send("GET", budget_path(town.a1))) == UNAVAILABLE
    assert sent == []


@pytest.fixture
def fail(own_engine):
    """Makes the next `times` writes of a budget fail with a SQLSTATE; gives how many were tried."""
    with own_engine.begin() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE public.tries")

    def set_up(state, times):
        with own_engine.begin() as connection:
            connection.exec_driver_sql(
                f"""
                CREATE OR REPLACE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    IF nextval('public.tries') <= {times} THEN
                        RAISE EXCEPTION 'a conflict of nobody''s making' USING ERRCODE = '{state}';
                    END IF;
                    RETURN NEW;
                END $$;
                CREATE OR REPLACE TRIGGER fail BEFORE INSERT
                ON govbudget.group_ai_budgets FOR EACH ROW EXECUTE FUNCTION public.fail();
                ALTER SEQUENCE public.tries RESTART;
                """
            )

    def count_tries():
        with own_engine.connect() as connection:
            query = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.tries"
            return connection.exec_driver_sql(query).scalar_one()

    yield set_up, count_tries
    with own_engine.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION public.fail CASCADE; DROP SEQUENCE public.tries")


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_conflict_is_tried_again_a_bounded_number_of_times(
    own_engine, policy, place, fail, state
):
    """Each try asks the directory and the policy anew, so that a retry can't outlive a role."""
    set_up, count_tries = fail
    send = Client(make_app(own_engine, policy=policy))
    for times in range(MAX_TRIES):
        set_up(state, times)
        with count_statements(own_engine) as sent:
            assert put_limit(send, place.a1, place.owner, times).status_code == 200
        assert count_tries() == times + 1
        assert len(sent) == 2 * (times + 1)
        assert read_row(own_engine, place.a1) == times
    set_up(state, 1000)
    response = put_limit(send, place.a1, place.owner, 99)
    assert outcome(response) == UNAVAILABLE
    assert count_tries() == MAX_TRIES
    assert read_row(own_engine, place.a1) == MAX_TRIES - 1


@pytest.mark.parametrize(("state", "expected"), [("57014", 503), ("53300", 503), ("P0001", 500)])
def test_any_other_failure_is_not_tried_again(  # noqa: PLR0917 - a case
    own_engine, policy, place, fail, state, expected
):
    set_up, count_tries = fail
    send = Client(make_app(own_engine, policy=policy))
    set_up(state, 1000)
    response = put_limit(send, place.a1, place.owner)
    assert outcome(response)[0] == expected
    assert b"nobody" not in response.data
    assert count_tries() == 1


def test_a_conflict_does_not_retry_past_a_role_that_was_taken_away(own_engine, policy, fail):
    """The second try finds the role gone and refuses, though the first one was allowed."""
    place = World(own_engine)
    set_up, count_tries = fail
    set_up("40001", 1)
    roles = place.tables.role_assignments

    def take_away(_group):
        if count_tries() == 0:
            with own_engine.begin() as connection:
                connection.execute(roles.delete().where(roles.c.user_id == place.org_admin))

    directory = MeddlingDirectory(place.directory, take_away)
    send = Client(make_app(own_engine, policy=policy, directory=directory))
    assert outcome(put_limit(send, place.a1, place.org_admin)) == (404, "group-not-found")
    assert read_row(own_engine, place.a1) is None
