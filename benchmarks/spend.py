"""Hold and settle, beside the same statements on raw psycopg: spread over users, and on one."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from time import process_time
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import sqlalchemy as sa

from benchmarks.database import fill_database, make_database
from benchmarks.handwritten import make_govbudget_app
from benchmarks.measure import Row, Spread, measure_pairs, say
from govbudget import Call, Tokens
from govbudget.identity import OPERATOR
from govbudget.server.app import make_engine
from govbudget.spend.verify import verify_spend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.database import World
    from benchmarks.measure import Effort
    from govbudget import Installation

    Work = Callable[[UUID], object]  # one hold and its settlement, for a user

GROUPS, USERS = 100, 1000
PROVIDER, MODEL = "acme", "measured"
MOST, TAKEN = Tokens(input=900, output=100), Tokens(input=700, output=60)
THREADS = (1, 8)
UNITS = {"full": 8, "quick": 1}  # of each thread, in the smallest part of a sample
AT_LEAST = 0.7
MICROSECONDS = 1e6

_PRICE = """
INSERT INTO govbudget.ai_model_prices
  (provider, model, input_price, output_price, cache_read_price, cache_write_price)
VALUES (:provider, :model, 3000000, 15000000, 300000, 3750000)
"""
_GATEWAY = """
INSERT INTO govbudget.role_assignments (id, user_id, role) VALUES (:id, :user, 'gateway')
"""
_LIMITS = "UPDATE govbudget.group_ai_budgets SET spend_limit_micros = 1000000000000"  # none refuses
_USERS = "SELECT id FROM govbudget.users WHERE name LIKE 'user %' ORDER BY id"


def measure_spend(effort: Effort, server: sa.URL) -> Iterator[Row]:
    """Compare rates: how long the raw statements take, over how long govbudget takes."""
    with ExitStack() as stack:
        url = stack.enter_context(make_database(server))
        world = fill_database(url, groups=GROUPS, users=USERS)
        engine = make_engine(url, max(THREADS))  # as `govbudget serve` has it
        stack.callback(engine.dispose)
        users = add_gateway(engine, world)
        home = make_govbudget_app(engine).extensions["govbudget"]
        ours = _Ours(home, world)
        raw = _Raw(url, _capture(engine, ours, users[0]))
        for threads in THREADS:
            for where, whose in ((f"{USERS:,} users", users), ("one user", users[:1])):
                what = f"{where}, {threads} thread{'s' * (threads > 1)}"
                yield from _compare(effort, what, threads, whose, ours, raw)
        seen = home.run(OPERATOR, lambda unit: verify_spend(unit.authorize("create", ledger=True)))
        assert not seen.findings, seen.findings
        say(f"spend: all {seen.calls:,} calls of both sides were booked")


def add_gateway(engine: sa.Engine, world: World) -> Sequence[UUID]:
    """Let the stranger make calls to a model that has a price; give the users, whom none stops."""
    with engine.begin() as connection:
        connection.execute(sa.text(_PRICE), {"provider": PROVIDER, "model": MODEL})
        connection.execute(sa.text(_GATEWAY), {"id": uuid4(), "user": world.stranger})
        connection.execute(sa.text(_LIMITS))
        return connection.execute(sa.text(_USERS)).scalars().all()


def _compare(  # noqa: PLR0917 - called in one place
    effort: Effort, what: str, threads: int, users: Sequence[UUID], ours: _Ours, raw: _Raw
) -> Iterator[Row]:
    for name, make, other, make_other, target in (
        ("hold(...)", ours.make_whole, "psycopg, the same 4 statements", raw.make_all, None),
        ("hold(...)", ours.make_whole, "psycopg, hold and settle alone", raw.make_two, None),
        ("the store", ours.make_store, "psycopg, the same 2 statements", raw.make_two, AT_LEAST),
    ):
        say(f"spend: {what}, {name} and {other}")
        units = UNITS[effort.name]
        with ThreadPoolExecutor(threads) as pool, ExitStack() as stack:
            work, their_work = (
                _repeat(pool, [one(stack) for _ in range(threads)], users, units)
                for one in (make, make_other)
            )
            pairs = measure_pairs(work, their_work, effort, operations=threads * units)
            busy, their_busy = (
                _time_processor(one, effort.rounds // 2) / (threads * units)
                for one in (work, their_work)
            )
        if make_other is not raw.make_two or target:
            yield Row("spend", what, f"govbudget: {name}", _spread(pairs.ours), "us")
        ratio = pairs.theirs_to_ours
        note = f"of the client's processor it takes {their_busy:.0f} us, {name} {busy:.0f} us"
        yield Row(
            "spend", what, other, _spread(pairs.theirs), "us", ratio, f"its time / {name}",
            f">= {target}" if target else "", ratio.median >= target if target else None,
            note if threads == 1 and len(users) > 1 else "",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Ours:
    """govbudget, as a gateway uses it."""

    home: Installation
    world: World

    def make_whole(self, _stack: ExitStack) -> Work:
        """`with hold(...)`: hold and settle each take a connection, load roles and authorize."""

        def work(user: UUID) -> None:
            with self.home.hold(self.world.stranger, self._call(user), MOST) as hold:
                hold.settle(TAKEN)

        return work

    def make_store(self, stack: ExitStack) -> Work:
        """The store's hold and settle, on one connection that was authorized beforehand."""
        unit = stack.enter_context(self.home.unit(self.world.stranger))
        grant, store = unit.authorize("create", ledger=True), self.home.spend

        def work(user: UUID) -> None:
            hold = store.hold(grant, self._call(user), MOST)
            store.settle(grant, hold.id, str(hold.id), TAKEN)

        return work

    def _call(self, user: UUID) -> Call:
        return Call(self.world.organization, user, PROVIDER, MODEL)


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement that govbudget sent, with its values."""

    text: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Raw:
    """What govbudget sent, on psycopg: for each thread a connection in autocommit."""

    url: sa.URL
    sent: Sequence[_Statement]

    def make_all(self, stack: ExitStack) -> Work:
        """All four: hold and settle, and before each the gateway's roles."""
        return self._make(stack, with_roles=True)

    def make_two(self, stack: ExitStack) -> Work:
        """Hold and settle alone."""
        return self._make(stack, with_roles=False)

    def _make(self, stack: ExitStack, *, with_roles: bool) -> Work:
        text = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = stack.enter_context(psycopg.connect(text, autocommit=True))
        roles, hold, _, settle = self.sent

        def work(user: UUID) -> None:
            hold_id = uuid4()
            asked = {**hold.values, "user_id": user, "hold_id": hold_id}
            taken = {**settle.values, "hold_id": hold_id, "event_id": str(hold_id)}
            for statement, values in ((hold, asked), (settle, taken)):
                if with_roles:
                    connection.execute(roles.text, roles.values).fetchall()
                row = connection.execute(statement.text, values).fetchone()
                assert row is not None

        return work


