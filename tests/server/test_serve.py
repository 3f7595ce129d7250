"""`govbudget serve`: a real process, bearer tokens, health, JSON lines, and how it ends."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from tests.server.forks import Forked
from tests.server.support import TIMEOUT, Server, environment, open_folder, serving, start_freshly
from tests.support import WAITING, budget_path, list_path

from govbudget import Policy
from govbudget.authz.files import packaged_policy_dir
from govbudget.db.connection import normalize_url
from govbudget.layout import Layout
from govbudget.migrations import upgrade
from govbudget.server.app import (
    CONNECT_TIMEOUT_SECONDS,
    JsonLines,
    create_app,
    make_engine,
)
from govbudget.server.embedded import start_postgres
from govbudget.server.serve import _require_free
from govbudget.server.workers import BYTES_PER_SECOND, SILENCE_SECONDS, Client

pytestmark = pytest.mark.slow

API = "/api/v2"
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The home of who runs the file's server."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(served_url, served_world, home):
    """A server on a migrated database with a world in it; statements may take two seconds.

    It is a fresh Python, as a shell starts one; the other servers of this file are forked.
    """
    url = f"{served_url}&options=-c%20statement_timeout%3D2s%20-c%20lock_timeout%3D9s"
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("HOME", "XDG_RUNTIME_DIR"):
                patch.setenv(name, str(home))
            server = stack.enter_context(serving(start=start_freshly, database_url=url))
        yield server


def budget(world, group="a1"):
    return API + budget_path(getattr(world, group))


@contextmanager
def locked(world, table="group_ai_budgets"):
    """Hold a lock that every statement on a table waits for."""
    with world.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql(f"LOCK TABLE govbudget.{table}")
        yield connection


# -- the endpoints, over real HTTP --


def test_every_endpoint_answers_over_http(server, served_world):
    tokens = served_world.tokens
    path = budget(served_world)
    server("DELETE", path, tokens["owner"])  # where a test before this one has set it
    assert server("GET", path, tokens["member"]).json["code"] == "budget-not-set"
    put = server("PUT", path, tokens["org_admin"], {"spend_limit_micros": 7})
    assert (put.status, put.json["spend_limit_micros"]) == (200, 7)
    got = server("GET", path, tokens["member"])
    assert (got.status, got.json) == (200, put.json)
    listed = server("GET", API + list_path(served_world.a), tokens["member"])
    assert listed.json == {"budgets": [put.json], "next_page_token": None}
    assert server("DELETE", path, tokens["member"]).status == 403
    assert server("DELETE", path, tokens["user_admin"]).status == 204

    row = {"provider": "acme", "model": f"a/{uuid4()}", "input_price": 1, "output_price": 2}
    row |= {"cache_read_price": None, "cache_write_price": 0}
    loaded = server("PUT", f"{API}/ai/prices", tokens["owner"], [row])
    assert loaded.json == {"received": 1, "changed": 1}
    shown = server("GET", f"{API}/ai/prices/acme/{row['model']}", tokens["owner"])
    assert (shown.status, shown.json) == (200, row)


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer ", "Bearer nonsense", f"Bearer gbt_{'x' * 43}", "Basic dTpw", "\xff"],
)
def test_bad_credentials_are_401_with_a_challenge(server, served_world, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = server("GET", budget(served_world), **headers)
    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json["detail"] == (
        "send `Authorization: Bearer TOKEN`; `govbudget token create USER` prints a token"
    )


def test_a_revoked_token_is_401_at_the_next_request(server, served_world, served_url, run):
    token = run("token", "create", served_world.member, database_url=served_url).out.strip()
    assert server("GET", API + list_path(served_world.a), token).status == 200
    listed = run("token", "list", database_url=served_url).out.splitlines()
    newest = [line for line in listed if str(served_world.member) in line][-1]
    assert run("token", "revoke", newest.split()[0], database_url=served_url).status == 0
    assert server("GET", API + list_path(served_world.a), token).status == 401


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/api", "/healthz/x", f"{API}/nothing"])
def test_an_unknown_path_is_a_problem_inside_and_outside_the_prefix(server, path):
    answer = server("GET", path)
    assert (answer.status, answer.headers["Content-Type"]) == (404, PROBLEM)
    assert answer.json["code"] == "not-found"
    assert answer.json["type"] == "urn:govbudget:problem:not-found"


def test_a_wrong_method_on_a_health_path_is_a_problem(server):
    answer = server("POST", "/healthz")
    assert (answer.status, answer.headers["Content-Type"]) == (405, PROBLEM)
    assert "GET" in answer.headers["Allow"]


def test_health_and_readiness_are_200(server):
    assert server("GET", "/healthz").json == {"status": "ok"}
    assert (server("GET", "/readyz").status, server("GET", "/readyz").json["status"]) == (
        200,
        "ready",
    )


# -- the log --


def test_a_decision_is_logged_with_its_lines_and_digest(server, served_world):
    answer = server(
        "PUT", budget(served_world, "a2"), served_world.tokens["owner"], {"spend_limit_micros": 1}
    )
    line = server.find_line(answer)
    assert (
        line.items()
        >= {
            "method": "PUT",
            "route": f"{API}/groups/<group>/ai/budget",
            "status": 200,
            "caller": str(served_world.owner),
            "action": "update",
            "decision": "allow",
            "id": str(served_world.a2),
        }.items()
    )
    assert line["lines"][0].startswith("policy.csv:")
    assert line["digest"].startswith("sha256:")
    assert line["ms"] > 0


def test_a_denial_is_logged_with_the_lines_that_would_have_allowed_it(server, served_world):
    answer = server("DELETE", budget(served_world), served_world.tokens["member"])
    line = server.find_line(answer)
    assert (line["status"], line["decision"], line["code"]) == (403, "deny", "forbidden")
    assert any("org-admin" in text for text in line["would_allow"])


@pytest.mark.parametrize(
    ("method", "path", "status", "route"),
    [
        ("GET", "/healthz", 200, "/healthz"),
        ("GET", "/nothing", 404, None),
        ("GET", f"{API}/nothing", 404, None),
        ("POST", "/healthz", 405, None),
        ("GET", f"{API}/ai/prices/a/b", 401, f"{API}/ai/prices/<provider>/<rest:model>"),
    ],
)
def test_every_request_is_one_line(server, method, path, status, route):
    answer = server(method, path)
    line = server.find_line(answer)
    assert (line["status"], line["method"], line["route"]) == (status, method, route)
    ids = [json.loads(raw).get("request_id") for raw in server.raw]
    assert ids.count(answer.headers["X-Request-Id"]) == 1


def test_no_name_forges_a_line(server, served_world):
    forged = '\n{"request_id": "forged"}\n'
    token = served_world.tokens["owner"]
    path = f"{API}/ai/prices/acme/" + "%0A%7B%22request_id%22%3A%22forged%22%7D%0A"
    server.find_line(server("GET", path, token))
    row = {"provider": forged, "model": forged, "input_price": "1"}
    server.find_line(server("PUT", f"{API}/ai/prices", token, [row]))
    server.find_line(server("GET", "/healthz", X_Request_Id='"forged"}'))
    assert "forged" not in {json.loads(raw).get("request_id") for raw in server.raw}


def test_no_token_and_no_body_is_ever_logged(server, served_world):
    secret = f"gbt_{'s' * 43}"
    marker = 987_654_321
    server(
        "PUT", budget(served_world), served_world.tokens["owner"], {"spend_limit_micros": marker}
    )
    server("PUT", budget(served_world), served_world.tokens["owner"], {"limit": str(marker)})
    server("GET", budget(served_world), secret)
    with locked(served_world):  # a failure: its text goes to the log
        path = budget(served_world)
        slow = server("PUT", path, served_world.tokens["owner"], {"spend_limit_micros": marker})
    assert slow.status == 503
    server.find_line(slow)
    written = "".join(server.raw) + "".join(server.said)
    assert "gbt_" not in written
    assert str(marker) not in written


@pytest.mark.parametrize(
    ("lines", "body", "statuses"),
    [
        (("Authorization: Bearer HIDDEN",), b"", [400]),
        (("GET / HTTP/1.1", "Authorization Bearer HIDDEN"), b"", [400]),
        (("GET / HTTP/1.1", "Transfer-Encoding: HIDDEN"), b"", [501]),
        (("GET / HTTP/1.1", "Expect: HIDDEN"), b"", [417]),
        ((f"GET /{'HIDDEN' * 1000} HTTP/1.1",), b"", [414]),
        (("GET / HTTP/1.1", f"HIDDEN: {'x' * 10_000}"), b"", [431]),
        (("PUT /healthz HTTP/1.1", "Transfer-Encoding: chunked"), b"HIDDEN\r\n\r\n", [405, 400]),
        (("PUT /healthz HTTP/1.1", "Content-Length: 2"), b"{}HIDDEN\r\n\r\n", [405, 400]),
    ],
)
def test_what_is_not_http_is_refused_and_no_log_has_it(server, lines, body, statuses):
    """A token where another header should be, a body whose length is wrong."""

    def count_refusals():
        return sum('"gunicorn.error"' in line for line in server.raw)

    before = count_refusals()
    with open_request(server, *lines, body=body) as connection:
        received = b"".join(iter(lambda: connection.recv(4096), b""))
    found = re.findall(rb"HTTP/1.1 (\d+)", received)
    assert list(map(int, found)) == statuses
    await_that(lambda: count_refusals() == before + 1)
    assert "HIDDEN" not in "".join(server.raw) + "".join(server.said)


def test_the_text_of_a_failure_in_the_log_holds_no_parameters(empty_url, caplog):
    engine = make_engine(normalize_url(empty_url), 1)
    client = create_app(engine, {}).test_client()
    bearer = {"Authorization": f"Bearer gbt_{'x' * 43}"}
    answer = client.get(f"{API}/ai/prices/a/b", headers=bearer)
    engine.dispose()
    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
    lines = [JsonLines().format(record) for record in caplog.records]
    assert any("api_tokens" in line for line in lines)
    assert not any("parameters:" in line or "xxx" in line for line in lines)
    assert engine.hide_parameters


# -- when the database does not answer --


def test_a_statement_timeout_is_503_with_retry_after(server, served_world):
    with locked(served_world):
        answer = server("GET", budget(served_world), served_world.tokens["member"])
    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_slow_look_up_of_the_token_is_503_and_not_401(server, served_world):
    with locked(served_world, "api_tokens"):
        answer = server("GET", budget(served_world), served_world.tokens["member"])
    assert answer.status == 503


def ask_together(server, callers, path, token):
    """Let many callers ask at once, and ask for health meanwhile; how each ended, and when."""

    def ask(_):
        began = time.monotonic()
        return server("GET", path, token).status, time.monotonic() - began

    with ThreadPoolExecutor(callers) as pool:
        asked = pool.map(ask, range(callers))
        time.sleep(0.3)
        assert_healthy(server, times=10, within=4)
        return list(asked)


def assert_healthy(server, times=1, within=TIMEOUT):
    """Ask for its health so often; all of it takes so many seconds at most."""
    began = time.monotonic()
    assert {server("GET", "/healthz").status for _ in range(times)} == {200}
    assert time.monotonic() - began < within


def open_request(server, *lines, body=b""):
    """Begin a request and leave the connection open: the socket."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall("\r\n".join([*lines, "Host: x", "", ""]).encode() + body)
    return connection


