"""Hosts as servers, each in a process of its own; what they answer, byte for byte."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent
PATIENCE_SECONDS = 30
ADDRESS = re.compile(rb"Running on http://127\.0\.0\.1:(\d+)")
# What differs from one answer to the next by nature: the clock, what is made of it or by chance.
NEVER_THE_SAME = (
    (re.compile(rb"\r\nDate: [^\r]*"), b"\r\nDate: -"),
    (re.compile(rb"(\r\nSet-Cookie: session=)[^;\r]*"), rb"\1-"),
    (re.compile(rb'(name="csrf_token" value=")[^"]*'), rb"\1-"),
)


def flask(*arguments):
    return [sys.executable, "-m", "flask", *arguments]


def environment(**settings):
    """Give the environment of a host; the order of an `Allow` header is that of a set."""
    return os.environ | {"PYTHONHASHSEED": "0", **settings}


def run_flask(*arguments, cwd=HERE, **settings):
    """Run a command of a host to its end; give what it printed."""
    done = subprocess.run(
        flask(*arguments),
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serve(folder, *hosts, cwd=HERE):
    """Start hosts at once, each given as its `--app` and its settings; give their ports.

    Their logs go into `folder`; their code is looked for in `cwd`.
    """
    started = []
    try:
        for number, (app, settings) in enumerate(hosts):
            log = folder / f"{number}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    flask("--app", app, "run", "--port", "0"),
                    cwd=cwd,
                    env=environment(**settings),
                    stdout=output,
                    stderr=output,
                )
            started.append(SimpleNamespace(process=process, log=log))
        yield [wait_for_port(server) for server in started]
    finally:
        for server in started:
            server.process.terminate()
        for server in started:
            server.process.wait(PATIENCE_SECONDS)


def wait_for_port(server):
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and server.process.poll() is None:
        if found := ADDRESS.search(server.log.read_bytes()):
            return int(found[1])
        time.sleep(0.05)
    return pytest.fail(server.log.read_text())


def ask(port, method, path, headers=None, body=b""):
    """Send a request as it is written, and give the answer as it came."""
    lines = {"Host": "the.host", "Connection": "close", **(headers or {})}
    if body:
        lines["Content-Length"] = str(len(body))
        lines.setdefault("Content-Type", "application/x-www-form-urlencoded")
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def mask(answer):
    """Blot out what is never the same twice."""
    for pattern, blot in NEVER_THE_SAME:
        answer = pattern.sub(blot, answer)
    return answer


def split(answer):
    """Give an answer's status, headers (by lower-case name) and body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    names = {name.lower(): value for name, value in headers.items()}
    return SimpleNamespace(status=int(first.split()[1]), headers=names, body=body)


def read_cookie(answer):
    """Give the session cookie that an answer sets."""
    return re.search(rb"Set-Cookie: (session=[^;]*)", answer)[1].decode()
