"""`govbudget demo`: a process of its own that leaves nothing behind, however it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from tests.server.forks import Forked
from tests.server.support import environment, open_folder, start_freshly

from govbudget import Policy
from govbudget.authz.files import packaged_policy_dir
from govbudget.prices.price import read_shipped_prices
from govbudget.server.demo import MODEL, MOST, PROVIDER, TOOK
from govbudget.server.tour import explain

pytestmark = pytest.mark.slow

TIMEOUT = 60
CHECKOUT = Path(__file__).parents[2]


@contextmanager
def touring(*arguments, start=Forked, **variables):
    """Run the demo with a temporary directory of its own; at the end nothing may be left of it."""
    with open_folder() as temporary:
        settings = environment() | {"TMPDIR": str(temporary)} | variables
        process = start(["demo", *arguments], settings)
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


def find_line(text):
    """The name of a line of the packaged policy."""
    lines = (packaged_policy_dir() / "policy.csv").read_text().splitlines()
    return f"policy.csv:{lines.index(text) + 1}"


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
    with touring(start=start_freshly, **settings) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


def test_the_tour_ends_by_itself_with_status_0_and_nothing_on_stderr(tour):
    assert tour[0].startswith("starting PostgreSQL")
    assert tour[-1] == "every answer was as policy/matrix.csv and the limits say"


def test_the_tour_fits_a_terminal_of_100_columns_and_its_answers_stand_in_one_column(tour):
    start = tour.index("Olivia, owner of the site")
    assert [line for line in tour[start:] if len(line) > 100] == []
    answers = [line for line in tour if re.match("  (GET|PUT|POST|DELETE) ", line)]
    assert len(answers) > 40
    assert all(re.fullmatch(r"\d{3}  \S.*", line[31:]) for line in answers)


def test_the_tour_shows_the_deciding_lines_and_what_a_denial_takes(tour):
    said = "\n".join(tour)
    owner = find_line("p, owner, site, group, update, allow")
    admin = find_line("p, org-admin, organization, group, update, allow")
    assert f"200  allowed by {owner}; limit $25.00\n" in said
    assert f"403  denied: takes owner ({owner}), org-admin ({admin})" in said


def tell(tour):
    """The second act as one text: each step in one line, with one space between words."""
    act = tour[
        tour.index(
            "Gateway, a service of the site, which calls claude-sonnet-4-5 for the members"
        ) :
    ]
    return re.sub(r"\s*\n {36}", " ", "\n".join(act))


def test_two_members_spend_up_to_the_limit_and_the_refusal_says_why(tour):
    line = find_line("p, gateway, site, ai_usage, create, allow")
    allowed = f"allowed by {line}"
    month = datetime.now(UTC).replace(day=1) + timedelta(days=32)
    assert tell(tour).startswith(
        f"""\
Gateway, a service of the site, which calls claude-sonnet-4-5 for the members
  POST   hold for Grace        201  {allowed}; cost $0.45
  POST   settle it             200  {allowed}; cost $0.39
  POST   hold for Henry        201  {allowed}; cost $0.45
  POST   settle it             200  {allowed}; cost $0.39
  POST   hold for Grace        201  {allowed}; cost $0.45
  POST   hold for Grace        403  refused: budget-exceeded; limit $1.00, set by \
the group's budget, spent $0.39, held $0.45, cost $0.45, resets {month:%Y-%m}-01
  POST   settle it             200  {allowed}; cost $0.39

Uma, user-admin of Acme
  PUT    give Grace $5         200  allowed by \
{find_line("p, user-admin, organization, group, update, allow")}; limit $5.00

Gateway, a service of the site, which calls claude-sonnet-4-5 for the members
  POST   hold for Grace        201  {allowed}; cost $0.45