def read_status(connection, *, ended=False):
    with connection:
        if ended:
            connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(4096).split()[1])


def test_clients_that_do_not_close_their_connections_stall_nobody(server):
    lines = ("GET /healthz HTTP/1.1", "Connection: close")
    with ExitStack() as stack:
        connections = [stack.enter_context(open_request(server, *lines)) for _ in range(64)]
        assert_healthy(server)
        assert {int(one.recv(4096).split()[1]) for one in connections} == {200}


def test_clients_that_send_nothing_take_no_threads(served_url):
    with (
        serving("--workers", 1, "--threads", 2, database_url=served_url) as server,
        ExitStack() as silent,
    ):
        for _ in range(40):
            silent.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        assert_healthy(server)


@pytest.mark.long
def test_clients_that_fall_silent_lose_their_threads(served_url):
    """Half of them ask half, half ask and do not read; nothing of it is in the log."""
    half = b"GET /healthz HTTP/1.1\r\nHost"
    whole = b"GET /api/v2/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 600
    with (
        serving("--workers", 1, "--threads", 6, database_url=served_url) as server,
        ExitStack() as stack,
    ):
        silent = []
        for sent in (half, whole) * 3:  # as many as there are threads
            silent.append(socket.create_connection(("127.0.0.1", server.port)))
            stack.enter_context(silent[-1]).setblocking(False)
            with suppress(BlockingIOError):
                silent[-1].send(sent)
        assert_healthy(server, within=2 * SILENCE_SECONDS)
        for connection in silent:
            await_cut(connection)
        assert server.stop(signal.SIGINT) == 0
    assert not [line for line in server.raw if "exception" in line]
    assert not [line for line in server.said if "rror" in line]


