"""A primary that is gone, and a standby that takes over: what `serve` does, what is kept."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import psutil
import pytest
import sqlalchemy as sa
from tests.server.replicas import replicating
from tests.server.support import serving
from tests.support import World, budget_path

from govbudget.layout import Layout
from govbudget.migrations import upgrade
from govbudget.server.tokens import BearerTokens

pytestmark = pytest.mark.long

API = "/api/v2"


class Town:
    """A world on a primary with a standby, and a server with both in its URL."""

    def __init__(self, primary, standby):
        self.primary, self.standby = primary, standby
        self.engine = sa.create_engine(
            f"postgresql+psycopg://postgres@{primary.address}/postgres", poolclass=sa.NullPool
        )
        with self.engine.begin() as connection:
            upgrade(connection, Layout())
        self.world = World(self.engine)
        store = BearerTokens(self.world.tables)
        with self.engine.begin() as connection:
            self.owner, self.gateway = (
                store.create(connection, UUID(str(self.world.people[name])), 1)
                for name in ("owner", "gateway")
            )
        self.call = {"organization_id": str(self.world.a), "user_id": str(self.world.member)}
        self.call |= {"provider": "acme", "model": "m", "tokens": {"input": 1}}
        hosts = f"{primary.address},{standby.address}"
        self.url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        # With less patience than by default, which tests/server/test_connections.py reads.
        self.url += "&connect_timeout=2&options=-c%20statement_timeout%3D2s"

    def prepare(self, server):
        self.server = server
        price = {"provider": "acme", "model": "m", "input_price": 10**6, "output_price": 0}
        price |= {"cache_read_price": None, "cache_write_price": None}
        assert server("PUT", f"{API}/ai/prices", self.owner, [price]).status == 200
        with ThreadPoolExecutor(16) as pool:  # so that its connections are open
            asked = pool.map(lambda n: self.record(f"first {n}"), range(16))
            assert set(asked) == {201}

    def record(self, event, tries=1):
        """Record a call of one token; as its caller does, send it again where the answer is 503."""
        body = self.call | {"event_id": event}
        return self.send(tries, "POST", f"{API}/ai/usage", self.gateway, body).status

    def hold(self, hold_id):
        body = self.call | {"hold_id": hold_id}
        return self.send(5, "POST", f"{API}/ai/holds", self.gateway, body).status

    def settle(self, hold_id, event):
        body = {"event_id": event, "tokens": {"input": 1}}
        return self.send(5, "POST", f"{API}/ai/holds/{hold_id}/settle", self.gateway, body).status

    def read_spend(self):
        member = f"/organizations/{self.world.a}/members/{self.world.member}/ai/spend"
        return self.send(5, "GET", API + member, self.owner).json["current_spend_micros"]

    def send(self, tries, *request):
        for _ in range(tries):
            answer = self.server(*request)
            if answer.status != 503:
                break
        return answer

    def await_ready(self, within):
        """Wait until the server is ready again, and says until then that it is not."""
        began = time.monotonic()
        while (ready := self.server("GET", "/readyz")).status != 200:
            assert ready.json["status"] == "the database does not answer"
            assert time.monotonic() - began < within
            time.sleep(0.2)


@pytest.fixture
def town():
    with replicating() as nodes:
        yield Town(*nodes)


def test_a_primary_that_falls_silent_is_given_up_on_within_seconds(town):
    """Its machine still acknowledges each packet, so TCP notices nothing."""
    with serving("--workers", 1, database_url=town.url) as server:
        town.prepare(server)
        town.primary.freeze()
        town.standby.control("promote", "-w")
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            asked = list(pool.map(lambda n: town.record(f"meanwhile {n}"), range(16)))
        assert set(asked) <= {201, 503}
        assert time.monotonic() - began < 20
        town.await_ready(within=20)
        assert {town.record(f"meanwhile {n}", tries=5) for n in range(16)} <= {200, 201}
        assert town.read_spend() == 32


def test_a_server_follows_a_promotion_and_what_was_not_received_is_sent_again(town, run):
    """What an asynchronous standby had not received is lost, and the sums of what is left agree.

    Nothing in the database knows of what is not there.
    """
    with serving(database_url=town.url) as server:
        town.prepare(server)
        kept, late = str(uuid4()), str(uuid4())
        assert town.hold(kept) == 201
        (reached,) = town.primary.ask("SELECT pg_current_wal_flush_lsn()")
        while town.standby.ask(f"SELECT pg_last_wal_replay_lsn() >= '{reached}'") != [True]:
            time.sleep(0.05)
        (sender,) = town.primary.ask("SELECT pid FROM pg_stat_replication")
        psutil.Process(sender).suspend()
        assert town.hold(late) == 201
        assert town.settle(kept, "settled late") == 200
        assert {town.record(f"late {n}") for n in range(5)} == {201}
        assert town.read_spend() == 22
        town.primary.kill()
        assert server("GET", "/readyz").status == 503
        town.standby.control("promote", "-w")
        town.await_ready(within=15)
        assert town.read_spend() == 16
        verified = run("spend", "verify", database_url=town.url)
        assert (verified.status, verified.err) == (0, "")
        again = [f"first {n}" for n in range(16)] + [f"late {n}" for n in range(5)]
        assert [town.record(event, tries=5) for event in again] == [200] * 16 + [201] * 5
        assert town.settle(kept, "settled late") == 200
        assert town.settle(late, "of a lost hold") == 404
        assert [town.hold(hold) for hold in (late, late, kept)] == [201, 200, 200]
        assert town.settle(kept, "settled late") == 200
        assert town.read_spend() == 22


def test_with_a_synchronous_standby_nothing_that_was_acknowledged_is_lost(town):
    """While the standby is away no write is acknowledged, and none keeps the server from others."""
    with serving(database_url=town.url) as server:
        town.prepare(server)
        town.primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
        town.primary.ask("SELECT pg_reload_conf()")
        while town.primary.ask("SELECT sync_state FROM pg_stat_replication") != ["sync"]:
            time.sleep(0.05)
        assert town.record("kept") == 201
        town.standby.freeze()
        began = time.monotonic()
        assert town.record("unknown") == 503
        assert time.monotonic() - began < 10
        assert server("GET", f"{API}{budget_path(town.world.a1)}", town.owner).status == 404
        for process in town.standby.find_processes():
            process.resume()
        query = "SELECT flush_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication"
        while town.primary.ask(query) != [True]:
            time.sleep(0.05)
        assert [town.record(event, tries=5) for event in ("unknown", "kept")] == [200, 200]
        town.primary.kill()
        town.standby.control("promote", "-w")
        town.await_ready(within=15)
        assert [town.record(event, tries=5) for event in ("unknown", "kept")] == [200, 200]
