"""Gateways that make one member's calls until the money is gone; run as processes of their own.

    python -m tests.spend.gateways

Each line of standard input is a plan in JSON. It forks what forks `workers` processes, so that
importing is paid once, and prints how that ended. What a plan prints is in files `out` and `err` of
its `folder`.

Each process writes into the folder, before and after it settles, what and how; one that comes after
a killed one settles first what that one had begun. They end when the member has spent `full` picos,
or when there is a file `stop` in the folder, and print the SQLSTATEs that they met.

With `events` in the plan (each an act and its arguments) they do no more than to send all of these
at the same moments, and write down the answers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import sqlalchemy as sa
from tests.forking import fork, fork_for_each_line

from govbudget import Policy
from govbudget.db.gov import Gov
from govbudget.db.retries import explain_outage
from govbudget.db.tables import Tables
from govbudget.directory.sql import own_directory
from govbudget.errors import NotFound
from govbudget.layout import Layout
from govbudget.settings import Settings
from govbudget.spend.errors import BudgetExceeded, EventConflict, NotAMember
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import Call

PRICE = 7000  # picos a token
TOKENS = 1000  # of a call of an even plan


class Gateway:
    """One process: makes holds, settles, releases, abandons or loses them, by chance."""

    def __init__(self, plan, gov, number):
        self.plan, self.gov, self.dice = plan, gov, random.Random(plan["seed"] + number)
        self.call = Call(UUID(plan["organization"]), UUID(plan["user"]), "acme", plan["model"])
        self.folder = Path(plan["folder"])
        self.journal = self.folder / f"{number}.journal"

    def send(self, act, *arguments, **options):
        def work(unit):
            grant = unit.authorize("create", ledger=True)
            return getattr(Spend, act)(grant, *arguments, **options)

        while True:
            try:
                return self.gov.run(UUID(self.plan["gateway"]), work)
            except sa.exc.SQLAlchemyError as error:
                if not (self.plan["outages"] and explain_outage(error)):
                    raise
                time.sleep(0.05)

    def write(self, *words):
        line = " ".join(map(str, words)) + "\n"
        descriptor = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def settle(self, hold_id, event, tokens):
        self.write("settle", hold_id, event, tokens)
        usage = self.send("settle", hold_id, event, Tokens(input=tokens))
        self.write("done", event, usage.cost_picos)

    def run(self):
        for hold, event, tokens in read_unfinished(self.journal):
            self.settle(UUID(hold), event, int(tokens))
        room = 2 * TOKENS
        while not (self.folder / "stop").exists():
            most = TOKENS if self.plan["even"] else self.dice.randint(1, max(1, min(room, 2000)))
            is_lost = self.dice.random() < self.plan["abandon"]
            ttl = 1 if is_lost else 600
            try:
                hold = self.send("hold", self.call, Tokens(input=most), ttl_seconds=ttl)
            except BudgetExceeded as refused:
                if refused.spent_picos == self.plan["full"]:
                    return
                limit = refused.limit_micros * 10**6
                room = (limit - refused.spent_picos - refused.held_picos) // PRICE
                time.sleep(self.dice.uniform(0, 0.02 if room > 0 else 0.1))
                continue
            room = 2 * TOKENS
            if is_lost:
                continue
            if self.dice.random() < 0.2:
                self.send("release", hold.id)
                continue
            used = most if self.plan["even"] else self.dice.randint(0, most)
            self.settle(hold.id, uuid4().hex, used)

    def send_together(self, number, barrier):
        """Send each event when the others do; where it has several counts of tokens, the nth."""
        for act, hold_id, event, counts in self.plan["events"]:
            tokens = Tokens(input=counts[number % len(counts)])
            what = [UUID(hold_id), event] if act == "settle" else [event, self.call]
            barrier.wait()
            try:
                answer = self.send(act, *what, tokens)
            except EventConflict:
                answer = None
            usage = answer[0] if act == "record" and answer else answer
            is_new = bool(answer and answer[1]) if act == "record" else ""
            self.write(event, usage and usage.tokens.input, usage and usage.recorded_at, is_new)


def read_unfinished(journal):
    """Give what was begun to be settled and not seen done."""
    begun = {}
    for line in journal.read_text().splitlines() if journal.exists() else ():
        word, *rest = line.split()
        if word == "settle":
            begun[rest[1]] = rest
        else:
            begun.pop(rest[0])
    return list(begun.values())


def say_state(context):
    state = getattr(context.original_exception, "sqlstate", None)
    os.write(1, f"{state}\n".encode())


def kill_at_random(pids, life, kills, dice):
    """Kill some process at some moment, and let another one take its place, again and again."""
    for _ in range(kills):
        time.sleep(dice.uniform(0, 0.05))
        number = dice.choice(list(pids))
        os.kill(pids[number], signal.SIGKILL)
        _, status = os.waitpid(pids[number], 0)
        if not os.WIFSIGNALED(status):
            sys.exit("a gateway ended before it was killed")
        pids[number] = fork(life, number)


def open_gov(plan, policy, directory):
    """Open what all gateways of a plan work with; no connection is open yet, so they share none.

    Each act is sent once and refused, so that its statements are compiled once, and not by each.
    """
    engine = sa.create_engine(plan["url"], pool_size=1, max_overflow=0)
    settings = Settings(thresholds=tuple(plan["thresholds"]))
    gov = Gov(settings, policy, directory, lambda _: engine)
    unknown, one = uuid4(), Tokens(input=1)
    call = Call(UUID(plan["organization"]), unknown, "acme", plan["model"])
    for act, *arguments in (
        ("hold", call, one),
        ("settle", unknown, unknown.hex, one),
        ("release", unknown),
    ):

        def work(unit, act=act, arguments=arguments):
            getattr(Spend, act)(unit.authorize("create", ledger=True), *arguments)

        with suppress(NotAMember, NotFound):
            gov.run(UUID(plan["gateway"]), work)
    engine.dispose()
    sa.event.listen(engine, "handle_error", say_state)
    return gov


def run_plan(plan, gov):
    """Run the gateways of a plan to their end; give whether one of them failed."""
    barrier = multiprocessing.get_context("fork").Barrier(plan["workers"])

    def life(number):
        gateway = Gateway(plan, gov, number)
        if plan["events"]:
            gateway.send_together(number, barrier)
        else:
            gateway.run()

    pids = {number: fork(life, number) for number in range(plan["workers"])}
    if plan["kills"]:
        journals = Path(plan["folder"])
        while not any("done" in journal.read_text() for journal in journals.glob("*.journal")):
            time.sleep(0.01)
        kill_at_random(pids, life, plan["kills"], random.Random(plan["seed"]))
        (Path(plan["folder"]) / "stop").touch()
    ends = [os.waitpid(pid, 0)[1] for pid in pids.values()]
    return any(ends)


def main():
    policy, directory = Policy.load(), own_directory(Tables(Layout()))

    def life(line):
        plan = json.loads(line)
        for descriptor, name in ((1, "out"), (2, "err")):
            file = os.open(Path(plan["folder"]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.dup2(file, descriptor)
        os._exit(run_plan(plan, open_gov(plan, policy, directory)))

    fork_for_each_line(life)


if __name__ == "__main__":
    main()