def await_cut(connection):
    """Wait until the server has ended a connection, without reading from it."""
    waiting = select.poll()
    waiting.register(connection, select.POLLRDHUP)
    assert waiting.poll(2000 * SILENCE_SECONDS)


@pytest.fixture
def pair():
    """A client's end of a connection, and ours, with a quarter of a second of patience."""
    theirs, plain = socket.socketpair()
    with theirs, Client(fileno=plain.detach()) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.patience = 0.25
        yield theirs, ours


def act_slowly(stopped, act):
    """Do something every 50 ms in a thread, until it is stopped or cut off."""

    def work():
        with suppress(BrokenPipeError):
            while not stopped.wait(0.05):
                act()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("is_dead", [True, False], ids=["never", "byte by byte"])
@pytest.mark.parametrize("direction", ["asks", "reads"])
def test_a_client_without_speed_is_cut_off(pair, direction, is_dead):
    """Each byte comes in time; what counts is all of them."""
    theirs, ours = pair
    stopped, began = threading.Event(), time.monotonic()
    act = (lambda: theirs.send(b"x")) if direction == "asks" else (lambda: theirs.recv(1))
    thread = act_slowly(stopped, (lambda: None) if is_dead else act)
    try:
        with pytest.raises(ConnectionResetError):
            while direction == "asks":
                assert ours.recv(8192)
            ours.sendall(b"x" * 2**20)
    finally:
        stopped.set()
        thread.join()
    assert time.monotonic() - began > 0.2
    with pytest.raises(BrokenPipeError):  # which is no news for gunicorn
        ours.sendall(b"HTTP/1.1 400 Bad Request")


