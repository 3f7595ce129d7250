"""`govbudget demo`: a process of its own that leaves nothing behind, however it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from tests.cli.server import environment, open_folder

from govbudget.authz.files import packaged_policy_dir

TIMEOUT = 60
CHECKOUT = Path(__file__).parents[2]


@contextmanager
def touring(*arguments, **variables):
    """Run the demo with a temporary directory of its own; at the end nothing may be left of it."""
    with open_folder() as temporary:
        process = subprocess.Popen(
            [sys.executable, "-m", "govbudget", "demo", *arguments],
            env=environment() | {"TMPDIR": str(temporary)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(TIMEOUT)
            process.stdout.close()
            process.stderr.close()
        assert list(temporary.iterdir()) == []
        assert processes_that_name(temporary) == []


def processes_that_name(folder):
    return [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in part for part in process.info["cmdline"] or ())
    ]


def read_until(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError("\n".join(lines) + process.stderr.read())


@pytest.fixture(scope="module")
def tour():
    """The lines of a whole tour, run with settings in the environment that must not matter."""
    settings = {
        "GOVBUDGET_POLICY_DIR": "/nowhere",
        "GOVBUDGET_FEATURES": "",
        "GOVBUDGET_DATABASE_URL": "postgresql://127.0.0.1:1/nothing",
        "GOVBUDGET_NONSENSE": "1",
    }
    with touring(**settings) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


def test_the_tour_ends_by_itself_with_status_0_and_nothing_on_stderr(tour):
    assert tour[0].startswith("starting PostgreSQL")
    assert tour[-1] == "every answer was as policy/matrix.csv says"


def test_the_tour_fits_a_terminal_of_100_columns_and_its_answers_stand_in_one_column(tour):
    start = tour.index("Olivia, owner of the site")
    assert [line for line in tour[start:] if len(line) > 100] == []
    answers = [line for line in tour if line.startswith(("  PUT", "  GET", "  DELETE"))]
    assert len(answers) > 20
    assert all(re.fullmatch(r"\d{3}  \S.*", line[31:]) for line in answers)


def test_the_tour_shows_the_deciding_lines_and_what_a_denial_takes(tour):
    said = "\n".join(tour)
    policy = (packaged_policy_dir() / "policy.csv").read_text().splitlines()
    number = {line: f"policy.csv:{i}" for i, line in enumerate(policy, start=1)}
    owner = number["p, owner, site, group, update, allow"]
    admin = number["p, org-admin, organization, group, update, allow"]
    assert f"200  allowed by {owner}\n" in said
    assert f"403  denied: takes owner ({owner}), org-admin ({admin})" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="says it to root only")
def test_as_root_one_line_says_what_that_means(tour):
    assert [line for line in tour if "as root" in line and "pgserver" in line] == [tour[1]]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_curl_lines_that_work_and_ends_well_when_told(number):
    with touring("--serve") as process:
        lines = read_until(process, "serving until Ctrl-C")
        curls = [shlex.split(line) for line in lines if line.startswith("  curl ")]
        assert [send(curl) for curl in curls] == [200, 200, 403]
        shown = [process.stdout.readline() for _ in curls]
        assert [line.split()[0] for line in shown] == ["200", "200", "403"]
        os.killpg(process.pid, number)  # as a terminal does
        assert process.wait(TIMEOUT) == 0


def send(curl):
    """Send the request of a curl line and give the status."""
    options, url = curl[2:-1], urlsplit(curl[-1])
    given = {"-X": "GET", "-d": None, "-H": {}}
    for name, value in zip(options[::2], options[1::2], strict=True):
        if name == "-H":
            given["-H"].update([value.split(": ", 1)])
        else:
            given[name] = value
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    connection.request(given["-X"], url.path, given["-d"], given["-H"])
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.long
@pytest.mark.parametrize(
    ("moment", "delay"),
    [("starting", 0), ("starting", 0.4), ("starting", 0.9), ("migrating", 0), ("Adam", 0)],
)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_leaves_nothing_behind(moment, delay, number, status):
    with touring() as process:
        read_until(process, moment)
        time.sleep(delay)
        os.killpg(process.pid, number)
        assert process.wait(TIMEOUT) == status
        assert "Traceback" not in process.stderr.read()


@pytest.mark.long
def test_an_answer_that_differs_is_shown_and_is_status_1(tmp_path):
    checkout = tmp_path
    for name in ("src", "policy"):
        shutil.copytree(CHECKOUT / name, checkout / name)
    path = checkout / "src" / "govbudget" / "cli" / "demo.json"
    people = json.loads(path.read_text())
    (grace,) = [user["id"] for user in people["users"] if user["name"] == "Grace"]
    (acme,) = [entry["id"] for entry in people["organizations"] if entry["name"] == "Acme"]
    people["roles"].append({"user_id": grace, "role": "user-admin", "organization_id": acme})
    path.write_text(json.dumps(people))
    with touring(PYTHONPATH=str(checkout / "src")) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert (out.count("EXPECTED 403"), out.count("EXPECTED 204")) == (2, 1)
    assert "3 answers were not as policy/matrix.csv says" in err
