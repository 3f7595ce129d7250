"""How far one PostgreSQL goes, and two: a hot user, one large organization, many organizations.

Servers and client share the machine, so a rate is what they reach together. What a server carries
alone is worked out from the processor time that it takes for a call. Commits wait for the disk
here, as they do in production: a hot user's calls wait for each other's commits.
"""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

import sqlalchemy as sa

from benchmarks.database import make_database, start_own_database
from benchmarks.handwritten import make_govbudget_app
from benchmarks.measure import Row, Spread, say, time_calls
from benchmarks.needs import Costs, report_needs
from benchmarks.spend import MODEL, MOST, PROVIDER, TAKEN
from govbudget import Call
from govbudget.db.databases import Databases
from govbudget.identity import OPERATOR
from govbudget.new_ids import SLOTS, find_slot, write_new_id
from govbudget.server.app import make_engine
from govbudget.settings import MIN_CLOSE_AFTER_DAYS
from govbudget.spend.closing import close_month
from govbudget.spend.verify import verify_spend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.measure import Effort
    from govbudget import Installation

    Member = tuple[UUID, UUID]  # an organization and a user

THREADS = 8
# Small organizations, and users of each; one large organization has as many as all of them.
SMALL = {"full": 100, "quick": 10}
ONE = "1 database"
BOOKED = {"full": 5, "quick": 1}  # calls of each user in a month that may be closed
CLOSED_DAYS = 123  # so long ago, which is in such a month
COMMITS = 50
# PostgreSQL plans a statement anew the first ten times that a connection sends it.
WARM_UP_CALLS = {"full": 25, "quick": 2}  # of each thread
MICROSECONDS, MILLISECONDS = 1e6, 1e3
PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")  # of a second, in /proc

_FILL = """
INSERT INTO govbudget.ai_model_prices
  (provider, model, input_price, output_price, cache_read_price, cache_write_price)
VALUES (:provider, :model, 3000000, 15000000, 300000, 3750000);
INSERT INTO govbudget.users (id, name) VALUES (:gateway, 'gateway');
INSERT INTO govbudget.role_assignments (id, user_id, role)
  VALUES (gen_random_uuid(), :gateway, 'gateway');
CREATE TEMPORARY TABLE filled AS
  SELECT o.id, gen_random_uuid() AS user_id, n
  FROM unnest(CAST(:ids AS uuid[]), CAST(:sizes AS integer[])) o (id, size),
       generate_series(1, size) n;
INSERT INTO govbudget.organizations (id, name) SELECT DISTINCT id, 'measured' FROM filled;
INSERT INTO govbudget.groups (id, organization_id, name)
  SELECT id, id, 'Everyone' FROM govbudget.organizations;
INSERT INTO govbudget.groups (id, organization_id, name)
  SELECT gen_random_uuid(), id, 'group ' || n
  FROM govbudget.organizations, generate_series(0, 9) n;
INSERT INTO govbudget.users (id, name) SELECT user_id, 'user ' || n FROM filled;
INSERT INTO govbudget.organization_members (organization_id, user_id)
  SELECT id, user_id FROM filled;
INSERT INTO govbudget.group_members (organization_id, group_id, user_id)
  SELECT g.organization_id, g.id, f.user_id
  FROM filled f JOIN govbudget.groups g ON g.organization_id = f.id
    AND g.name IN ('group ' || f.n % 10, 'group ' || (f.n * 7 + 3) % 10);
ALTER TABLE govbudget.group_ai_budgets DISABLE TRIGGER USER;
INSERT INTO govbudget.group_ai_budgets (group_id, spend_limit_micros, revision)
  SELECT id, 1000000000000 / (1 + (name <> 'Everyone')::integer), gen_random_uuid()
  FROM govbudget.groups;
ALTER TABLE govbudget.group_ai_budgets ENABLE TRIGGER USER;
INSERT INTO govbudget.ai_usage
  (organization_id, event_id, user_id, group_id, hold_id, period, day, provider, model,
   input_price, output_price, cache_read_price, cache_write_price, input_tokens, output_tokens,
   cache_read_tokens, cache_write_tokens, cost_picos)
  SELECT organization_id, hold_id, user_id, organization_id, hold_id,
         date_trunc('month', day)::date, day, :provider, :model, 3000000, 15000000, 300000, 3750000,
         1, 0, 0, 0, 3000000
  FROM (SELECT f.id AS organization_id, user_id, day, {new_id} AS hold_id
        FROM (VALUES (timezone('UTC', now())::date, 1), (CAST(:month AS date), :booked)) d (day, n),
             generate_series(1, d.n), filled f) AS booked;
INSERT INTO govbudget.ai_holds
  (id, organization_id, user_id, group_id, period, provider, model, input_price, output_price,
   cache_read_price, cache_write_price, cost_picos, is_open, created_at, expires_at, ended)
  SELECT hold_id, organization_id, user_id, group_id, period, provider, model, input_price,
         output_price, cache_read_price, cache_write_price, cost_picos, false, day, day + 1,
         'settled'
  FROM govbudget.ai_usage ORDER BY hold_id;
INSERT INTO govbudget.ai_spend_counters
  (organization_id, user_id, period, spent_picos, held_picos)
  SELECT organization_id, user_id, period, sum(cost_picos), 0 FROM govbudget.ai_usage
  GROUP BY 1, 2, 3;
INSERT INTO govbudget.ai_spend_rollups
  SELECT organization_id, grain, starts_on, group_id, user_id, provider, model, sum(cost_picos),
         count(*), 0
  FROM govbudget.ai_usage, LATERAL (VALUES ('day', day), ('month', period)) g (grain, starts_on)
  GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
_TABLES = [
    f"govbudget.{t}" for t in ("ai_usage", "ai_holds", "ai_spend_counters", "ai_spend_rollups")
]
_WRITTEN = """
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, (SELECT wal_fpi FROM pg_stat_wal),
       (SELECT sum(pg_total_relation_size(CAST(t AS regclass)))
        FROM unnest(CAST(:tables AS text[])) t)
