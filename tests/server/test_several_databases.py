"""`govbudget serve` with two PostgreSQLs: each organization depends on its own alone."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from tests.pairs import HIGH, LOW, PRICE, Pair
from tests.server.replicas import running
from tests.server.support import serving
from tests.server.test_serve import await_that

pytestmark = pytest.mark.long

API = "/api/v2"
AWAY = "the database does not answer"


class Town(Pair):
    """Two servers of PostgreSQL with an organization in each, and `serve` in front of them."""

    def __init__(self, run, nodes):
        self.nodes = dict(zip((LOW, HIGH), nodes, strict=True))
        address = "postgresql://postgres@{}/postgres"
        super().__init__(run, {s: address.format(n.address) for s, n in self.nodes.items()})
        self.organizations = {LOW: self.low, HIGH: self.high}
        self.gateway = uuid4()
        self.file["users"].append({"id": str(self.gateway), "name": "the gateway"})
        role = {"user_id": str(self.gateway), "role": "gateway", "organization_id": None}
        self.file["roles"].append(role)
        assert self("db", "upgrade").status == 0
        assert self.load().status == 0
        assert self("prices", "load", "-", stdin=json.dumps([PRICE]).encode()).status == 0
        self.tokens = {
            name: self("token", "create", getattr(self, name)).out.strip()
            for name in ("owner", "member", "gateway")
        }

    def call(self, slots):
        who = {"organization_id": str(self.organizations[slots]), "user_id": str(self.member)}
        return {**who, "provider": "acme", "model": "one", "tokens": {"input": 1}}

    def work(self, slots):
        """All that is asked about an organization and its group; the statuses of the answers."""
        gateway, owner = self.tokens["gateway"], self.tokens["owner"]
        organization, group = self.organizations[slots], self.groups[self.organizations[slots]]
        event, call = uuid4().hex, self.call(slots)
        hold = self.server("POST", f"{API}/ai/holds", gateway, call)
        settled = self.server(
            *("POST", f"{API}/ai/holds/{hold.json.get('hold_id', self.held[slots])}/settle"),
            *(gateway, {"event_id": event, "tokens": {"input": 1}}),
        )
        limit = {"spend_limit_micros": 10**9}
        page = self.server("GET", f"/organizations/{organization}", Cookie=self.cookie)
        return [
            hold.status,
            settled.status,
            self.server(
                "POST", f"{API}/ai/usage", gateway, {**call, "event_id": event + "2"}
            ).status,
            self.server("PUT", f"{API}/groups/{group}/ai/budget", owner, limit).status,
            self.server("GET", f"{API}/organizations/{organization}/ai/budgets", owner).status,
            page.status,
        ]

    def list_budgets(self, slots):
        return f"{API}/organizations/{self.organizations[slots]}/ai/budgets"

    def sign_in(self):
        form = urlencode({"token": self.tokens["owner"]})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        headers["Origin"] = f"http://127.0.0.1:{self.server.port}"
        answer = self.server.send("POST", "/sign-in", form.encode(), headers)
        assert answer.status == 303
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def read_ready(self):
        answer = self.server("GET", "/readyz")
        return answer.status, answer.json

    def await_ready(self, slots):
        end = time.monotonic() + 20
        while self.read_ready()[1]["databases"][slots] != "ready":
            assert time.monotonic() < end
            time.sleep(0.2)


DONE = [201, 200, 201, 200, 200, 200]
REFUSED = [503] * 6


@pytest.fixture(scope="module")
def made():
    with ExitStack() as stack:
        yield SimpleNamespace(stack=stack, town=None)


@pytest.fixture
def town(run, made):
    """The town of these tests, with both of its databases well, and known to be."""
    if made.town is None:
        made.town = open_town(run, made.stack)
    town, town.run = made.town, run
    yield town
    for node in town.nodes.values():
        node.recover()
    for slots in town.urls:
        town.await_ready(slots)


def open_town(run, stack):
    town = Town(run, stack.enter_context(running(2)))
    for engine in town.engines.values():
        stack.callback(engine.dispose)
    # With less patience than by default, which tests/server/test_connections.py reads.
    patience = "connect_timeout=2&options=-c%20statement_timeout%3D2s"
    town.server = stack.enter_context(
        serving(
            *("--workers", 1),
            database_urls=json.dumps({s: f"{url}?{patience}" for s, url in town.urls.items()}),
            secret_key="a secret of these tests, long enough",
        )
    )
    town.sign_in()
    town.held = {
        slots: town.server(
            "POST", f"{API}/ai/holds", town.tokens["gateway"], town.call(slots)
        ).json["hold_id"]
        for slots in town.urls
    }
    return town


@pytest.mark.parametrize("slots", [LOW, HIGH])
def test_a_database_that_is_killed_takes_its_own_organizations_down_alone(town, slots):
    (other,) = town.urls.keys() - {slots}
    assert town.read_ready() == (
        200,
        {"status": "ready", "databases": {LOW: "ready", HIGH: "ready"}},
    )
    assert town.work(slots) == town.work(other) == DONE
    town.nodes[slots].kill()
    said_before = len(town.server.raw)
    assert town.work(slots) == REFUSED
    assert town.work(other) == DONE
    unknown = f"{API}/groups/{uuid4()}/ai/budget"
    assert town.server("GET", unknown, town.tokens["owner"]).status == 503
    found = {"status": "ready", "databases": {slots: AWAY, other: "ready"}}
    assert town.read_ready() == (200, found)
    sentence = f"not ready: database {slots}: "
    await_that(lambda: any(sentence in line for line in town.server.raw[said_before:]))
    town.nodes[slots].start()
    town.await_ready(slots)
    assert town.work(slots) == town.work(other) == DONE
    assert town.server("GET", unknown, town.tokens["owner"]).status == 404
    assert town("spend", "verify").status == 0


def test_no_database_is_ready_and_one_that_hangs_keeps_no_probe_waiting(town):
    town.nodes[HIGH].freeze()
    began = time.monotonic()
    status, answer = town.read_ready()
    assert time.monotonic() - began < 2
    assert (status, answer["databases"][LOW]) == (200, "ready")
    assert answer["databases"][HIGH] == "the database has not answered yet"
    assert town.work(LOW) == DONE
    town.nodes[LOW].kill()
    status, answer = town.read_ready()
    assert (status, answer["status"]) == (503, "no database is ready")
    assert set(answer["databases"].values()) == {AWAY}


def test_callers_of_one_that_hangs_keep_no_thread_from_the_others(town):
    """They keep those of its connections alone, once it is known to be silent."""
    is_over = threading.Event()

    def knock():
        while not is_over.wait(0.5):
            assert town.server("GET", town.list_budgets(HIGH), town.tokens["owner"]).status == 503

    def probe():
        while not is_over.wait(1):
            town.read_ready()

    town.nodes[HIGH].freeze()
    assert town.server("GET", town.list_budgets(HIGH), town.tokens["owner"]).status == 503
    said_before = len(town.server.raw)
    town.read_ready()
    sentence = f"not ready: database {HIGH}: "
    await_that(lambda: any(sentence in line for line in town.server.raw[said_before:]))
    with ThreadPoolExecutor(121) as callers:
        asking = [callers.submit(knock) for _ in range(120)] + [callers.submit(probe)]
        try:
            for _ in range(20):
                began = time.monotonic()
                path = town.list_budgets(LOW)
                assert town.server("GET", path, town.tokens["owner"]).status == 200
                assert town.server("GET", "/healthz").status == 200
                assert time.monotonic() - began < 3
                time.sleep(0.15)
        finally:
            is_over.set()
        for one in asking:
            one.result()


def test_without_the_sites_database_one_signs_in_and_sees_what_is_in_the_others(town):
    """Each has every token."""
    town.nodes[LOW].kill()
    town.sign_in()
    mine = town.server("GET", "/", Cookie=town.cookie)
    assert (mine.status, str(town.high) in mine.content.decode()) == (200, True)
    assert str(town.low) not in mine.content.decode()
    for path in ("/prices", f"{API}/ai/prices/acme/one"):
        asked = town.server("GET", path, town.tokens["owner"], Cookie=town.cookie)
        assert asked.status == 503