def test_a_client_that_is_slow_and_goes_on_is_waited_for(pair):
    """It takes longer than the patience that it began with."""
    theirs, ours = pair
    ours.patience = 1
    step = BYTES_PER_SECOND // 5  # each 50 ms: four times what it has to
    stopped = threading.Event()
    thread = act_slowly(stopped, lambda: theirs.recv(step, socket.MSG_WAITALL))
    began = time.monotonic()
    ours.sendall(b"x" * (30 * step))
    assert time.monotonic() - began > 1
    stopped.set()
    theirs.close()
    thread.join()


def test_no_header_says_where_the_application_is(server):
    for header in ("SCRIPT_NAME: /elsewhere", "X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off"):
        assert read_status(open_request(server, "GET /healthz HTTP/1.1", header)) == 200


@pytest.mark.parametrize(
    ("length", "body"),
    [
        ("Transfer-Encoding: chunked", b"zz\r\n"),
        ("Transfer-Encoding: chunked", b"-1\r\n"),
        ("Transfer-Encoding: chunked", b'19\r\n{"spend_limit_micros": 1}xx'),
        ("Content-Length: 100", b'{"spend_limit_micros": 1}'),
    ],
)
def test_a_body_that_is_cut_or_in_no_chunks_is_400(server, served_world, length, body):
    connection = open_request(
        server,
        f"PUT {budget(served_world)} HTTP/1.1",
        f"Authorization: Bearer {served_world.tokens['org_admin']}",
        "Content-Type: application/json",
        length,
        body=body,
    )
    assert read_status(connection, ended=True) == 400


@pytest.mark.long
def test_while_the_database_is_slow_64_callers_get_503_in_time_and_health_answers(
    server, served_world
):
    """More threads than connections: whoever waits for one keeps nobody else from an answer."""
    path, token = budget(served_world), served_world.tokens["member"]
    with locked(served_world):
        answers = ask_together(server, 64, path, token)
    assert {status for status, _ in answers} == {503}
    # A wait for a connection, then one for the answer to a statement.
    assert max(took for _, took in answers) < CONNECT_TIMEOUT_SECONDS + 0.5 + 3


