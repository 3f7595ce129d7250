"""What `govbudget serve` writes: for a person until it listens, then JSON lines alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.support import TIMEOUT, serving
from tests.server.test_serve import await_that, open_request, read_status

from govbudget.authz.files import packaged_policy_dir

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_every_line_from_start_to_stop_is_json(served_url, tmp_path):
    """Requests that fail, workers that die, hang and are replaced, a policy that is refused."""
    folder = shutil.copytree(packaged_policy_dir(), tmp_path / "policy")
    with serving("--workers", 2, database_url=served_url, policy_dir=folder) as server:

        def find_workers():
            pid = server.process.pid
            return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

        def end_a_worker(number):
            victim = min(find_workers())
            os.kill(victim, number)
            await_that(lambda: victim not in find_workers() and len(find_workers()) == 2)

        await_that(lambda: len(find_workers()) == 2)
        assert server("GET", "/healthz").status == 200
        assert server("GET", "/api/v2/ai/prices/a/b").status == 401
        assert read_status(open_request(server, "nonsense")) == 400
        assert read_status(open_request(server, "GET / HTTP/1.1", "A b: c")) == 400
        end_a_worker(signal.SIGKILL)
        end_a_worker(signal.SIGABRT)  # what gunicorn sends to one that hangs
        with (folder / "policy.csv").open("a") as file:
            file.write("p, nonsense\n")
        server.process.send_signal(signal.SIGHUP)
        await_that(lambda: any("SIGHUP: the policy stays" in line for line in server.raw))
        assert server("GET", "/healthz").status == 200
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.raw]
    assert all({"time", "level"} <= line.keys() for line in lines)
    said = {line["logger"]: line["message"] for line in lines if "logger" in line}
    assert {"govbudget", "gunicorn.error"} <= said.keys()
    assert any("SIGKILL" in line.get("message", "") for line in lines)
    assert server.said[-1].startswith("listening on ")


FAILING = """if True:
    import sys, threading, time, warnings
    from govbudget.server.app import log_as_json
    from govbudget.server.serve import OPTIONS
    from govbudget.server.workers import Server

    class Odd:
        def __del__(self):
            raise ValueError("ignored")

    log_as_json()
    warnings.warn("a warning")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    Odd()
    {last}
"""
TOLD = {"a warning", "division by zero", "ignored"}


@pytest.mark.parametrize(
    ("last", "status", "says"),
    [
        ("raise LookupError('at the start')", 1, "LookupError: at the start"),
        (
            "Server({**OPTIONS, 'bind': ['127.0.0.1:0']}, lambda: 1 / 0).run()",
            3,
            "Worker failed to boot",
        ),
    ],
    ids=["the first process", "a worker"],
)
def test_what_nobody_catches_is_in_the_log_with_its_traceback(last, status, says):
    """In the main thread, in another one, where Python ignores it, in a worker that can't start."""
    ran = subprocess.run(
        [sys.executable, "-c", FAILING.format(last=last)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert ran.returncode == status
    assert [line for line in ran.stderr.splitlines() if "listening on " not in line] == []
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    written = [line["message"] + line.get("exception", "") for line in lines]
    for text in (*TOLD, says):
        assert any(text in line for line in written), written
    assert any("ZeroDivisionError" in line.get("exception", "") for line in lines)