def _capture(engine: sa.Engine, ours: _Ours, user: UUID) -> list[_Statement]:
    """Let govbudget hold and settle once, and keep the statements that it sent."""
    kept: list[_Statement] = []

    def keep(_connection: object, _cursor: object, text: str, values: Any, *_: object) -> None:  # noqa: ANN401 - the driver's
        kept.append(_Statement(text, dict(values)))

    sa.event.listen(engine, "before_cursor_execute", keep)
    with ExitStack() as stack:
        ours.make_whole(stack)(user)
    sa.event.remove(engine, "before_cursor_execute", keep)
    return kept


def _repeat(
    pool: ThreadPoolExecutor, of_threads: Sequence[Work], users: Sequence[UUID], units: int
) -> Callable[[], None]:
    """Make a piece of work: each thread does its units, for users in an order of its own."""
    orders = [cycle(random.Random(n).sample(users, len(users))) for n in range(len(of_threads))]  # noqa: S311 - no secret

    def work(unit: Work, order: Iterator[UUID]) -> None:
        for _ in range(units):
            unit(next(order))

    def run() -> None:
        for _ in pool.map(work, of_threads, orders):
            pass

    return run


def _time_processor(work: Callable[[], None], rounds: int) -> float:
    """Give the microseconds of this process, not of PostgreSQL, that the work takes."""
    start = process_time()
    for _ in range(rounds):
        work()
    return (process_time() - start) / rounds * MICROSECONDS


def _spread(seconds: Sequence[float]) -> Spread:
    return Spread.of([s * MICROSECONDS for s in seconds])