@pytest.mark.long
def test_while_the_database_is_away_64_callers_get_503_in_time_and_health_answers():
    """Away is a port where nobody listens, or where nobody ever answers. The server is alive."""
    with socket.socket() as silent, ExitStack() as stack:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        addresses = [f"u:s3cret@127.0.0.1:{port}" for port in (1, silent.getsockname()[1])]
        urls = [f"postgresql://{address}/db" for address in addresses]
        servers = [stack.enter_context(serving(database_url=url)) for url in urls]
        path = f"{API}/groups/{uuid4()}/ai/budget"
        with ThreadPoolExecutor(2) as pool:
            asked = list(
                pool.map(lambda one: ask_together(one, 64, path, f"gbt_{'x' * 43}"), servers)
            )
        for answers in asked:
            assert {status for status, _ in answers} == {503}
            assert max(took for _, took in answers) < 2 * CONNECT_TIMEOUT_SECONDS + 3
        away = servers[0]
        ready = away("GET", "/readyz")
        assert (ready.status, ready.json) == (503, {"status": "the database does not answer"})
        answer = away("GET", path, f"gbt_{'x' * 43}")
        assert (answer.status, answer.json["code"]) == (503, "unavailable")
        assert away.stop() == 0
    assert "s3cret" not in "".join(away.raw) + "".join(away.said)


@pytest.fixture
def readiness(caplog):
    """A function that makes a server's application on a database, and one that asks `/readyz`."""
    with ExitStack() as stack:

        def open_on(url):
            engine = make_engine(normalize_url(str(url)), 2)
            stack.callback(engine.dispose)
            client = create_app(engine, {}).test_client()

            def ask():
                caplog.clear()
                ready = client.get("/readyz")
                assert client.get("/healthz").status_code == 200
                logged = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
                return ready.status_code, ready.json["status"], logged

            return ask

        yield open_on


READY = (200, "ready", [])


def assert_not_ready(asked, *words):
    status, sentence, (logged,) = asked
    assert (status, logged) == (503, f"not ready: {sentence}")
    assert all(word in sentence for word in words)


