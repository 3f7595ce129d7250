"""`govbudget serve` as a process, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.server.forks import Forked

TIMEOUT = 20


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def json(self):
        return json.loads(self.content)


@contextmanager
def open_folder():
    """A fresh folder that every user may enter, as root's PostgreSQL must and pytest's are not."""
    path = Path(tempfile.mkdtemp(prefix="govbudget-test-"))
    path.chmod(0o1777)  # as the system's own: only the owner of a file may take it away
    try:
        yield path
    finally:
        shutil.rmtree(path)


def environment(**variables):
    """This environment, with no GOVBUDGET_* variables but the given."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("GOVBUDGET_")}
    return ours | {f"GOVBUDGET_{key.upper()}": str(value) for key, value in variables.items()}


class Server:
    """A running server: its address, the lines it logs, what it says on stderr."""

    def __init__(self, process):
        self.process = process
        self.lines, self.said = queue.Queue(), []
        self.raw = []
        listening = threading.Event()

        def read_out():
            for line in process.stdout:
                self.raw.append(line)
                self.lines.put(json.loads(line))

        def read_err():
            for line in process.stderr:
                self.said.append(line.rstrip("\n"))
                if line.startswith("listening on "):
                    self.port = int(line.rpartition(":")[2])
                    listening.set()

        self.readers = [threading.Thread(target=read, daemon=True) for read in (read_out, read_err)]
        for reader in self.readers:
            reader.start()
        assert listening.wait(3 * TIMEOUT), self.said

    def __call__(self, method, path, token=None, body=None, **headers):
        """Send a request and give its answer."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None:
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        return self.send(method, path, body, sent)

    def send(self, method, path, body, sent):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def find_line(self, answer):
        """The log line of a request."""
        wanted = answer.headers["X-Request-Id"]
        while True:
            line = self.lines.get(timeout=TIMEOUT)
            if line.get("request_id") == wanted:
                return line

    def stop(self, number=signal.SIGTERM):
        """Send a signal, wait for the end, and give the exit status."""
        self.process.send_signal(number)
        return self.await_end()

    def await_end(self):
        status = self.process.wait(TIMEOUT)
        for reader in self.readers:
            reader.join(TIMEOUT)
        return status


def start_freshly(arguments, variables):
    """Start the command in a Python of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "govbudget", *arguments],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextmanager
def serving(*arguments, start=Forked, **variables):
    """Run `govbudget serve` on a free port for the length of the block."""
    process = start(["serve", "--port", "0", *map(str, arguments)], environment(**variables))
    readers = []
    try:
        server = Server(process)
        readers += server.readers
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(TIMEOUT)
        for reader in readers:  # workers of a killed one may still write
            reader.join(TIMEOUT)
        process.stdout.close()
        process.stderr.close()
