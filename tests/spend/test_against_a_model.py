"""Holds, settlements and corrections come out as a model in plain integers has them."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.spend.ledger_model import Ledger
from tests.spend.test_verify import verify
from tests.support import TABLES, make_gov

from govbudget.errors import GovBudgetError
from govbudget.prices.price import parse_prices
from govbudget.prices.store import Prices
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import Call

pytestmark = pytest.mark.slow

NOON = datetime(2026, 1, 20, 12, tzinfo=UTC)
NO_PRICES = dict.fromkeys(("output_price", "cache_read_price", "cache_write_price"))
PLAIN = {**NO_PRICES, "input_price": 3_000_000, "output_price": 15_000_000}
HALF = {**NO_PRICES, "input_price": 2_000_000}
TIERED = {
    **PLAIN,
    "further": {"web_searches": 10_000_000, "input_audio": 1_000_000},
    "tiers": [
        {
            **PLAIN,
            "input_above": 50,
            "input_price": 6_000_000,
            "further": {"web_searches": 10_000_000, "input_audio": 2_000_000},
        }
    ],
}
HALF_TIERED = {**HALF, "tiers": [{**HALF, "input_above": 30, "input_price": 4_000_000}]}
UNITS = ("input", "output", "cache_read", "web_searches", "input_audio")


class Clock:
    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now


class Side:
    """One thread: a group of two members with a limit, models of its own, and the model of both.

    With `shared` it makes the calls of one member of all threads, who has no limit: then nobody's
    answers depend on another's, and all of them change the same counters.
    """

    def __init__(self, world, connection, seed, *, shared=None):
        self.world, self.connection, self.dice = world, connection, random.Random(seed)
        self.is_shared = shared is not None
        self.clock = Clock()
        self.gov = make_gov(engine=world.engine, clock=self.clock)
        self.names = [f"{name} {uuid4().hex}" for name in ("plain", "half", "tiered", "later")]
        self.ledger = Ledger(self.clock, {})
        self.members = [shared] if self.is_shared else [uuid4(), uuid4()]
        self.group = uuid4()
        with world.engine.begin() as setting_up:
            world.add_group(setting_up, world.a, self.group)
            for member in [] if self.is_shared else self.members:
                user = {"id": member, "name": "a member"}
                setting_up.execute(sa.insert(TABLES.users), user)
                world.join(setting_up, world.a, member)
                world.join_group(setting_up, world.a, self.group, member)
        for name, price in zip(self.names, (PLAIN, HALF, TIERED), strict=False):
            self.price(name, price)

    def price(self, name, price):
        row = {"provider": "acme", "model": name, "cache_read_price": None, **price}
        with self.gov.unit(self.world.owner, connection=self.connection) as unit:
            grant = unit.authorize("update", prices=True)
            Prices.upsert(grant, parse_prices(json.dumps([row]).encode()))
        self.ledger.prices[name] = price

    def limit(self, micros):
        table = TABLES.group_ai_budgets
        self.connection.execute(sa.delete(table).where(table.c.group_id == self.group))
        if micros is not None:
            row = {"group_id": self.group, "spend_limit_micros": micros, "revision": uuid4()}
            self.connection.execute(sa.insert(table), row)
        self.ledger.limit = micros

    # -- what is drawn --

    def draw_counts(self):
        few = self.dice.sample(UNITS, self.dice.choice([1, 1, 2, 3]))
        return {unit: self.dice.choice([1, 7, 40, 60]) for unit in sorted(few)}

    def draw(self, known):
        """Draw something that is known, or a name that is new."""
        if known and self.dice.random() < 0.8:
            return self.dice.choice(list(known)[-8:])
        return uuid4()

    def draw_event(self):
        fresh = self.dice.random() < 0.7 or not self.ledger.events
        return uuid4().hex if fresh else self.dice.choice(list(self.ledger.events)[-6:])

    def step(self):
        """Do the same act on both sides; give what differs."""
        names = ["hold"] * 5 + ["settle"] * 4 + ["record", "correct", "correct", "extend"]
        names += ["extend", "release", "find", "again"]
        names += [] if self.is_shared else ["tick", "tick", "relimit", "reprice"]
        act = self.dice.choice(names)
        return getattr(self, act)()

    def compare(self, act, arguments, send, read):
        expected = getattr(self.ledger, act)(*arguments)
        self.last = (act, arguments, send, read)
        person, action = ("owner", "update") if act == "correct" else ("gateway", "create")
        caller = getattr(self.world, person)
        try:
            with self.gov.unit(caller, connection=self.connection) as unit:
                found = read(send(unit.authorize(action, ledger=True)))
        except GovBudgetError as error:
            found = error.code
        return None if found == expected else (act, arguments, expected, found)

    last = None

    def again(self):
        return None if self.last is None else self.compare(*self.last)

    def hold(self):
        known = self.draw(self.ledger.holds) if self.dice.random() < 0.1 else uuid4()
        member, model = self.dice.choice(self.members), self.dice.choice(self.names)
        counts, seconds = self.draw_counts(), self.dice.choice([60, 3600])
        call = Call(self.world.a, member, "acme", model)
        what = call, Tokens(**counts)
        return self.compare(
            "hold",
            (known, member, model, counts, timedelta(seconds=seconds)),
            lambda grant: Spend.hold(grant, *what, ttl_seconds=seconds, hold_id=known),
            read_hold,
        )

    def find(self):
        its_id = self.draw(self.ledger.holds)
        return self.compare(
            "find", (its_id,), lambda grant: Spend.find_hold(grant, its_id), read_hold
        )

    def extend(self):
        its_id, seconds = self.draw(self.ledger.holds), self.dice.choice([1, 60, 3600])
        return self.compare(
            "extend",
            (its_id, timedelta(seconds=seconds)),
            lambda grant: Spend.extend(grant, its_id, ttl_seconds=seconds),
            read_hold,
        )

    def release(self):
        its_id = self.draw(self.ledger.holds)
        return self.compare(
            "release", (its_id,), lambda grant: Spend.release(grant, its_id), lambda none: none
        )

    def settle(self):
        its_id, event = self.draw(self.ledger.holds), self.draw_event()
        model = self.dice.choice([None, None, None, *self.names])
        counts = self.draw_counts() if self.dice.random() < 0.9 else {}
        return self.compare(
            "settle",
            (its_id, event, counts, model),
            lambda grant: Spend.settle(grant, its_id, event, Tokens(**counts), model=model),
            read_usage,
        )

    def record(self):
        event, member = self.draw_event(), self.dice.choice(self.members)
        model, counts = self.dice.choice(self.names), self.draw_counts()
        call = Call(self.world.a, member, "acme", model)
        return self.compare(
            "record",
            (event, member, model, counts),
            lambda grant: Spend.record(grant, event, call, Tokens(**counts))[0],
            read_usage,
        )

    def correct(self):
        event = self.draw_event()
        known = list(self.ledger.events)[-12:]
        corrects = self.dice.choice(known) if known else "unknown"
        counts, place = self.draw_counts(), self.world.a
        return self.compare(
            "correct",
            (event, corrects, counts),
            lambda grant: Spend.correct(
                grant, event, place, corrects, Tokens(**counts), reason="a test"
            )[0],
            read_usage,
        )

    def tick(self):
        self.clock.now += timedelta(seconds=self.dice.choice([1, 30, 60, 3600, 86_400]))

    def relimit(self):
        self.limit(self.dice.choice([None, 0, 500, 2000, 10_000]))

    def reprice(self):
        """A price comes that was not known; one that is in force is never rewritten under it."""
        name = self.names[self.dice.choice([1, 3])]
        self.price(name, self.dice.choice([HALF, PLAIN, TIERED, HALF_TIERED]))


def read_hold(hold):
    return hold.state, hold.cost_picos, set(hold.unpriced), hold.expires_at


def read_usage(usage):
    return usage.cost_picos, set(usage.unpriced)


def compare_sums(side, sides):
    """Compare the counters of a side's members with the models of all sides that call for them."""
    counters, holds = TABLES.ai_spend_counters, TABLES.ai_holds
    for member in side.members:
        mine = sa.select(counters).where(counters.c.user_id == member)
        for row in side.connection.execute(mine).all():
            expired = sa.select(sa.func.coalesce(sa.func.sum(holds.c.cost_picos), 0)).where(
                holds.c.user_id == member,
                holds.c.period == row.period,
                holds.c.is_open,
                holds.c.expires_at <= side.clock(),
            )
            live = row.held_picos - side.connection.execute(expired).scalar_one()
            month = row.period.year, row.period.month
            spent = sum(one.ledger.spent(member, month) for one in sides)
            held = sum(one.ledger.held(member, month) for one in sides)
            assert (row.spent_picos, live) == (spent, held), (member, month)


@pytest.mark.parametrize("steps", [400, pytest.param(2_000, marks=pytest.mark.long)])
def test_random_acts_of_several_threads_agree_with_the_model(world, steps):
    """Half of the threads have members of their own; half change the counters of one member."""
    print("seed", seed := random.randrange(10**6))  # noqa: T201 - to run it again
    threads, options = 4, {"isolation_level": "AUTOCOMMIT"}
    engine = world.engine.execution_options(**options)
    connections = [engine.connect() for _ in range(threads)]
    try:
        sides = [
            Side(world, connection, seed + n, shared=world.joined if n % 2 else None)
            for n, connection in enumerate(connections)
        ]

        def run(side):
            return [found for _ in range(steps // threads) if (found := side.step()) is not None]

        with ThreadPoolExecutor(threads) as pool:
            differences = [found for one in pool.map(run, sides) for found in one]
        assert differences == []
        shared = [side for side in sides if side.is_shared]
        for side in sides:
            compare_sums(side, shared if side.is_shared else [side])
    finally:
        for connection in connections:
            connection.close()
    with world.engine.begin() as connection:
        world.assign(connection, "nobody", "gateway", None)
    assert verify(world, world.a).findings == []