def administer(url, *statements):
    engine = sa.create_engine(
        normalize_url(url), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_a_missing_schema_is_not_ready_and_says_what_to_run(readiness, empty_url):
    assert_not_ready(readiness(empty_url)(), "not there", "`govbudget db upgrade`")


@pytest.mark.parametrize("revision", ["0001", "9999"])
def test_a_schema_of_another_revision_is_not_ready_until_it_is_the_right_one(
    readiness, own_url, revision
):
    ask = readiness(own_url)
    table = "govbudget.alembic_version"
    (head,) = ScriptDirectory(str(files("govbudget") / "migrations")).get_heads()
    assert ask() == READY
    administer(own_url, f"UPDATE {table} SET version_num = '{revision}'")
    assert_not_ready(ask(), f"`{revision}`", f"`{head}`")
    administer(own_url, f"UPDATE {table} SET version_num = '{head}'")
    assert ask() == READY


def test_a_read_only_database_is_not_ready_until_it_is_writable_again(readiness, own_url):
    """Also where only new connections notice, which a pool has few of."""
    name = normalize_url(own_url).database
    administer(own_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    ask = readiness(own_url)
    assert_not_ready(ask(), "read-only", "default_transaction_read_only")
    administer(
        own_url,
        "SET default_transaction_read_only = off",
        f"ALTER DATABASE {name} RESET default_transaction_read_only",
    )
    assert ask() == READY


def test_sessions_without_triggers_are_not_ready_until_they_have_them(readiness, own_url):
    """Nothing would come into the audit trail."""
    name = normalize_url(own_url).database
    administer(own_url, f"ALTER DATABASE {name} SET session_replication_role = replica")
    ask = readiness(own_url)
    assert_not_ready(ask(), "audit trail", "`session_replication_role`")
    administer(own_url, f"ALTER DATABASE {name} RESET session_replication_role")
    assert ask() == READY


def test_a_role_that_may_not_read_the_schema_is_not_ready_and_the_log_says_why(readiness, own_url):
    ask = readiness(f"{own_url}&options=-c%20role%3Dpg_monitor")
    status, sentence, (logged,) = ask()
    assert (status, sentence) == (503, "the database refuses to be asked")
    assert "permission denied for schema govbudget" in logged


@pytest.mark.long
def test_a_standby_is_not_ready_until_it_is_promoted(readiness):
    with open_folder() as folder:
        with start_postgres(folder) as url:
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            with engine.begin() as connection:
                upgrade(connection, Layout())
        (folder / "data" / "standby.signal").touch()
        with start_postgres(folder) as url:
            ask = readiness(url)
            assert_not_ready(ask(), "standby")
            administer(url, "SELECT pg_promote()")
            assert ask() == READY


# -- how it ends --


@pytest.fixture
def patient_url(served_url):
    """The database of servers whose requests wait for a lock for as long as a test holds it."""
    return f"{served_url}&options=-c%20lock_timeout%3D60s%20-c%20statement_timeout%3D60s"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_request_in_flight_is_finished(patient_url, served_world, number):
    answers = []
    with serving(database_url=patient_url) as server:
        assert server("GET", "/readyz").status == server("GET", "/healthz").status == 200
        path, token = budget(served_world), served_world.tokens["org_admin"]
        body = {"spend_limit_micros": 11}
        request = threading.Thread(target=lambda: answers.append(server("PUT", path, token, body)))
        with locked(served_world) as holder:
            request.start()
            await_waiter(holder)
            os.killpg(server.process.pid, number)  # as a terminal does
            await_that(lambda: not accepts(server.port))
            assert server.process.poll() is None
        request.join(10)
        assert [answer.status for answer in answers] == [200]
        assert server.await_end() == 0


def accepts(port):
    with socket.socket() as late:
        return late.connect_ex(("127.0.0.1", port)) == 0


def test_whoever_is_connected_when_it_ends_is_answered(served_url):
    """A connection that no worker had taken yet, too."""
    with serving("--workers", 1, database_url=served_url) as server:
        assert_healthy(server)
        worker = int(read_children(server.process.pid))
        suspend(worker)
        waiting = [open_request(server, "GET /healthz HTTP/1.1") for _ in range(3)]
        server.process.terminate()
        await_that(lambda: signal.SIGTERM in read_pending(worker))
        os.kill(worker, signal.SIGCONT)
        assert [read_status(connection) for connection in waiting] == [200, 200, 200]
        assert server.await_end() == 0


def read_children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def suspend(pid):
    """Stop a process; what is sent to it from now on waits."""
    os.kill(pid, signal.SIGSTOP)
    await_that(lambda: "T" in read_status_of(pid)["State"])


def read_pending(pid):
    """The signals that wait for a process that is stopped."""
    pending = int(read_status_of(pid)["ShdPnd"], 16)
    return {number for number in signal.valid_signals() if pending >> (number - 1) & 1}


def read_status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


@pytest.mark.parametrize("notices", ["at once", "within a second"])
def test_a_killed_first_process_does_not_block_the_next(patient_url, served_world, notices):
    """Its workers give up the port, and finish what they have in hand."""
    answers = []
    with serving(database_url=patient_url) as server, ExitStack() as stack:
        path, token = budget(served_world), served_world.tokens["org_admin"]
        body = {"spend_limit_micros": 12}
        request = threading.Thread(target=lambda: answers.append(server("PUT", path, token, body)))
        with locked(served_world) as holder:
            request.start()
            await_waiter(holder)
            if notices == "within a second":
                hold_pipes(stack, server.process.pid)
            server.process.kill()
            await_that(lambda: not accepts(server.port))
            _require_free("127.0.0.1", server.port)
        request.join(10)
    assert [answer.status for answer in answers] == [200]


def hold_pipes(stack, pid):
    """Keep what a process can write to open: at its end nobody reads an end."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        flags = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text().split()[3]
        if descriptor.readlink().name.startswith("pipe:") and int(flags, 8) & os.O_WRONLY:
            stack.enter_context(descriptor.open("wb", buffering=0))


def test_a_worker_that_has_just_been_forked_is_ended_by_sigterm():
    """With gunicorn's own handler it would go on, and the stop would take the whole drain."""
    script = """if True:
        import os, signal, time
        from govbudget.server.workers import end_new_processes_by_sigterm
        signal.signal(signal.SIGTERM, lambda *_: None)
        end_new_processes_by_sigterm()
        child = os.fork()
        if not child:
            time.sleep(10)
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # its own handler is as it was
        print("served")
    """
    with Forked(["-c", script], environment()) as process:
        assert (process.stdout.read(), process.wait(TIMEOUT)) == ("served\n", 0)


@pytest.mark.long
@pytest.mark.parametrize("moment", [i / 16 for i in range(7)])
def test_it_stops_at_once_at_any_moment_of_its_start(served_url, moment):
    with serving("--workers", 4, database_url=served_url) as server:
        time.sleep(moment)
        server.process.terminate()
        server.process.wait(TIMEOUT)  # shorter than the drain, which a lost signal would take


def test_it_opens_nothing_but_its_port(server, home):
    """gunicorn would have a socket for commands in the home."""
    assert server("GET", "/healthz").status == 200
    assert list(home.iterdir()) == []


def await_waiter(connection):
    """Wait until somebody waits for a lock that we hold."""
    waiting = sa.text(WAITING)
    await_that(lambda: connection.scalar(waiting))


# -- new workers --

COUNTING = """if True:
    import gc, os
    from govbudget.server.serve import OPTIONS
    from govbudget.server.workers import Arbiter, Server

    def load():
        print(len(gc.get_objects()), flush=True)
        os._exit(Arbiter.APP_LOAD_ERROR)

    print(len(gc.get_objects()), flush=True)
    Server({**OPTIONS, "bind": ["127.0.0.1:0"], "workers": 1}, load).run()
"""


def test_a_worker_looks_through_nothing_that_was_there_before_it():
    """Its collector of garbage would write to each object, and so copy what all workers share."""
    with Forked(["-c", COUNTING], environment()) as process:
        before, in_worker = map(int, process.stdout.read().split())
    assert in_worker < before / 10


@pytest.mark.long
def test_all_workers_have_the_policy_of_the_process_that_they_are_forked_from(served_url, tmp_path):
    """A hang-up brings a new policy, a refused one leaves it; a dead worker changes nothing."""
    folder = shutil.copytree(packaged_policy_dir(), tmp_path / "policy")
    variables = {"policy_dir": folder, "expose_policy_digest": True}
    with serving("--workers", 2, database_url=served_url, **variables) as server:

        def find_digests():
            """Ask each worker, while the others are stopped."""
            return {ask_alone(worker) for worker in find_workers()}

        def ask_alone(worker):
            others = find_workers() - {worker}
            for other in others:
                suspend(other)
            answer = server("GET", f"{API}/openapi.json")
            for other in others:
                os.kill(other, signal.SIGCONT)
            return answer.headers["Govbudget-Policy-Digest"]

        def change(line):
            with (folder / "policy.csv").open("a") as file:
                file.write(line)

        def hang_up():
            before = find_workers()
            server.process.send_signal(signal.SIGHUP)
            await_that(lambda: not before & find_workers() and len(find_workers()) == 2)

        def kill_a_worker():
            victim = min(find_workers())
            os.kill(victim, signal.SIGKILL)
            await_that(lambda: victim not in find_workers() and len(find_workers()) == 2)

        def find_workers():
            return set(map(int, read_children(server.process.pid).split()))

        await_that(lambda: len(find_workers()) == 2)
        first = find_digests()
        change("# another comment\n")
        kill_a_worker()
        assert find_digests() == first
        hang_up()
        second = {Policy.load(folder).digest}
        assert find_digests() == second != first
        change("p, nonsense\n")
        hang_up()
        assert any("the policy stays as it was" in line for line in server.raw)
        assert any("field-count" in line for line in server.raw)
        kill_a_worker()
        assert find_digests() == second


def await_that(happened):
    deadline = time.monotonic() + 3 * TIMEOUT
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# -- what stops it before it listens --


def test_a_taken_port_is_one_sentence(run, served_url):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("serve", "--port", port, database_url=served_url)
    assert result.status == 2
    assert f"port {port}: address already in use" in result.sentence


def test_a_host_that_is_not_ours_is_one_sentence(run, served_url):
    result = run("serve", "--host", "192.0.2.1", "--port", 0, database_url=served_url)
    assert result.status == 2
    assert "`192.0.2.1`" in result.sentence


def test_no_database_names_the_variable_and_the_option(run):
    result = run("serve")
    assert result.status == 2
    assert "GOVBUDGET_DATABASE_URL" in result.sentence
    assert "--embedded" in result.sentence


def test_a_bad_policy_stops_it_with_every_finding(run, served_url, tmp_path):
    shutil.copy(packaged_policy_dir() / "model.conf", tmp_path)
    (tmp_path / "policy.csv").write_text("p, a\np, b\n")
    result = run("serve", database_url=served_url, policy_dir=tmp_path)
    assert (result.status, result.out) == (2, "")
    assert [line.split(": ")[0] for line in result.err.splitlines()] == [
        "policy.csv:1",
        "policy.csv:2",
    ]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"featurs": "aibridge"}, "did you mean `GOVBUDGET_FEATURES`"),
        ({"features": "aibrige"}, "did you mean `aibridge`"),
        ({"policy_digest": f"sha256:{'0' * 64}"}, "GOVBUDGET_POLICY_DIGEST"),
        ({"policy_dir": "relative"}, "absolute"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_setting_stops_it_before_a_database_is_started(run, tmp_path, variables, says):
    data = tmp_path / "data"
    result = run("serve", "--embedded", data, **variables)
    assert (result.status, result.out) == (2, "")
    assert says in result.err
    assert not data.exists()


def test_an_empty_name_of_a_data_folder_is_refused(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = run("serve", "--embedded", "")
    assert result.status == 2
    assert "is empty; name a folder" in result.sentence
    assert list(tmp_path.iterdir()) == []


def test_a_missing_gunicorn_is_one_sentence_that_names_the_extra(run, served_url, monkeypatch):
    ours = "govbudget.server.workers"
    for name in [n for n in sys.modules if n.split(".")[0] == "gunicorn" or n == ours]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gunicorn", None)
    result = run("serve", database_url=served_url)
    assert result.status == 2
    assert result.sentence == (
        "gunicorn is not installed; run `pip install '.[serve]'` in a checkout of govbudget"
    )


# -- with a database of its own --


@pytest.mark.long
def test_an_embedded_database_is_migrated_and_kept_across_restarts(run):
    with open_folder() as parent:
        restart(parent / "new", run)


@pytest.mark.long
def test_a_hang_up_while_it_starts_is_heeded_when_it_has_started():
    """A terminal that is closed, or a reload that comes too soon: it would leave its database."""
    with open_folder() as parent:
        arguments = ["serve", "--port", "0", "--embedded", str(parent / "new")]
        with Forked(arguments, environment()) as process:
            assert "starting PostgreSQL" in process.stderr.readline()
            process.send_signal(signal.SIGHUP)
            server = Server(process)
            assert_healthy(server, within=TIMEOUT)
            assert server.stop() == 0
        assert not (parent / "new" / "data" / "postmaster.pid").exists()


def restart(folder, run):
    with serving("--embedded", folder) as server:
        assert server("GET", "/readyz").status == 200
        (hint,) = [line for line in server.said if "GOVBUDGET_DATABASE_URL" in line]
        url = hint.split("'")[1]
        assert "*" not in url
        person = uuid4()
        users = json.dumps({"users": [{"id": str(person), "name": "Ada"}]}).encode()
        assert run("directory", "load", "-", stdin=users, database_url=url).status == 0
        token = run("token", "create", person, database_url=url).out.strip()
        assert server("GET", f"{API}/ai/prices/a/b", token).status == 403

        second = run("serve", "--embedded", folder, "--port", 0)
        assert second.status == 2
        assert "is used by another govbudget" in second.err
        # A request holds the workers, which would hold the folder.
        body = open_request(server, "PUT /healthz HTTP/1.1", "Content-Length: 9")
        server.process.kill()
        with serving("--embedded", folder) as server_after, body:
            assert server_after("GET", f"{API}/ai/prices/a/b", token).status == 403
            assert server_after.stop() == 0
    assert not (folder / "data" / "postmaster.pid").exists()
    with serving("--embedded", folder) as server:
        assert server("GET", f"{API}/ai/prices/a/b", token).status == 403
        assert server.stop(signal.SIGINT) == 0
    assert not (folder / "data" / "postmaster.pid").exists()
