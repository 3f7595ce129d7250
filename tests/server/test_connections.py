"""Connections of our own: which URLs are taken, what is set on them, and when they give up."""

from __future__ import annotations

import math
import time
import zoneinfo
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from tests.commands import as_text
from tests.server.pooler import pooling
from tests.support import TABLES, World, budget_path, count_statements

from govbudget.db.connection import normalize_url, open_engine
from govbudget.db.own_pool import find_own
from govbudget.db.retries import MIXED_UP, connect, explain_outage
from govbudget.errors import SettingsError
from govbudget.server.app import create_app, make_engine
from govbudget.server.tokens import BearerTokens

pytestmark = pytest.mark.slow

API = "/api/v2"


def connect_arguments(text):
    """What psycopg is given for a URL."""
    url = normalize_url(text)
    arguments = sa.create_engine(url).dialect.create_connect_args(url)[1]
    return {name: value for name, value in arguments.items() if name != "context"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "postgresql://u@h1:5432,h2:5433/db?target_session_attrs=read-write",
            {"user": "u", "host": "h1,h2", "port": "5432,5433", "dbname": "db"}
            | {"target_session_attrs": "read-write"},
        ),
        ("postgres://h1,h2:6/db", {"host": "h1,h2", "port": ",6", "dbname": "db"}),
        (
            "postgresql://u:p%40%2Fss%3A@h/d%20b",
            {"user": "u", "password": "p@/ss:", "host": "h", "dbname": "d b"},
        ),
        ("postgresql://%2Frun%2Fpg/db", {"host": "/run/pg", "dbname": "db"}),
        ("postgresql:///db?host=/run/pg&port=1", {"host": "/run/pg", "port": "1", "dbname": "db"}),
        ("postgresql://u@[::1]:7/db", {"user": "u", "host": "::1", "port": "7", "dbname": "db"}),
        ("postgresql+psycopg://u@h/db", {"user": "u", "host": "h", "dbname": "db"}),
        ("host=h1 dbname=db user=u", {"host": "h1", "dbname": "db", "user": "u"}),
    ],
)
def test_a_url_is_taken_as_postgresql_writes_them(text, expected):
    assert connect_arguments(text) == expected


def test_the_second_host_of_a_url_is_found(run, url):
    """The first is a folder without a socket; the commands and `serve` read the same URL."""
    given = normalize_url(url)
    hosts = f"%2Fnonexistent,{quote(given.query['host'], safe='')}"
    text = f"postgresql://{given.username}@{hosts}/{given.database}?target_session_attrs=read-write"
    assert run("db", "check", database_url=text).status == 0


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:s3cret/x@h/db",
        "postgresql://u:12/s3cret@h/db",
        "postgresql://u:x@s3cret@h/db",
        "postgresql://u:s3cret%zz@h/db",
        "postgresql://u:s3cret@[::1/db",
        "postgresql://u:s3cret@h:port/db",
        "postgresql://u@h/db?password=a&s3cret",
        "mysql://u:s3cret@h/db",
        "s3cret",
    ],
)
def test_what_may_be_a_password_is_never_shown(text):
    with pytest.raises(SettingsError) as refused:
        normalize_url(text)
    assert "GOVBUDGET_DATABASE_URL" in refused.value.detail
    assert "s3cret" not in refused.value.detail


def test_a_template_that_only_a_host_can_have_is_refused_at_the_start():
    engine = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(SettingsError, match=r"GOVBUDGET_BASE_TEMPLATE.*unset it for `serve`"):
        create_app(engine, {"GOVBUDGET_BASE_TEMPLATE": "base.html"})


def test_a_server_that_vanishes_is_given_up_on_and_a_url_says_how_soon(url):
    given = normalize_url(f"{url}&tcp_user_timeout=1&connect_timeout=9")
    for engine in (open_engine(given), make_engine(given, 1)):
        with engine.connect() as connection:
            parameters = connection.connection.dbapi_connection.info.get_parameters()
        engine.dispose()
        assert (parameters["tcp_user_timeout"], parameters["connect_timeout"]) == ("1", "9")
        assert (parameters["keepalives_idle"], parameters["keepalives_count"]) == ("5", "2")
        assert parameters["keepalives_interval"] == "2"


