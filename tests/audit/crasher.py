"""Changes things and is killed at it, again and again; run as a process of its own.

    python -m tests.audit.crasher

Each line of standard input is a plan in JSON, with a `url`, a `scenario` and what that needs. It
forks a child for each, and that one for each life, so that importing all of govbudget is paid once.
What was done by the answer it got, a life writes to standard output, one request id a line. Then
follow how many lives there were, and how the child ended.
"""

from __future__ import annotations

import functools
import io
import json
import os
import random
import signal
import sys
import threading
import time
from uuid import UUID, uuid4

import sqlalchemy as sa
from flask import Flask, request
from tests.forking import fork, fork_for_each_line

from govbudget import GovBudget, Policy
from govbudget.authz import evaluator
from govbudget.budgets.store import Budgets
from govbudget.cli import (
    database,  # noqa: F401 - imported once, before the children that need it
    main,
)
from govbudget.prices.price import Price
from govbudget.prices.store import Prices

APPLICATION_NAME = "crasher"


def connect(url):
    arguments = {"application_name": APPLICATION_NAME}
    return sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments)


@functools.cache
def make_app(url):
    app = Flask(__name__)
    GovBudget(app, engine=connect(url), identify=lambda: request.headers["X-User"])
    return app


def make_client(url):
    return make_app(url).test_client()


def choose_price():
    """Choose a price that is probably new, and no jump from another: less than a factor of 20."""
    return random.randint(10**11, 10**12)


def change(client, plan, dice):
    """Send one change over HTTP; give its request id and status."""
    request_id = uuid4().hex
    headers = {"X-User": plan["owner"], "X-Request-Id": request_id}
    kind = dice.random()
    if kind < 0.2:
        row = {"provider": "acme", "model": dice.choice(plan["models"])}
        row |= {"input_price": choose_price(), "output_price": None}
        row |= {"cache_read_price": None, "cache_write_price": None}
        response = client.put("/api/v2/ai/prices", json=[row], headers=headers)
    else:
        path = f"/api/v2/groups/{dice.choice(plan['groups'])}/ai/budget"
        if kind < 0.5:
            response = client.delete(path, headers=headers)
        else:
            body = {"spend_limit_micros": dice.randrange(100)}
            response = client.put(path, json=body, headers=headers)
    return request_id, response.status_code


def say(line):
    os.write(1, f"{line}\n".encode())


# -- scenarios: each can start from whatever the one before left --


def over_http(url, plan, arm):
    """Put and delete budgets, and put a price."""
    client = make_client(url)
    arm()
    for seed in range(6):
        request_id, status = change(client, plan, random.Random(seed))
        if status in {200, 204}:
            say(request_id)


def in_one_transaction(url, plan, arm):
    """Change two budgets and a price in one transaction of a host."""
    gov = make_app(url).extensions["govbudget"]
    arm()
    with (
        connect(url).begin() as connection,
        gov.unit(UUID(plan["owner"]), connection=connection) as unit,
    ):
        for group_id in plan["groups"][:2]:
            group = unit.authorize("update", group=UUID(group_id))
            Budgets.set(group, 1)
            Budgets.set(group, 2)
        Budgets.delete(group)
        prices = unit.authorize("update", prices=True)
        row = Price(
            provider="acme",
            model=plan["models"][0],
            input_price=choose_price(),
            output_price=None,
            cache_read_price=None,
            cache_write_price=None,
        )
        Prices.upsert(prices, [row])


def by_command(url, plan, arm):
    """Load a directory and take it away again, then make a token and revoke it."""
    os.environ["GOVBUDGET_DATABASE_URL"] = url
    sys.stdout = io.StringIO()
    full, empty = (json.dumps(plan[name]).encode() for name in ("full", "empty"))
    run("directory", "load", "-", stdin=empty)
    arm()
    for content in (full, empty):
        run("directory", "load", "-", stdin=content)
    run("token", "create", plan["owner"])
    run("token", "list")
    token = sys.stdout.getvalue().splitlines()[-1].split()[0]
    run("token", "revoke", token)


def run(*arguments, stdin=b""):
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    status = None
    try:
        main(list(arguments))
    except SystemExit as ended:
        status = ended.code
    assert status == 0, arguments


# -- lives --


def kill_at(point):
    """Kill this process at the nth moment before a statement or a commit.

    After a statement is before the next one, or before the commit.
    """
    moments = 0

    def pass_moment(*_):
        nonlocal moments
        moments += 1
        if moments == point:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "commit"):
        sa.event.listen(sa.Engine, name, pass_moment)


def live(life):
    """Run a life in a child; give the signal that ended it, or 0 where it ended by itself."""
    _, status = os.waitpid(fork(life), 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a life failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def die_at_every_moment(url, plan):
    scenario = {"http": over_http, "transaction": in_one_transaction, "command": by_command}
    point = 1
    while True:

        def life(point=point):
            scenario[plan["scenario"]](url, plan, lambda: kill_at(point))

        if live(life) == 0:
            return point
        point += 1


def die_under_load(url, plan):
    """Let threads change things until the process is killed, some time after the first answer."""

    def life():
        is_answered = threading.Event()

        def work():
            client, dice = make_client(url), random.Random()
            while True:
                request_id, status = change(client, plan, dice)
                if status in {200, 204}:
                    say(request_id)
                    is_answered.set()

        threads = [threading.Thread(target=work) for _ in range(plan["threads"])]
        for thread in threads:
            thread.start()
        is_answered.wait()
        time.sleep(random.uniform(0, 0.2))
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(plan["lives"]):
        assert live(life) == signal.SIGKILL
    return plan["lives"]


def crash(line):
    plan = json.loads(line)
    make_app(plan["url"])  # once: no connection is open yet, so that lives share none
    act = die_under_load if plan["scenario"] == "load" else die_at_every_moment
    say(f"lives: {act(plan['url'], plan)}")


def main_of_crasher():
    # Casbin was asked about the packaged policy now; each command of each life would ask anew.
    table = Policy.load().table
    evaluator.build_table = lambda *_, **_options: table
    fork_for_each_line(crash)


if __name__ == "__main__":
    main_of_crasher()
