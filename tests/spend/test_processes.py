"""Many processes spend one member's money: never a pico over, and what is stored agrees.

A constraint in the database watches every state that a counter takes, not only the last.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.server.support import open_folder
from tests.spend.gateways import PRICE, TOKENS, read_unfinished
from tests.spend.test_store import Spender
from tests.support import TABLES, World, authorize, make_gov

from govbudget.db.connection import normalize_url
from govbudget.layout import Layout
from govbudget.migrations import upgrade
from govbudget.server.embedded import start_postgres
from govbudget.spend.errors import BudgetExceeded
from govbudget.spend.tokens import Tokens
from govbudget.spend.verify import verify_spend

pytestmark = pytest.mark.slow

long = pytest.mark.long
CALL_MICROS = PRICE * TOKENS // 10**6
NEVER = "40001", "40P01", "23514"  # not serializable, deadlock, over the limit


@pytest.fixture(scope="module")
def database_url(make_database, template):
    """Its own: each place adds a check to a table."""
    return make_database(template=template)


class Place:
    """A member with a limit of so many calls, in a database that refuses a counter above it."""

    def __init__(self, engine, folder, gateways, calls):
        self.gateways = gateways
        self.world, self.engine, self.folder, self.calls = World(engine), engine, folder, calls
        self.spender = Spender(self.world)
        self.limit_micros = calls * CALL_MICROS
        self.full = self.limit_micros * 10**6
        world, prices = self.world, TABLES.ai_model_prices
        with engine.begin() as connection:
            connection.execute(
                sa.update(prices)
                .where(prices.c.model == self.spender.model)
                .values(input_price=PRICE)
            )
            world.join_group(connection, world.a, world.a2, "member")
            self.put_limit(connection, self.limit_micros, insert=True)
            connection.exec_driver_sql(
                f"ALTER TABLE govbudget.ai_spend_counters ADD CHECK"
                f" (organization_id <> '{world.a}' OR spent_picos + held_picos <= {self.full}"
                " AND held_picos >= 0)"
            )

    def put_limit(self, connection, micros, group=None, *, insert=False):
        budgets = TABLES.group_ai_budgets
        group = group or self.world.a1
        if insert:
            row = {"group_id": group, "spend_limit_micros": micros, "revision": uuid4()}
            connection.execute(sa.insert(budgets), row)
        else:
            change = sa.update(budgets).where(budgets.c.group_id == group)
            connection.execute(change.values(spend_limit_micros=micros))

    def start(self, workers, **options):
        plan = {
            "organization": str(self.world.a),
            "user": str(self.world.member),
            "gateway": str(self.world.nobody),
            "model": self.spender.model,
            "folder": str(self.folder),
            "full": self.full,
            "seed": random.randrange(10**9),
            "workers": workers,
            "even": False,
            "kills": 0,
            "abandon": 0,
            "outages": False,
            "events": (),
            "thresholds": (75, 90, 100),
            **options,
        }
        plan["url"] = self.engine.url.render_as_string(hide_password=False)
        self.gateways.stdin.write(json.dumps(plan) + "\n")

    def run(self, workers, **options):
        self.start(workers, **options)
        return self.finish()

    def finish(self):
        """Wait for the gateways; give the SQLSTATEs that they met, none of the forbidden."""
        status = self.gateways.stdout.readline()
        assert (status, (self.folder / "err").read_text()) == ("0\n", "")
        states = (self.folder / "out").read_text().split()
        assert set(NEVER).isdisjoint(states)
        return states

    def wait_until_spent(self, picos):
        deadline = time.monotonic() + 60
        while (
            sum(spent for (spent,) in self.spender.read("ai_spend_counters", "spent_picos")) < picos
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def read_settled(self):
        """Give what the gateways were told that they have settled: cost by event."""
        settled = {}
        for journal in self.folder.glob("*.journal"):
            assert read_unfinished(journal) == []
            for line in journal.read_text().splitlines():
                word, *rest = line.split()
                if word == "done":
                    settled[rest[0]] = int(rest[1])
        return settled

    def assert_whole(self):
        """What was answered is what is recorded, and everything agrees. Give what was spent."""
        settled = self.read_settled()
        assert dict(self.spender.read("ai_usage", "event_id", "cost_picos")) == settled
        assert self.verify() == (1, len(settled), [])
        return sum(settled.values())

    def verify(self):
        """Prove that all agrees; and that there was no deadlock."""
        with self.engine.connect() as connection:
            deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            assert connection.scalar(sa.text(deadlocks)) == 0
            grant = authorize(connection, self.world.nobody, "create", ledger=True)
            return verify_spend(grant, self.world.a)

    def assert_spent_to_the_last_pico(self):
        assert self.assert_whole() == self.full
        counters = self.spender.read("ai_spend_counters", "spent_picos", "held_picos")
        assert counters == [(self.full, 0)]
        assert set(self.spender.read("ai_holds", "is_open")) == {(False,)}, "nothing is left held"

    def spend_what_is_left(self, spent):
        """When all holds have expired, exactly the rest can be held, with no cleaner."""
        self.spender.gov = make_gov(
            engine=self.engine, clock=lambda: datetime.now(UTC) + timedelta(hours=1)
        )
        left = (self.full - spent) // PRICE
        with pytest.raises(BudgetExceeded):
            self.spender("hold", self.spender.call, Tokens(input=left + 1))
        self.spender("hold", self.spender.call, Tokens(input=left))


@contextmanager
def meddling(meddle):
    """Call a function again and again, from a thread, for the length of the block."""
    over, failures = threading.Event(), []

    def work():
        try:
            while not over.is_set():
                meddle()
                over.wait(random.uniform(0, 0.02))
        except Exception as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert failures == []


EVEN, RAGGED = True, False


@pytest.mark.parametrize("even", [EVEN, RAGGED], ids=["even", "ragged"])
@pytest.mark.parametrize(
    ("workers", "calls", "rounds"), [(4, 12, 2), pytest.param(16, 12, 4, marks=long)]
)
def test_exactly_what_fits_is_spent_and_never_a_pico_more(make_place, workers, calls, rounds, even):
    """Again and again: who reads what others change meanwhile is seen where the money ends."""
    for _ in range(rounds):
        place = make_place(calls)
        assert place.run(workers, even=even) == []
        place.assert_spent_to_the_last_pico()
        if even:
            assert len(place.read_settled()) == calls


@pytest.mark.parametrize(("workers", "calls"), [(4, 60), pytest.param(16, 120, marks=long)])
def test_so_it_is_while_the_limit_goes_up_and_down(make_place, workers, calls):
    """Of the second half nothing fits before the limit has been changed many times."""
    place, changes = make_place(calls), 0
    half = place.limit_micros // 2

    def change_limit():
        nonlocal changes
        changes += 1
        micros = random.randint(0, half if changes < 6 else place.limit_micros)
        with place.engine.begin() as connection:
            place.put_limit(connection, micros)

    change_limit()
    place.start(workers)
    with meddling(change_limit):
        place.wait_until_spent(place.full // 2 + 1)
    with place.engine.begin() as connection:
        place.put_limit(connection, place.limit_micros)
    assert place.finish() == []
    assert changes > 5
    place.assert_spent_to_the_last_pico()
    with place.engine.begin() as connection:
        place.put_limit(connection, place.limit_micros - 1)
    with pytest.raises(BudgetExceeded):
        place.spender("hold", place.spender.call, Tokens(input=1))


@pytest.mark.parametrize(("workers", "calls"), [(4, 60), pytest.param(16, 120, marks=long)])
def test_so_it_is_while_the_member_moves_between_groups(make_place, workers, calls):
    """To a group of a lower limit and back, both, and an override: no move gives more."""
    place = make_place(calls)
    world, members, overrides = place.world, TABLES.group_members, TABLES.member_ai_overrides
    with place.engine.begin() as connection:
        place.put_limit(connection, place.limit_micros * 2 // 3, world.a2, insert=True)
        connection.execute(sa.delete(members).where(members.c.group_id == world.a1))

    def move():
        groups = random.choice([[world.a1], [world.a2], [world.a1, world.a2]])
        with place.engine.begin() as connection:
            gone = members.c.user_id == world.member
            connection.execute(sa.delete(members).where(gone))
            for group in groups:
                world.join_group(connection, world.a, group, "member")
            if random.random() < 0.3:
                row = {"organization_id": world.a, "user_id": world.member, "group_id": groups[0]}
                row |= {"spend_limit_micros": place.limit_micros // 2, "revision": uuid4()}
                connection.execute(sa.insert(overrides), row)

    place.start(workers)
    place.wait_until_spent(1)
    with meddling(move):
        place.wait_until_spent(place.full * 2 // 5)
    with place.engine.begin() as connection:
        connection.execute(sa.delete(overrides).where(overrides.c.user_id == world.member))
    with place.engine.begin() as connection:
        connection.execute(sa.delete(members).where(members.c.user_id == world.member))
        world.join_group(connection, world.a, world.a1, "member")
    assert place.finish() == []
    place.assert_spent_to_the_last_pico()
    groups = {group for (group,) in place.spender.read("ai_usage", "group_id")}
    assert groups == {world.a1, world.a2}


@long
def test_so_it_is_while_holds_are_abandoned_and_expire(make_place):
    """With no cleaner: what an abandoned hold held is spent by others a second later."""
    place = make_place(150)
    assert place.run(8, abandon=0.1) == []
    place.assert_spent_to_the_last_pico()
    assert len(place.spender.read("ai_holds", "id")) > len(place.read_settled()) * 1.2


@pytest.mark.parametrize(
    ("workers", "calls", "kills"), [(3, 300, 12), pytest.param(8, 4_000, 30, marks=long)]
)
def test_so_it_is_when_gateways_are_killed_at_random(make_place, workers, calls, kills):
    place = make_place(calls)
    assert place.run(workers, kills=kills) == []
    place.spend_what_is_left(place.assert_whole())


# -- the server --


@contextmanager
def own_server(folder):
    """A server with its durability on; `restart` ends it as a crash does, and starts it again."""
    with ExitStack() as stack:
        url = normalize_url(stack.enter_context(start_postgres(folder)))

        def restart():
            pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, signal.SIGQUIT)  # immediate shutdown
            while is_running(pid):
                time.sleep(0.01)
            stack.pop_all().close()
            assert normalize_url(stack.enter_context(start_postgres(folder))) == url

        yield SimpleNamespace(url=url, restart=restart)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]


@long
def test_so_it_is_when_the_server_is_restarted_in_immediate_mode(gateways, tmp_path):
    journals = tmp_path / "journals"
    journals.mkdir()
    with open_folder() as folder, own_server(folder) as server:
        engine = sa.create_engine(server.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            upgrade(connection, Layout())
        place = Place(engine, journals, gateways, 20_000)
        place.start(4, outages=True)
        place.wait_until_spent(1)
        for _ in range(3):
            time.sleep(random.uniform(0.2, 0.8))
            server.restart()
        time.sleep(0.5)
        (journals / "stop").touch()
        states = place.finish()
        assert len(states) >= 3, "they met the restarts"
        place.spend_what_is_left(place.assert_whole())


# -- one event --


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=long)])
def test_an_event_that_eight_processes_send_at_once_is_recorded_once(make_place, rounds):
    """All of one body get the same answer. Of several bodies one is recorded."""
    place = make_place(10 * rounds)
    spender, same, other = place.spender, [7], list(range(1, 9))
    events = []
    for _ in range(rounds):
        for act, counts in (
            ("settle", same),
            ("settle", other),
            ("record", same),
            ("record", other),
        ):
            hold = spender("hold", spender.call, Tokens(input=8)).id if act == "settle" else None
            events.append([act, str(hold), uuid4().hex, counts])
    assert place.run(8, events=events) == []
    answers = [
        line.split(maxsplit=1)
        for journal in place.folder.glob("*.journal")
        for line in journal.read_text().splitlines()
    ]
    recorded = dict(spender.read("ai_usage", "event_id", "input_tokens"))
    for act, _, event, counts in events:
        told = [answer for known, answer in answers if known == event]
        assert len(told) == 8
        usages = [answer.rsplit(maxsplit=1)[0] if act == "record" else answer for answer in told]
        refused = [usage for usage in usages if usage.startswith("None")]
        (winner,) = set(usages) - set(refused)
        assert len(refused) == (0 if counts == same else 7)
        assert int(winner.split()[0]) == recorded[event]
        assert sum(answer.endswith("True") for answer in told) == (act == "record")
    assert len(recorded) == len(events)
    assert place.verify() == (1, len(events), [])
    assert spender.read("ai_spend_counters", "held_picos") == [(0,)]
