"""gunicorn as `govbudget serve` runs it: who waits for whom, how long, and how a worker ends."""

from __future__ import annotations

import errno
import gc
import os
import select
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Flask
from gunicorn import glogging, util
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import ThreadWorker

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

SILENCE_SECONDS = 5
BYTES_PER_SECOND = 16 * 1024
# Most requests come with their connection. A client that sends none yet waits without a thread.
FIRST_WAIT_SECONDS = 0.01
# What is answered to what is not HTTP, where it is not 400, by the name of gunicorn's error.
STATUSES = {
    "ExpectationFailed": HTTPStatus.EXPECTATION_FAILED,
    "LimitRequestHeaders": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "LimitRequestLine": HTTPStatus.REQUEST_URI_TOO_LONG,
    "UnsupportedTransferCoding": HTTPStatus.NOT_IMPLEMENTED,
}


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
    """A server of gunicorn's options and of what makes the application in each worker."""

    def __init__(self, options: dict[str, object], load: Callable[[], Flask]) -> None:
        # No process but the first has the writing end: when it dies, the other one is at its end.
        Worker.life, Worker.first = os.pipe()
        self._options, self.load = options, load
        super().__init__()

    def load_config(self) -> None:
        """Take the options that this version of gunicorn knows."""
        ours = {"worker_class": Worker, "logger_class": Log}
        for key, value in {**self._options, **ours}.items():
            if key in self.cfg.settings:
                self.cfg.set(key, value)

    def run(self) -> None:
        """Serve until a signal ends it."""
        gc.freeze()  # all of it stays, and each worker would look through it, and so copy it
        end_new_processes_by_sigterm()
        super().run()


def end_new_processes_by_sigterm() -> None:
    """Let SIGTERM end each process forked from now on, until it has a handler of its own.

    With the handler of its parent it would note the signal and go on: gunicorn sends it once, and
    then waits for the worker until the drain is over.
    """
    held = {signal.SIGTERM}

    def let_through() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)

    def forget() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        let_through()

    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, held),
        after_in_parent=let_through,
        after_in_child=forget,
    )


class Log(glogging.Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's log, which goes where all else goes that is logged in this process."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401
        """Take the level alone."""
        super().setup(cfg)
        self.error_log.handlers, self.error_log.propagate = [], True


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """A worker that no client can stop, and that keeps no port when it ends."""

    life: int
    first: int

    def init_process(self) -> None:
        """Start and work; gunicorn would print an error beside the log."""
        try:
            super().init_process()
        except Exception:
            self.log.exception("a worker ends by an error")
            sys.exit(1 if self.booted else Arbiter.WORKER_BOOT_ERROR)

    def run(self) -> None:
        """Work until a signal comes or the first process is gone; then finish what is in hand."""
        os.close(self.first)
        self.poller.register(self.life, selectors.EVENT_READ, self._end)
        super().run()

    def _end(self, _: int) -> None:
        self.poller.unregister(self.life)
        self.alive = False

    def is_parent_alive(self) -> bool:
        """Tell whether to go on: an end that is seen here first, not at `life`, is an end too."""
        self.alive = self.alive and super().is_parent_alive()
        return self.alive

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's
        """At the end take whoever is connected already; the next one is refused at once."""
        super().set_accept_enabled(enabled)
        for listener in () if self.alive else self.sockets:
            while self.nr_conns < self.worker_connections and _is_waited_for(listener):
                self.accept(listener)
            listener.close()

    def handle(self, conn: Any) -> Any:  # noqa: ANN401
        """Answer a request, in a thread of the pool."""
        if not isinstance(conn.sock, Client):
            conn.sock = Client(fileno=conn.sock.detach())
            if hasattr(conn, "wait_for_data"):  # else gunicorn waits without a thread by itself
                conn.wait_for_data = lambda _: type(conn).wait_for_data(conn, FIRST_WAIT_SECONDS)
            # gunicorn closes in the one thread that accepts, and waits there for the client's end,
            # for seconds: a few clients that are in no hurry would stop the server.
            conn.close = partial(self.tpool.submit, conn.close)
        conn.sock.patience = SILENCE_SECONDS
        return super().handle(conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Any) -> None:  # noqa: ANN401
        """Refuse what is not HTTP. What was sent may be a token or a body: no log has it."""
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        kind = type(exc).__name__
        self.log.warning("%s sent what is not HTTP: %s", addr[0], kind)
        status = STATUSES.get(kind, HTTPStatus.BAD_REQUEST)
        with suppress(OSError):  # it has left
            util.write_error(client, status, status.phrase, kind)


def _is_waited_for(listener: Any) -> bool:  # noqa: ANN401
    return bool(select.select([listener], [], [], 0)[0])


class Client(socket.socket):
    """A client's socket: it may keep its thread waiting for SILENCE_SECONDS in a request.

    Every 16 KiB that it takes or sends is worth one second more. Who uses that up is cut off.
    """

    patience: float = SILENCE_SECONDS

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive, as a socket does; ConnectionResetError: patience is at its end."""
        return self._wait(lambda: super(Client, self).recv(size, flags), len)

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Send, as a socket does; ConnectionResetError: patience is at its end."""
        return self._wait(lambda: super(Client, self).send(data, flags), int)

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """Send all, as a socket does; ConnectionResetError: patience is at its end."""
        left = memoryview(data)
        while left:
            left = left[self.send(left, flags) :]

    def _wait(self, move: Callable[[], T], count: Callable[[T], int]) -> T:
        if (
            self.gettimeout() is not None
        ):  # another limit holds: while one closes, or waits for none
            return move()
        began = time.monotonic()
        self.settimeout(max(self.patience, 0.001))
        try:
            moved = move()
        except TimeoutError:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError(errno.ECONNRESET, "a client kept us waiting") from None
        self.settimeout(None)
        gained = count(moved) / BYTES_PER_SECOND + began - time.monotonic()
        self.patience = min(self.patience + gained, SILENCE_SECONDS)
        return moved
