"""Every order in which three calls of two members can be held, extended, ended and corrected.

A program enumerates them: from each state that it reaches it takes each act, in the database and in
the model, and both must answer alike and hold and spend the same. Two calls of one member are
alike: a state and the one in which they have changed places are the same.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import uuid4

import pytest
import sqlalchemy as sa
from psycopg.pq import ExecStatus
from tests.spend.ledger_model import Ledger
from tests.support import TABLES, authorize, make_gov

from govbudget.errors import GovBudgetError
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import Call
from govbudget.spend.verify import verify_spend

pytestmark = pytest.mark.long

NOON = datetime(2026, 1, 20, 12, tzinfo=UTC)
TTL = timedelta(seconds=60)
LIMIT = 3  # micros; a token costs one
HELD, TAKEN, CORRECTED = 2, 1, 3  # so two calls fit one after the other, and not at once
ACTS = ("hold", "settle", "extend", "release", "correct")
TICKS = 2
PRICE = 10**6
# As text it is asked in a third of the time: after each act.
SWEPT = sa.text(
    "SELECT id FROM govbudget.ai_holds WHERE id = ANY (:ids) AND NOT is_open AND ended IS NULL"
)


class Clock:
    """Shared by the model, its copies and the database."""

    def __init__(self):
        self.ticks = 0

    def __call__(self):
        return NOON + self.ticks * TTL


class Game:
    """Calls of members, in the database and in the model."""

    def __init__(self, world, calls, members):
        self.world, self.clock = world, Clock()
        self.calls = dict(zip(range(calls), (uuid4() for _ in range(calls)), strict=True))
        self.members, self.model = members, str(world.a)
        self.gov = make_gov(engine=world.engine, clock=self.clock)
        self.ledger = Ledger(self.clock, {str(world.a): {"input_price": PRICE}}, LIMIT)

    @staticmethod
    def prepare(world):
        """Set the price and the limit, in the group that the members will be in."""
        price = {"provider": "acme", "model": str(world.a), "input_price": PRICE}
        row = {"group_id": world.a1, "spend_limit_micros": LIMIT, "revision": uuid4()}
        with world.engine.begin() as connection:
            connection.execute(sa.insert(TABLES.ai_model_prices), price)
            connection.execute(sa.insert(TABLES.group_ai_budgets), row)

    def member_of(self, number):
        return self.members[number % len(self.members)]

    def name(self, number, kind):
        return f"{kind} {self.calls[number]}"

    def act(self, ledger, act, number):
        """Act in the model."""
        its_id = self.calls[number]
        if act == "hold":
            counts = {"input": HELD}
            return ledger.hold(its_id, self.member_of(number), self.model, counts, TTL)
        if act == "settle":
            return ledger.settle(its_id, self.name(number, "event"), {"input": TAKEN}, None)
        if act == "correct":
            names = self.name(number, "correction"), self.name(number, "event")
            return ledger.correct(*names, {"input": CORRECTED})
        return ledger.extend(its_id, TTL) if act == "extend" else ledger.release(its_id)

    def send(self, grants, act, number):
        """Act in the database; give what the model gives."""
        its_id, (create, update) = self.calls[number], grants
        try:
            if act == "hold":
                call = Call(self.world.a, self.member_of(number), "acme", self.model)
                seconds = int(TTL.total_seconds())
                tokens = Tokens(input=HELD)
                return read(Spend.hold(create, call, tokens, ttl_seconds=seconds, hold_id=its_id))
            if act == "settle":
                event = self.name(number, "event")
                usage = Spend.settle(create, its_id, event, Tokens(input=TAKEN))
                return usage.cost_picos, set(usage.unpriced)
            if act == "correct":
                names = self.name(number, "correction"), self.world.a, self.name(number, "event")
                correction, _ = Spend.correct(
                    update, *names, Tokens(input=CORRECTED), reason="a test"
                )
                return correction.cost_picos, set(correction.unpriced)
            if act == "extend":
                return read(Spend.extend(create, its_id, ttl_seconds=int(TTL.total_seconds())))
            return Spend.release(create, its_id)
        except GovBudgetError as error:
            return error.code

    def authorize(self, connection):
        """Give a grant to create and one to update, on the connection."""
        rights = (self.world.gateway, "create"), (self.world.owner, "update")
        return [authorize(connection, *right, gov=self.gov, ledger=True) for right in rights]

    def find_key(self, ledger, swept=()):
        """What the state of the model and the swept holds is, whatever way led to it."""
        calls = []
        for number, its_id in self.calls.items():
            hold = ledger.holds.get(its_id)
            ends = hold and (hold["ended"], None if hold["ended"] else hold["expires"])
            event = ledger.events.get(self.name(number, "event"))
            calls.append((ends, event and event["corrected_by"] is not None, its_id in swept))
        members = range(len(self.members))
        of_members = [sorted(calls[number :: len(members)], key=repr) for number in members]
        return self.clock.ticks, str(of_members)

    def find_swept(self, connection):
        """Which holds the counter has no more, though they only expired: a model has no counter."""
        return frozenset(connection.scalars(SWEPT, {"ids": list(self.calls.values())}))

    def sweep(self, grants):
        """Take what expired out of the counter: a refused hold does."""
        call = Call(self.world.a, self.members[0], "acme", self.model)
        with pytest.raises(GovBudgetError):
            Spend.hold(grants[0], call, Tokens(input=10 * LIMIT))

    def check_sums(self, connection, ledger):
        """Compare what is stored with what the model has."""
        counters, holds = TABLES.ai_spend_counters.c, TABLES.ai_holds.c
        for member in self.members:
            of_member = counters.user_id == member
            row = connection.execute(
                sa.select(counters.spent_picos, counters.held_picos).where(of_member)
            )
            spent, held = row.one_or_none() or (0, 0)
            expired = sa.select(sa.func.coalesce(sa.func.sum(holds.cost_picos), 0)).where(
                holds.user_id == member, holds.is_open, holds.expires_at <= self.clock()
            )
            live = held - connection.execute(expired).scalar_one()
            month = (NOON.year, NOON.month)
            assert (spent, live) == (ledger.spent(member, month), ledger.held(member, month))


@contextmanager
def undone(connection):
    """Undo what a block does in the database."""
    driver = connection.connection.driver_connection
    assert driver.pgconn.exec_(b"SAVEPOINT act").status == ExecStatus.COMMAND_OK
    yield
    assert driver.pgconn.exec_(b"ROLLBACK TO act; RELEASE act").status == ExecStatus.COMMAND_OK


def keep_prepared(connection):
    """Let psycopg keep what is prepared: at each rollback it sees, all would be planned anew.

    A hold of an id that is taken rolls back to a savepoint: from most states, some act does.
    """
    prepared = connection.connection.driver_connection._prepared
    prepared._should_discard = lambda *_: False


def read(hold):
    return hold.state, hold.cost_picos, set(hold.unpriced), hold.expires_at


def test_every_interleaving_of_three_calls_of_two_members_is_as_the_model_has_it(world):
    Game.prepare(world)
    with world.engine.begin() as connection:
        world.join_group(connection, world.a, world.a1, "joined")
    game = Game(world, 3, [world.member, world.joined])
    seen, taken = set(), 0

    def explore(ledger):
        """Take each act from here, and come back."""
        nonlocal taken
        key = game.find_key(ledger, game.find_swept(connection))
        if key in seen:
            return
        seen.add(key)
        game.check_sums(connection, ledger)
        assert verify_spend(grants[0], world.a).findings == [], key
        for act, number in product(ACTS, game.calls):
            taken += 1
            after = ledger.copy()
            with undone(connection):
                expected = game.act(after, act, number)
                assert game.send(grants, act, number) == expected, (key, act, number)
                explore(after)
        if game.clock.ticks < TICKS:
            game.clock.ticks += 1
            explore(ledger)
            game.clock.ticks -= 1

    with world.engine.connect() as connection:
        keep_prepared(connection)
        grants = game.authorize(connection)
        explore(game.ledger)
    print(len(seen), "states,", taken, "acts")  # noqa: T201 - for the record
    assert len(seen) > 200
    assert taken == len(seen) * len(ACTS) * 3


def find_paths(game):
    """Give a way to each state that two calls of a member can be in."""
    paths, ways = {}, [(game.ledger, ())]
    while ways:
        ledger, way = ways.pop(0)
        game.clock.ticks = way.count("tick")
        key = game.find_key(ledger)
        if key in paths:
            continue
        paths[key] = way
        for act, number in product(ACTS, game.calls):
            after = ledger.copy()
            game.act(after, act, number)
            ways.append((after, (*way, (act, number))))
        if game.clock.ticks < TICKS:
            ways.append((ledger, (*way, "tick")))
    return list(paths.values())


def replay(game, way, ledger, grants):
    for step in way:
        if step == "tick":
            game.clock.ticks += 1
        else:
            game.act(ledger, *step)
            game.send(grants, *step)


def test_of_two_acts_at_once_the_answers_are_those_of_one_order(world):
    """From any state, each having seen what was before the other: 120 drawn of all pairs."""
    print("seed", seed := random.randrange(10**6))  # noqa: T201 - to run it again
    dice = random.Random(seed)
    Game.prepare(world)
    ways = find_paths(Game(world, 2, [world.member]))
    engine = world.engine.execution_options(isolation_level="AUTOCOMMIT")
    counter = TABLES.ai_spend_counters
    with engine.connect() as first, engine.connect() as second, ThreadPoolExecutor(2) as pool:
        for _ in range(120):
            member = add_member(world)
            game = Game(world, 2, [member])
            sides = [game.authorize(connection) for connection in (first, second)]
            way = dice.choice(ways)
            replay(game, way, game.ledger, sides[0])
            if dice.random() < 0.5:
                game.sweep(sides[0])
            number = dice.choice(list(game.calls))
            acts = [(dice.choice(ACTS), dice.choice([number, number, 1 - number])) for _ in sides]
            orders = []
            for order in ((0, 1), (1, 0)):
                ledger = game.ledger.copy()
                answers = {n: game.act(ledger, *acts[n]) for n in order}
                orders.append(([answers[0], answers[1]], game.find_key(ledger), ledger))
            with world.engine.begin() as locking:
                lock = sa.select(counter).where(counter.c.user_id == member).with_for_update()
                locking.execute(lock)
                running = []
                for grants, act in zip(sides, acts, strict=True):
                    running.append(pool.submit(game.send, grants, *act))
                    wait(running[-1:], timeout=0.01)  # for the lock it waits for longer
                locking.rollback()
            found = [one.result() for one in running]
            fitting = [ledger for answers, _, ledger in orders if answers == found]
            assert fitting, (way, acts, found, orders)
            check_any(game, first, fitting)
        assert verify_spend(sides[0][0], world.a).findings == []


def check_any(game, connection, ledgers):
    """What is stored is what one of the orders leaves."""
    for ledger in ledgers:
        try:
            game.check_sums(connection, ledger)
        except AssertionError:
            if ledger is ledgers[-1]:
                raise
        else:
            return


def add_member(world):
    member = uuid4()
    with world.engine.begin() as connection:
        connection.execute(sa.insert(TABLES.users), {"id": member, "name": "a member"})
        world.join(connection, world.a, member)
        world.join_group(connection, world.a, world.a1, member)
    return member
