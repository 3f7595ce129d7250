"""The stand-alone server under load, beside the hand-written views under the same server.

Both run on gunicorn with the same threads and pool, each in a process of its own, take the same
bearer tokens and send the same statements. They are loaded in turn, over loopback, by this process.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from benchmarks.database import fill_database, make_database
from benchmarks.handwritten import put_body
from benchmarks.measure import Row, Spread, say
from benchmarks.wsgi import budget_path
from govbudget import Layout
from govbudget.db.tables import Tables
from govbudget.server.tokens import BearerTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.database import World
    from benchmarks.measure import Effort

CONNECTIONS = (1, 16, 64)
MIXES = {"GET": 0.0, "PUT": 1.0, "90:10": 0.1}  # the share of PUTs
THREADS, POOL = 80, 8  # what `serve` starts with
# Workers, threads and connections of a worker, to choose the defaults of `serve` from.
SETTINGS = ((1, 8, 8), (1, 80, 4), (1, 80, 8), (1, 80, 16), (2, 80, 4), (2, 80, 8))
START_SECONDS = 30.0
STALL_SECONDS = 15.0  # an answer that takes longer is an error
OURS, THEIRS = "govbudget", "Core, same statements"
ROOT = Path(__file__).parents[1]


@dataclass(slots=True)
class Tally:
    """What one turn of load came to."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


def measure_load(effort: Effort, server: sa.URL) -> Iterator[Row]:
    """Throughput and latency at 1, 16 and 64 connections; then a soak at 64."""
    with ExitStack() as stack:
        url = stack.enter_context(make_database(server))
        world = fill_database(url, groups=100, users=1000)
        token = _make_token(url, world)
        ports = {
            OURS: stack.enter_context(_serve_govbudget(url)),
            THEIRS: stack.enter_context(_serve_hand_written(url, world)),
        }
        for port, _pid in ports.values():  # pools fill, statements are prepared, modules loaded
            asyncio.run(_load(port, 16, _make_requests(world, token, 0.5), effort.load_seconds))
        most = CONNECTIONS if effort.name == "full" else CONNECTIONS[:2]  # the soak has the last
        for mix, share in MIXES.items():
            for connections in most:
                what = f"{mix}, {connections} connections"
                say(f"load: {what}")
                tallies: dict[str, list[Tally]] = {OURS: [], THEIRS: []}
                for _ in range(effort.load_rounds):
                    for name, (port, _pid) in ports.items():
                        requests = _make_requests(world, token, share)
                        tallies[name].append(
                            asyncio.run(_load(port, connections, requests, effort.load_seconds))
                        )
                yield from _report(what, tallies)
        yield from _soak(effort, world, token, *ports[OURS])


def measure_settings(effort: Effort, server: sa.URL) -> Iterator[Row]:
    """`serve` with other numbers of workers, threads and connections, under the same load."""
    with ExitStack() as stack:
        url = stack.enter_context(make_database(server))
        world = fill_database(url, groups=100, users=1000)
        token = _make_token(url, world)
        settings = SETTINGS if effort.name == "full" else SETTINGS[:1]
        ports = {s: stack.enter_context(_serve_govbudget(url, *s))[0] for s in settings}
        for port in ports.values():
            asyncio.run(_load(port, 16, _make_requests(world, token, 0.5), effort.load_seconds))
        for connections in CONNECTIONS if effort.name == "full" else CONNECTIONS[:1]:
            say(f"settings: {connections} connections")
            tallies: dict[tuple[int, int, int], list[Tally]] = {s: [] for s in settings}
            for _ in range(effort.load_rounds):
                for setting, port in ports.items():
                    requests = _make_requests(world, token, 0.1)
                    turn = _load(port, connections, requests, effort.load_seconds / 5)
                    tallies[setting].append(asyncio.run(turn))
            for (workers, threads, pool), turns in tallies.items():
                yield Row(
                    "settings", f"90:10, {connections} connections",
                    f"{workers} workers, {threads} threads, {pool} connections",
                    Spread.of([turn.rate for turn in turns]), "/s", note=_describe(turns),
                )  # fmt: skip


def _report(what: str, tallies: dict[str, list[Tally]]) -> Iterator[Row]:
    ours = [tally.rate for tally in tallies[OURS]]
    theirs = [tally.rate for tally in tallies[THEIRS]]
    for name, rates, ratio in (
        (OURS, ours, None),
        (THEIRS, theirs, Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])),
    ):
        note = _describe(tallies[name])
        failed = any(tally.errors for tally in tallies[name])
        yield Row(
            "load", what, name, Spread.of(rates), "/s", ratio,
            "govbudget / it" if ratio else "", "no error" if name == OURS else "",
            not failed if name == OURS else None, note, _find_percentiles(tallies[name]),
        )  # fmt: skip


def _describe(tallies: list[Tally]) -> str:
    errors = [error for tally in tallies for error in tally.errors]
    shown = [f"{name} {value:.1f} ms" for name, value in _find_percentiles(tallies).items()]
    return f"{', '.join(shown)}, {len(errors)} errors{f' ({errors[0]})' if errors else ''}"