def test_what_was_not_acknowledged_for_five_seconds_ends_a_connection(url):
    engine = open_engine(normalize_url(url))
    with engine.connect() as connection:
        parameters = connection.connection.dbapi_connection.info.get_parameters()
    engine.dispose()
    assert (parameters["tcp_user_timeout"], parameters["connect_timeout"]) == ("5000", "5")


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("postgresql://h1,h2/db?port=5433", "5433,5433"),
        ("host=h1,h2,h3 port=5433 dbname=db", "5433,5433,5433"),
        ("postgresql://h1:1,h2:2/db", "1,2"),
        ("postgresql://h/db?port=5433", "5433"),
    ],
)
def test_one_port_is_the_port_of_every_host(text, ports):
    """As libpq has it; SQLAlchemy takes as many ports as hosts."""
    url = normalize_url(text)
    assert url.query["port"] == ports
    open_engine(url).dialect.create_connect_args(url)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
@pytest.mark.parametrize("command", [("db", "upgrade"), ("token", "list")], ids=" ".join)
def test_a_database_of_another_encoding_is_one_sentence(run, make_database, encoding, command):
    url = as_text(make_database(template=f"template0 ENCODING '{encoding}' LOCALE 'C'"))
    result = run(*command, database_url=url)
    assert result.status == 2
    assert f"is {encoding}; name one that was made with ENCODING 'UTF8'" in result.sentence


def test_quotes_around_every_name_are_not_a_difference(run, url):
    option = "options=-c%20quote_all_identifiers%3Don"
    checked = run("db", "check", database_url=f"{url}&{option}")
    assert (checked.status, checked.err) == (0, "")
    assert "as it should be" in checked.out


# -- serve --


@pytest.fixture
def serve(make_database, template):
    """A function that makes the stand-alone application on a database with settings of its own."""
    engines = []

    def make(*settings, connections=4, options="", **environment):
        url = make_database(template=template)
        admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        world = World(admin)
        with admin.connect() as connection:
            tokens = {
                name: BearerTokens(TABLES).create(connection, UUID(str(person)), days=1)
                for name, person in world.people.items()
            }
            for setting in settings:
                connection.exec_driver_sql(f"ALTER DATABASE {url.database} SET {setting}")
        given = normalize_url(as_text(url) + options)
        engine = make_engine(given, connections)
        engines.extend([admin, engine])
        app = create_app(engine, environment)

        def send(method, path, person="owner", **rest):
            bearer = {"Authorization": f"Bearer {tokens[person]}"}
            return app.test_client().open(path, method=method, headers=bearer, **rest)

        return world, send, engine

    yield make
    for engine in engines:
        engine.dispose()


def test_settings_of_the_database_do_not_reach_the_server(serve):
    world, send, engine = serve(
        "datestyle = 'SQL, MDY'", "timezone = 'Asia/Kolkata'", "lock_timeout = 0",
        "default_transaction_isolation = 'serializable'", "statement_timeout = 0",
        "search_path = ''", "intervalstyle = 'iso_8601'", "standard_conforming_strings = off",
        "idle_session_timeout = 1000",
    )  # fmt: skip
    put = send("PUT", API + budget_path(world.a1), json={"spend_limit_micros": 500})
    assert (put.status_code, put.json["spend_limit_micros"]) == (200, 500)
    assert put.json["updated_at"].endswith("Z")
    with engine.connect() as connection:
        shown = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in (
                *("statement_timeout", "lock_timeout", "default_transaction_isolation"),
                *("datestyle", "timezone", "idle_session_timeout"),
            )
        }
    assert shown == {
        "statement_timeout": "5s", "lock_timeout": "1s", "timezone": "UTC",
        "default_transaction_isolation": "read committed", "datestyle": "ISO, MDY",
        "idle_session_timeout": "0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "statement_timeout", "lock_timeout"),
    [
        ("&options=-c%20statement_timeout%3D70", "70ms", "1s"),
        ("&options=", "0", "0"),
    ],
)
def test_a_url_overrides_what_the_server_sets(serve, options, statement_timeout, lock_timeout):
    """One setting, or all of them: a pooler may not take any."""
    _, _, engine = serve(options=options)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == statement_timeout
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == lock_timeout