"""
    )


def test_the_prices_of_the_tour_are_the_seed_books():
    seed = json.loads(read_shipped_prices())
    (price,) = [row for row in seed if (row["provider"], row["model"]) == (PROVIDER, MODEL)]
    for tokens, micros in ((MOST, 450_000), (TOOK, 390_000)):
        cost = sum(count * price[f"{category}_price"] for category, count in tokens.items())
        assert cost == micros * 10**6


def test_each_sees_their_own_spend_and_no_member_sees_anothers(tour):
    said = tell(tour)
    own, admin = (
        find_line(f"p, {role}, ai_member_spend, read, allow")
        for role in ("self, user", "org-admin, organization")
    )
    assert f"see her spend         200  allowed by {own}; limit $5.00, set by an override," in said
    assert "see Grace's spend     404  denied: takes owner (policy.csv:" in said
    assert f"org-admin ({admin})" in said.split("see Grace's spend")[1]


def test_the_tour_ends_with_the_report_and_the_proof_of_the_ledger(tour):
    report = tour[next(i for i, line in enumerate(tour) if "$ govbudget spend report" in line) :]
    figures = [re.findall(r"\w+", line) for line in report[2:5]]
    assert figures == [
        ["Grace", "1170000", "3", "0"],
        ["Henry", "390000", "1", "0"],
        ["total", "1560000", "4", "0"],
    ]
    assert "  2 members, 4 calls: ledger = rollups = counters" in report
    assert "$ govbudget spend verify --organization" in "\n".join(report)


@pytest.mark.skipif(os.geteuid() != 0, reason="says it to root only")
def test_as_root_one_line_says_what_that_means(tour):
    assert [line for line in tour if "as root" in line and "pgserver" in line] == [tour[1]]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_curl_lines_that_work_and_ends_well_when_told(number):
    with touring("--serve") as process:
        lines = read_until(process, "serving until Ctrl-C")
        curls = [shlex.split(line) for line in lines if line.startswith("  curl ")]
        (link,) = re.findall(r"or look at it: (http://\S+/) ", "\n".join(lines))
        (token,) = re.findall(r"(gbt_\S+)  Grace", "\n".join(lines))
        assert [send(curl) for curl in curls] == [200, 200, 403]
        shown = [process.stdout.readline() for _ in curls]
        assert [line.split()[0] for line in shown] == ["200", "200", "403"]
        assert look(link, token) == [401, 303, 200]
        os.killpg(process.pid, number)  # as a terminal does
        assert process.wait(TIMEOUT) == 0


def look(link, token):
    """Open the pages, sign in and open them again; give the statuses."""
    connection, statuses = http.client.HTTPConnection(urlsplit(link).netloc, timeout=10), []
    form = {"Origin": link[:-1], "Content-Type": "application/x-www-form-urlencoded"}
    cookie = {}
    for method, path, body in (
        ("GET", "/", None),
        ("POST", "/sign-in", f"token={token}"),
        ("GET", "/", None),
    ):
        connection.request(method, path, body, {**(form if body else {}), **cookie})
        response = connection.getresponse()
        text = response.read().decode()
        if "Set-Cookie" in response.headers:
            cookie = {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}
        statuses.append(response.status)
    connection.close()
    assert "$1.17 of $5.00" in text
    return statuses


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
    ("moment", "delay", "number"),
    [
        ("starting", 0, signal.SIGTERM),
        ("starting", 0.4, signal.SIGINT),
        ("starting", 0.9, signal.SIGTERM),
        ("migrating", 0, signal.SIGINT),
        ("Adam", 0, signal.SIGTERM),
        ("Adam", 0, signal.SIGINT),
    ],
)
def test_a_signal_in_the_middle_leaves_nothing_behind(moment, delay, number):
    with touring() as process:
        read_until(process, moment)
        time.sleep(delay)
        os.killpg(process.pid, number)
        assert process.wait(TIMEOUT) == 128 + number
        assert "Traceback" not in process.stderr.read()


@contextmanager
def changed_tour(tmp_path, change):
    """Run the demo of a checkout whose `demo.json` was changed; give its result."""
    for name in ("src", "policy"):
        shutil.copytree(CHECKOUT / name, tmp_path / name)
    path = tmp_path / "src" / "govbudget" / "server" / "demo.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with touring(start=start_freshly, PYTHONPATH=str(tmp_path / "src")) as process:
        out, err = process.communicate(timeout=TIMEOUT)
        yield process.returncode, out, err


def find_id(content, kind, name):
    return next(entry["id"] for entry in content[kind] if entry["name"] == name)


@pytest.mark.long
def test_answers_and_figures_that_differ_are_shown_and_are_status_1(tmp_path):
    """Grace may too much. Henry spends for another group: his statuses are as planned."""

    def change(content):
        grace, henry, acme, research, support = (
            find_id(content, kind, name)
            for kind, name in (
                *(("users", "Grace"), ("users", "Henry"), ("organizations", "Acme")),
                *(("groups", "Research"), ("groups", "Support")),
            )
        )
        role = {"user_id": grace, "role": "user-admin", "organization_id": acme}
        content["roles"].append(role)
        (membership,) = [m for m in content["group_members"] if m["user_id"] == henry]
        assert membership["group_id"] == research
        membership["group_id"] = support

    with changed_tour(tmp_path, change) as (status, out, err):
        assert status == 1
        found = {n: out.count(f"EXPECTED {n}") for n in (200, 201, 204, 403, 404)}
        assert found == {200: 1, 201: 1, 204: 1, 403: 2, 404: 0}
        assert "5 answers were not as planned" in err


@pytest.mark.parametrize(
    ("status", "said"), [(200, "needs no decision"), (404, "refused before any decision")]
)
def test_a_request_without_a_decision_is_called_refused_only_where_it_was(status, said):
    assert explain({"status": status}, Policy.load(), {}) == said