"""


def measure_scale(effort: Effort) -> Iterator[Row]:
    """Hold and settle in one database and in two, in turn, on servers of our own."""
    if not (PROC / "self/stat").exists():
        yield Row("scale", "hold and settle", "govbudget", target="MISSING: it needs Linux's /proc")
        return
    large = uuid5(NAMESPACE_OID, "large")
    number = SMALL[effort.name]
    small = [uuid5(NAMESPACE_OID, str(n)) for n in range(number)]
    sizes = {large: number**2, **dict.fromkeys(small, number)}
    rows: list[Row] = []
    for row in _measure(effort, large, sizes):
        rows.append(row)
        yield row
    yield from report_needs(_find_costs(rows, _name_many(sizes)))


def _name_many(sizes: dict[UUID, int]) -> str:
    return f"{len(sizes) - 1} organizations, {max(sizes.values()):,} users"


def _find_costs(rows: Sequence[Row], many: str) -> Costs:
    """Find what a call costs, with one database and many organizations."""

    def find(who: str, what: str = "") -> float:
        (value,) = (r.value for r in rows if r.who == who and (what or many) == r.what)
        assert value is not None
        return value.median

    return Costs(
        find(f"{ONE}: PostgreSQL's processor") / MICROSECONDS,
        find(f"{ONE}: the client's processor") / MICROSECONDS,
        find("waits for the disk", "a commit") / MICROSECONDS,
        find(f"{ONE}: WAL"),
        find(f"{ONE}: tables and indexes"),
        find("calls and their holds", "spend close"),
    )


def _measure(effort: Effort, large: UUID, sizes: dict[UUID, int]) -> Iterator[Row]:
    with ExitStack() as stack:
        servers = [stack.enter_context(start_own_database()) for _ in range(2)]
        yield from _measure_commits(servers[0])
        booked = BOOKED[effort.name]
        one = stack.enter_context(_open_setup(servers[:1], sizes, booked))
        two = stack.enter_context(_open_setup(servers, sizes, booked))
        for what, chosen in (
            ("one hot user", lambda m: m[:1]),
            (f"1 organization, {sizes[large]:,} users", lambda m: [x for x in m if x[0] == large]),
            (_name_many(sizes), lambda m: [x for x in m if x[0] != large]),
        ):
            yield from _compare(effort, what, {s: chosen(s.members) for s in (one, two)})
        for setup in (one, two):
            setup.verify()
        yield from _close(one.commands[0], sum(sizes.values()) * booked)


def _compare(effort: Effort, what: str, of: dict[_Setup, Sequence[Member]]) -> Iterator[Row]:
    turns: dict[_Setup, list[_Turn]] = {setup: [] for setup in of}
    for setup, members in of.items():
        setup.call(members, 0, at_least=WARM_UP_CALLS[effort.name])
    for number in range(effort.load_rounds):
        for setup, members in of.items():
            say(f"scale: {what}, {setup.name}, round {number + 1}")
            turns[setup].append(setup.call(members, effort.load_seconds))
    for setup, members in of.items():
        sent = setup.count_statements(members[0])
        yield from _report(what, setup.name, turns[setup], sent)


def _report(what: str, who: str, turns: Sequence[_Turn], sent: int) -> Iterator[Row]:
    def summarize(measure: Callable[[_Turn], float]) -> Spread:
        return Spread.of([measure(turn) / turn.calls for turn in turns])

    details = {
        f"{name} p{percent}": _find_percentile(steps, percent) * MILLISECONDS
        for name, steps in (
            ("hold", [hold for turn in turns for hold, _ in turn.latencies]),
            ("settle", [settle for turn in turns for _, settle in turn.latencies]),
        )
        for percent in (50, 99)
    }
    client = sum(turn.client_seconds for turn in turns)
    servers = [sum(own) for own in zip(*(turn.server_seconds for turn in turns), strict=True)]
    taken = {"the client": client, **{f"server {n}": s for n, s in enumerate(servers, 1)}}
    taken["other processes"] = max(0, sum(t.machine_seconds for t in turns) - sum(taken.values()))
    parts = ", ".join(f"{name} {s / sum(taken.values()):.0%}" for name, s in taken.items())
    latencies = ", ".join(f"{name} {value:.1f} ms" for name, value in details.items())
    yield Row(
        "scale", what, who, Spread.of([turn.calls / turn.seconds for turn in turns]), "/s",
        note=f"{latencies}; processor time: {parts}", details=details,
    )  # fmt: skip
    processor = summarize(lambda turn: sum(turn.server_seconds) * MICROSECONDS)
    yield Row(
        "scale", what, f"{who}: PostgreSQL's processor", processor, "us a call",
        note=f"a core of its own has the time for {MICROSECONDS / processor.median:,.0f} calls/s",
    )  # fmt: skip
    processor = summarize(lambda turn: turn.client_seconds * MICROSECONDS)
    yield Row(
        "scale", what, f"{who}: the client's processor", processor, "us a call",
        note=f"{sent} statements a call",
    )  # fmt: skip
    pages = summarize(lambda turn: turn.written.wal_pages)
    yield Row(
        "scale", what, f"{who}: WAL", summarize(lambda turn: turn.written.wal), "bytes a call",
        note=f"{pages.median:.2f} whole pages a call among them",
    )  # fmt: skip
    # A turn fills what the versions that the turn before replaced have freed. The first has none.
    turns = turns[1:] or turns
    stored = summarize(lambda turn: turn.written.tables)
    yield Row("scale", what, f"{who}: tables and indexes", stored, "bytes a call")


def _close(home: Installation, calls: int) -> Iterator[Row]:
    """Close the month that the filling was of; each call of it has its hold."""
    say(f"scale: closing {calls:,} calls")
    with TemporaryDirectory() as folder:
        path, start = Path(folder) / "month.jsonl", perf_counter()
        done = close_month(home, _find_month(), path, MIN_CLOSE_AFTER_DAYS)
        seconds = perf_counter() - start
        assert (done.ai_usage, done.ai_holds) == (calls, calls)
        size = path.stat().st_size / calls
    rate = Spread.of([calls / seconds])
    note = f"{calls:,} calls; the file has {size:,.0f} bytes a call"
    yield Row("scale", "spend close", "calls and their holds", rate, "calls/s", note=note)


def _find_month() -> date:
    return (datetime.now(UTC).date() - timedelta(CLOSED_DAYS)).replace(day=1)


def _find_percentile(seconds: list[float], percent: int) -> float:
    return sorted(seconds)[len(seconds) * percent // 100]


def _measure_commits(server: sa.URL) -> Iterator[Row]:
    """Measure a commit of nothing much, with the wait for the disk and without."""
    emit = sa.text("SELECT pg_logical_emit_message(true, 'benchmarks', 'measured')")
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for who, setting in (("waits for the disk", "on"), ("does not wait", "off")):
            connection.exec_driver_sql(f"SET synchronous_commit = {setting}")
            seconds = [time_calls(lambda: connection.execute(emit), 1) for _ in range(COMMITS)]
            spread = Spread.of([s * MICROSECONDS for s in seconds])
            yield Row("scale", "a commit", who, spread, "us")


class _Written(NamedTuple):
    """Bytes of WAL, whole pages in it, and bytes of the tables that a call writes to."""

    wal: float
    wal_pages: float
    tables: float


@dataclass(slots=True)
class _Turn:
    """What one turn came to; what was written and taken is that of the whole turn."""

    latencies: list[tuple[float, float]]  # seconds of a hold, and of its settlement
    seconds: float
    client_seconds: float  # processor time
    server_seconds: list[float]  # of each server
    machine_seconds: float  # of all that ran
    written: _Written

    @property
    def calls(self) -> int:
        """Calls that were held and settled."""
        return len(self.latencies)


@dataclass(frozen=True, slots=True, eq=False)
class _Setup:
    """govbudget over one database, or over several that share the slots out evenly."""

    name: str
    engines: Sequence[sa.Engine]
    home: Installation
    commands: Sequence[Installation]  # as commands have it: without an end to long statements
    gateway: UUID
    members: Sequence[Member]

    def call(self, members: Sequence[Member], seconds: float, *, at_least: int = 1) -> _Turn:
        """Hold and settle for members in turn, in some threads, for so long and so often."""
        for engine in self.engines:
            with engine.connect() as connection:
                connection.exec_driver_sql(f"VACUUM {', '.join(_TABLES)}")
        written, server = self._read_written(), self._read_processor()
        machine, client = _read_machine_seconds(), process_time()
        start = perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            orders = [
                cycle(random.Random(n).sample(members, len(members)))  # noqa: S311 - no secret
                for n in range(THREADS)
            ]
            done = pool.map(lambda order: self._repeat(order, start + seconds, at_least), orders)
            latencies = [latency for own in done for latency in own]
        seconds, client = perf_counter() - start, process_time() - client
        machine = _read_machine_seconds() - machine
        server = [b - a for a, b in zip(server, self._read_processor(), strict=True)]
        grown = [b - a for a, b in zip(written, self._read_written(), strict=True)]
        return _Turn(latencies, seconds, client, server, machine, _Written(*grown))

    def _repeat(
        self, order: Iterator[Member], until: float, at_least: int
    ) -> list[tuple[float, float]]:
        latencies: list[tuple[float, float]] = []
        while (start := perf_counter()) < until or len(latencies) < at_least:
            organization, user = next(order)
            call = Call(organization, user, PROVIDER, MODEL)
            with self.home.hold(self.gateway, call, MOST) as hold:
                held = perf_counter()
                hold.settle(TAKEN)
                latencies.append((held - start, perf_counter() - held))
        return latencies

    def count_statements(self, member: Member) -> int:
        """Count what is sent for one call, to whichever database."""
        sent: list[str] = []

        def keep(_connection: object, _cursor: object, text: str, *_: object) -> None:
            sent.append(text)

        for engine in self.engines:
            sa.event.listen(engine, "before_cursor_execute", keep)
        with self.home.hold(self.gateway, Call(*member, PROVIDER, MODEL), MOST) as hold:
            hold.settle(TAKEN)
        for engine in self.engines:
            sa.event.remove(engine, "before_cursor_execute", keep)
        return len(sent)

    def verify(self) -> None:
        """Raise AssertionError where a database's ledger and sums differ."""
        for command in self.commands:
            seen = command.run(OPERATOR, lambda u: verify_spend(u.authorize("create", ledger=True)))
            assert not seen.findings, seen.findings
            say(f"scale: {self.name}: all {seen.calls:,} calls were booked")

    def _read_written(self) -> _Written:
        sums = [0.0, 0.0, 0.0]
        for engine in self.engines:
            with engine.connect() as connection:
                row = connection.execute(sa.text(_WRITTEN), {"tables": list(_TABLES)}).one()
            sums = [a + float(b) for a, b in zip(sums, row, strict=True)]
        return _Written(*sums)

    def _read_processor(self) -> list[float]:
        seconds = []
        for engine in self.engines:
            with engine.connect() as connection:
                backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            server = _read_stat(backend)[1]
            seconds.append(_read_server_seconds(server))
        return seconds