@pytest.mark.slow
def test_a_row_that_is_locked_for_long_starves_nobody_else(serve):
    """A counter that somebody keeps locked: whoever waits for it gives its connection back."""
    # A lock is waited for for less than the second of the default.
    world, send, _ = serve(connections=2, options="&options=-c%20lock_timeout%3D400")
    price = {"provider": "acme", "model": "m", "input_price": 1, "output_price": 1}
    price |= {"cache_read_price": None, "cache_write_price": None}
    assert send("PUT", f"{API}/ai/prices", json=[price]).status_code == 200

    def hold(person):
        call = {"organization_id": str(world.a), "user_id": str(getattr(world, person))}
        call |= {"provider": "acme", "model": "m", "tokens": {"input": 1}}
        return send("POST", f"{API}/ai/holds", "gateway", json=call).status_code

    assert hold("member") == 201
    with (
        world.engine.connect().execution_options(isolation_level="READ COMMITTED") as holder,
        holder.begin(),
        ThreadPoolExecutor(6) as pool,
    ):
        counters = TABLES.ai_spend_counters
        holder.execute(
            sa.select(counters).where(counters.c.user_id == world.member).with_for_update()
        )
        stuck = [pool.submit(hold, "member") for _ in range(4)]
        time.sleep(0.2)
        assert hold("joined") == 201
        assert {one.result() for one in stuck} == {503}


def test_a_zone_that_the_server_does_not_know_is_not_ready(serve, tmp_path, caplog):
    (tmp_path / "Nowhere").mkdir()
    (tmp_path / "Nowhere" / "Town").write_bytes(b"TZif2" + bytes(39))
    zoneinfo.reset_tzpath([tmp_path])
    try:
        _, send, _ = serve(GOVBUDGET_TIME_ZONE="Nowhere/Town")
    finally:
        zoneinfo.reset_tzpath()
    ready = send("GET", "/readyz")
    assert ready.status_code == 503
    assert ready.json["status"].startswith("the database does not know GOVBUDGET_TIME_ZONE")
    assert "Nowhere/Town" in caplog.text


def test_a_zone_that_the_server_knows_is_ready(serve):
    _, send, _ = serve(GOVBUDGET_TIME_ZONE="America/Havana")
    assert send("GET", "/readyz").status_code == 200


def test_a_command_that_meets_an_unknown_zone_names_the_setting(run, url, tmp_path):
    (tmp_path / "Nowhere").mkdir()
    (tmp_path / "Nowhere" / "Town").write_bytes(b"TZif2" + bytes(39))
    zoneinfo.reset_tzpath([tmp_path])
    try:
        result = run(
            *("spend", "report", "--organization", uuid4()),
            database_url=url,
            time_zone="Nowhere/Town",
        )
    finally:
        zoneinfo.reset_tzpath()
    assert result.status == 2
    assert "GOVBUDGET_TIME_ZONE; name a zone that it knows" in result.sentence


# -- a server that is silent --