def _find_percentiles(tallies: list[Tally]) -> dict[str, float]:
    """Give p50, p95 and p99 of the latencies, in milliseconds."""
    latencies = sorted(s for tally in tallies for s in tally.latencies)
    return {
        f"p{percent}": latencies[len(latencies) * percent // 100] * 1000
        for percent in ((50, 95, 99) if latencies else ())
    }


def _soak(effort: Effort, world: World, token: str, port: int, pid: int) -> Iterator[Row]:
    """Load at 64 connections for long: no error, and memory stays."""
    say(f"load: {effort.soak_seconds:.0f} s at 64 connections")
    before = _read_resident_kib(pid)
    tally = asyncio.run(_load(port, 64, _make_requests(world, token, 0.1), effort.soak_seconds))
    growth = (_read_resident_kib(pid) - before) / 1024
    bound = max(2.0, before / 1024 * 0.05)
    what = f"90:10, 64 connections, {effort.soak_seconds:.0f} s"
    yield Row(
        "load", what, OURS, Spread.of([tally.rate]), "/s", target="no error",
        met=not tally.errors, note=_describe([tally]), details=_find_percentiles([tally]),
    )  # fmt: skip
    yield Row(
        "load", f"{what}: growth", OURS, Spread.of([growth]), "MiB",
        target=f"<= {bound:.0f} MiB", met=growth <= bound,
    )  # fmt: skip


def _make_token(url: sa.URL, world: World) -> str:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        return BearerTokens(Tables(Layout())).create(connection, world.admin, 1)


# -- the servers --


@contextmanager
def _serve_govbudget(
    url: sa.URL, workers: int = 1, threads: int = THREADS, pool: int = POOL
) -> Iterator[tuple[int, int]]:
    """One worker beside one of the hand-written server's."""
    port = _find_port()
    command = [
        *("govbudget", "serve", "--port", str(port), "--workers", str(workers)),
        *("--threads", str(threads), "--connections", str(pool)),
    ]
    environment = {"GOVBUDGET_DATABASE_URL": _write_url(url)}
    with _run_server(["-m", *command], environment, port) as pid:
        yield port, pid


@contextmanager
def _serve_hand_written(url: sa.URL, world: World) -> Iterator[tuple[int, int]]:
    port = _find_port()
    people = ",".join(
        str(getattr(world, name))
        for name in ("organization", "group", "owner", "admin", "member", "stranger")
    )
    command = [
        "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", str(THREADS),
        "--worker-class", "gthread", "--log-level", "warning",
        "benchmarks.handwritten:make_served_app()",
    ]  # fmt: skip
    environment = {
        "BENCH_URL": url.render_as_string(hide_password=False),
        "BENCH_WORLD": people,
        "BENCH_POOL": str(POOL),
    }
    with _run_server(["-m", *command], environment, port) as pid:
        yield port, pid


def _write_url(url: sa.URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def _run_server(arguments: list[str], environment: dict[str, str], port: int) -> Iterator[int]:
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(  # noqa: S603 - our own Python and arguments
            [sys.executable, *arguments],
            env={**os.environ, **environment},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,  # the log of the requests: it is written, and not kept
            stderr=log,
        )
        try:
            _wait_until_it_listens(server, port, log)
            yield server.pid
        finally:
            server.terminate()
            server.wait(60)


def _wait_until_it_listens(server: subprocess.Popen[bytes], port: int, log: Any) -> None:  # noqa: ANN401 - a file
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    log.seek(0)
    message = f"the server did not start: {log.read().decode(errors='replace')[-2000:]}"
    raise RuntimeError(message)


def _find_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def _read_resident_kib(pid: int) -> int:
    """Add up the memory of a server and its workers."""
    command = ["ps", "-A", "-o", "pid=,ppid=,rss="]
    listing = subprocess.run(command, capture_output=True, check=True, text=True).stdout  # noqa: S603 - constants
    rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
    return sum(resident for own, parent, resident in rows if pid in (own, parent))


# -- the load --


def _make_requests(world: World, token: str, share: float) -> Callable[[], bytes]:
    """Give what makes the next request: a GET, or, for that share, a PUT of one of few groups."""
    path = budget_path(world.group)
    head = f"{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    get = f"GET {head}\r\n".encode()
    body = put_body()
    put = (
        f"PUT {head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    choose = random.Random(6)  # noqa: S311 - the same mix each time
    return lambda: put if share and choose.random() < share else get


async def _load(port: int, connections: int, make: Callable[[], bytes], seconds: float) -> Tally:
    """Send requests one after the other on each of the connections, for so long."""
    tally = Tally()
    started = time.perf_counter()
    until = started + seconds
    callers = [asyncio.create_task(_call(port, make, until, tally)) for _ in range(connections)]
    await asyncio.gather(*callers)
    tally.seconds = time.perf_counter() - started
    return tally


async def _call(port: int, make: Callable[[], bytes], until: float, tally: Tally) -> None:
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    while time.perf_counter() < until:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(STALL_SECONDS):
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(make())
                status, stays = await _read_answer(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            tally.errors.append(type(error).__name__)
            stays = False
        else:
            tally.latencies.append(time.perf_counter() - began)
            if status != b"200":
                tally.errors.append(status.decode())
        if not stays and writer is not None:
            writer.close()
            reader = writer = None
    if writer is not None:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Read an answer; give its status, and whether the connection stays."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status, _, headers = head.partition(b"\r\n")
    length = int(headers.partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return status.split(b" ")[1], b"connection: close" not in headers