def _read_server_seconds(server: int) -> float:
    """Read the processor time of a PostgreSQL: of its processes, and of those that ended."""
    own = _read_stat(server)
    ticks = sum(own[11:15])
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has just ended
                stat = _read_stat(int(folder.name))
                ticks += sum(stat[11:13]) if stat[1] == server else 0
    return ticks / TICKS


def _read_machine_seconds() -> float:
    """Read the processor time of all processes, and what the machine's host took."""
    line = (PROC / "stat").read_text(encoding="utf-8").splitlines()[0]
    user, nice, system, _idle, _wait, interrupts, soft, stolen = map(int, line.split()[1:9])
    return (user + nice + system + interrupts + soft + stolen) / TICKS


def _read_stat(pid: int) -> list[int]:
    """Read what /proc says of a process, from its state on; the state is 0."""
    text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    return [0, *map(int, text.rpartition(")")[2].split()[1:])]


@contextmanager
def _open_setup(servers: Sequence[sa.URL], sizes: dict[UUID, int], booked: int) -> Iterator[_Setup]:
    """Fill a database on each server with its organizations, and start govbudget on them."""
    name = f"{len(servers)} database{'s' * (len(servers) > 1)}"
    gateway, members = uuid4(), list[tuple[UUID, UUID]]()
    with ExitStack() as stack:
        engines, patient = [], []
        for number, server in enumerate(servers):
            own = [o for o in sizes if find_slot(o) * len(servers) // SLOTS == number]
            say(f"scale: {name}: filling {len(own)} organizations")
            url = stack.enter_context(make_database(server))
            engine = make_engine(url, THREADS)  # as `govbudget serve` has it
            stack.callback(engine.dispose)
            engines.append(engine)
            patient.append(sa.create_engine(url, poolclass=sa.NullPool))
            values = {
                "ids": own, "sizes": [sizes[o] for o in own], "gateway": gateway, "booked": booked,
                "month": _find_month(),                "provider": PROVIDER, "model": MODEL,
            }  # fmt: skip
            members += _fill(url, values)
        commands = [make_govbudget_app(engine).extensions["govbudget"] for engine in patient]
        width = SLOTS // len(servers)
        shared = {f"{n * width}-{n * width + width - 1}": e for n, e in enumerate(engines)}
        served = Databases(shared) if len(servers) > 1 else engines[0]
        home = make_govbudget_app(served).extensions["govbudget"]
        yield _Setup(name, engines, home, commands, gateway, members)


def _fill(url: sa.URL, values: dict[str, Any]) -> list[Member]:
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        filling = _FILL.replace("{new_id}", write_new_id("f.id"))
        for statement in filling.strip().split(";\n"):
            text = sa.text(statement)
            known = {k: v for k, v in values.items() if k in text._bindparams}  # noqa: SLF001
            connection.execute(text, known)
        members = connection.exec_driver_sql("SELECT id, user_id FROM filled ORDER BY 1, 2").all()
        connection.exec_driver_sql("VACUUM ANALYZE")
    return [(organization, user) for organization, user in members]