def test_a_server_that_keeps_silent_is_given_up_on(url):
    """It acknowledges each packet, as one that hangs does. Every connection to it is closed."""
    with pooling(url, lends_transactions=False, follows=False) as between:
        engine = make_engine(normalize_url(between.url), 2)
        with engine.connect() as idle, engine.connect() as connection:
            before = idle.connection.dbapi_connection
            between.answers.clear()
            # Nothing in between passes on what `serve` sets; a real server's value is read.
            connection.connection.dbapi_connection.silence_seconds = 0.3
            with pytest.raises(sa.exc.OperationalError, match="silent for too long") as refused:
                connection.execute(sa.text("SELECT 1"))
            between.answers.set()
        assert explain_outage(refused.value).code == "unavailable"
        with engine.connect() as connection:
            assert connection.connection.dbapi_connection is not before
            assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1
        engine.dispose()


@pytest.mark.parametrize(
    ("option", "seconds"),
    [("", 7), ("-c%20statement_timeout%3D60s", 62), ("-c%20statement_timeout%3D0", math.inf)],
)
def test_how_long_a_server_may_be_silent_is_how_long_its_statements_may_take(url, option, seconds):
    engine = make_engine(normalize_url(f"{url}&options={option}" if option else url), 1)
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection.silence_seconds == seconds
    engine.dispose()


# -- behind a pooler --


@pytest.fixture
def send_through(url):
    """A function that makes the stand-alone application behind a pooler of ours."""
    with ExitStack() as stack:

        def make(*, connections=4, size=2, **options):
            through = stack.enter_context(pooling(url, size, **options)).url
            engine = make_engine(normalize_url(through), connections)
            stack.callback(engine.dispose)
            return create_app(engine, {}).test_client(), find_own(engine)

        yield make


@pytest.mark.parametrize("connections", [1, 4])
def test_a_pooler_that_mixes_up_what_callers_prepare_is_not_ready(
    send_through, connections, caplog
):
    """As PgBouncer before 1.21 in transaction mode. It is found by what it does, at each ask."""
    client, _ = send_through(connections=connections, lends_transactions=True, follows=False)
    for _ in range(3):
        caplog.clear()
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json) == (503, {"status": MIXED_UP})
        (logged,) = [r.message for r in caplog.records if r.levelname == "ERROR"]
        assert logged.startswith("not ready: ")


def test_a_pooler_that_mixes_up_without_an_error_is_not_ready(send_through, caplog):
    """Two clients whose names differ by luck; the next two may run one another's statements."""
    client, engine = send_through(lends_transactions=True, follows=False)
    with engine.connect() as used_next, connect(engine, "READ COMMITTED") as other:
        other.execute(sa.text("SELECT 1"))  # now it keeps the session that the rest will use
        for _ in range(8):
            used_next.execute(sa.text("SELECT 2"))
    assert client.get("/readyz").json == {"status": MIXED_UP}
    assert f"not ready: {MIXED_UP}" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"lends_transactions": True, "follows": True},
        {"lends_transactions": False, "follows": False},
    ],
    ids=["follows prepared statements", "lends a session for life"],
)
@pytest.mark.parametrize("connections", [1, 4])
def test_a_pooler_that_mixes_up_nothing_is_ready(send_through, connections, options):
    client, _ = send_through(connections=connections, size=4, **options)
    for _ in range(3):
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json) == (200, {"status": "ready"})


def test_without_a_pooler_readiness_asks_nothing_more(url):
    engine = make_engine(normalize_url(url), 1)
    client = create_app(engine, {}).test_client()
    with count_statements(engine) as sent:
        assert client.get("/readyz").status_code == 200
    engine.dispose()
    assert not [statement for statement in sent if "pg_prepared_statements" in statement]


def test_statements_that_got_mixed_up_are_an_outage_that_says_so(send_through):
    """What a caller meets before anybody asked whether it is ready."""
    _, engine = send_through(size=1, lends_transactions=True, follows=False)
    with engine.connect() as one, engine.connect() as other:
        with pytest.raises(sa.exc.ProgrammingError) as refused:
            for _ in range(8):
                one.execute(sa.text("SELECT 1"))
                other.execute(sa.text("SELECT 2"))
        assert explain_outage(refused.value).detail == MIXED_UP
