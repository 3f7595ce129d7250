"""The how-to that moves organizations is done on two real databases, while calls come in."""

from __future__ import annotations

import io
import runpy
import subprocess
import sys
import threading
import time
from contextlib import redirect_stdout
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.commands import as_text, run  # noqa: F401 - a fixture
from tests.docs.support import ROOT, read_blocks
from tests.spend.test_closing import close, fill
from tests.spend.test_hold_life import Clock
from tests.spend.test_store import ONE, Spender
from tests.support import TABLES, World

from govbudget import Databases
from govbudget.budgets.store import Budgets
from govbudget.db.gov import Gov
from govbudget.db.retries import explain_outage
from govbudget.new_ids import find_slot, read_slot
from govbudget.spend.overrides import Overrides
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import Call

PAGE = ROOT / "docs" / "how-to" / "move-organizations.md"
OF_ORGANIZATION = {
    "organizations": TABLES.organizations.c.id,
    "group_ai_budgets": TABLES.group_ai_budgets.c.group_id,
    **{
        name: getattr(TABLES, name).c.organization_id
        for name in (
            *("groups", "organization_members", "group_members", "role_assignments", "audit_log"),
            *("member_ai_overrides", "ai_holds", "ai_usage", "ai_spend_counters"),
            *("ai_spend_rollups", "ai_notices", "ai_refusals"),
        )
    },
}


class Writer(threading.Thread):
    """Records a call after the other, each until it is recorded; notes how often it was refused."""

    def __init__(self, spender, organization, user):
        super().__init__(daemon=True)
        self.spender, self.call = spender, Call(organization, user, "acme", spender.model)
        self.is_over, self.recorded, self.refusals, self.others = threading.Event(), [], 0, []

    def run(self):
        while not self.is_over.is_set():
            event = f"while it moves {len(self.recorded)}"
            try:
                self.spender.act("record", self.call.organization_id, event, self.call, ONE)
                self.recorded.append(event)
            except Exception as error:  # noqa: BLE001 - looked at by the test
                refusal = explain_outage(error)
                self.refusals += refusal is not None and refusal.code == "unavailable"
                self.others += [] if refusal else [error]
            time.sleep(0.005)

    def stop(self):
        self.is_over.set()
        self.join(20)
        assert self.others == []


class Mover(Spender):
    """A world in the old database, all of whose organization `a` moves to the new one."""

    def __init__(self, old, new):
        self.clock = Clock()
        world = World(old)
        while len({find_slot(world.a), find_slot(world.b), 0}) < 3:
            world = World(old)
        super().__init__(world, clock=self.clock)
        self.old, self.new, self.slot = old, new, find_slot(world.a)
        self.find_engine = lambda _: old
        found = self.gov
        self.gov = Gov(
            found.settings, found.policy, found.directory, self.find, lambda: self.clock.now
        )

    def find(self, organization):
        return self.find_engine(organization)

    def switch(self):
        slot = self.slot
        others = f"0-{slot - 1},{slot + 1}-4095" if slot < 4095 else f"0-{slot - 1}"
        self.find_engine = Databases({str(slot): self.new, others: self.old})

    def act(self, act, organization, *arguments, **options):
        with self.gov.unit(self.world.nobody, organization=organization) as unit:
            grant = unit.authorize("create", ledger=True)
            return getattr(Spend, act)(grant, *arguments, **options)

    def read_all(self, engine):
        """All rows of the organization, by table."""
        keys = (self.world.a, self.world.a1, self.world.a2)
        with engine.connect() as connection:
            return {
                name: sorted(
                    map(repr, connection.execute(sa.select(column.table).where(column.in_(keys))))
                )
                for name, column in OF_ORGANIZATION.items()
            }

    def read_new(self, table, *columns):
        world, world.engine = self.world, self.new
        try:
            return self.read(table, *columns)
        finally:
            world.engine = self.old

    def prepare(self, path):
        """Spend in January, which is closed, and now: open, expired and own holds, and the rest."""
        world = self.world
        self.limit(world.a1, 90)
        fill(self)
        close(self, path)
        self.clock.now = datetime.now(UTC)
        refused = {"organization_id": world.a, "user_id": world.member, "code": "unpriced-model"}
        refused |= {"day": self.clock.now.date(), "calls": 2, "provider": "acme", "model": "new"}
        with self.old.begin() as connection:
            connection.execute(sa.insert(TABLES.ai_refusals), refused)
        with self.gov.unit(world.org_admin) as unit:
            Budgets.set(unit.authorize("update", group=world.a1), 10 * 10**6)
            grant = unit.authorize("update", organization=world.a)
            Overrides.set(grant, world.joined, world.a, 10**6, reason="on trial")
        self("hold", self.call, ONE, ttl_seconds=60)
        self.clock.pass_by(120)
        self.held = self("hold", self.call, ONE, ttl_seconds=3600).id
        self.own = uuid4()
        self("hold", self.call, ONE, ttl_seconds=3600, hold_id=self.own)
        self("record", "now", self.call, Tokens(input=6))
        self("settle", self("hold", self.call, ONE).id, "settled", ONE)
        with self.gov.unit(world.owner) as unit:
            grant = unit.authorize("update", ledger=True)
            Spend.correct(grant, "c2", world.a, "now", Tokens(input=8), reason="it was more")
        self("record", "beside", Call(world.b, world.outsider, "acme", self.model), ONE)


@pytest.fixture
def mover(make_database, template, tmp_path):
    old, new = (sa.create_engine(make_database(template=template)) for _ in range(2))
    mover = Mover(old, new)
    mover.prepare(tmp_path / "january")
    yield mover
    old.dispose()
    new.dispose()


def run_here(script, *words):
    """Run the script in this process; give its status, and what it printed."""
    said, ended = io.StringIO(), None
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(sys, "argv", [str(script), *words])
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as error:
            ended = error.code
    return SimpleNamespace(
        returncode=int(ended is not None), stdout=said.getvalue(), stderr=ended or ""
    )


def run_apart(script, *words):
    """Run the script in a process of its own, as the page has it."""
    command = [sys.executable, script, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def run_script():
    return run_here


@pytest.fixture
def move(mover, run_script, tmp_path):
    """Run an action of the page's script."""
    script = tmp_path / "move_slots.py"
    (code,) = read_blocks(PAGE, "python")
    script.write_text(code)
    old, new = (as_text(engine.url) for engine in (mover.old, mover.new))

    def move(action, *, first=None, is_back=False, to_itself=False):
        urls = (old, old) if to_itself else (new, old) if is_back else (old, new)
        done = run_script(script, action, *urls, str(mover.slot if first is None else first))
        # The server may take a moment to notice that a process is gone, whose lock it still has.
        for engine in (mover.old, mover.new):
            with engine.begin() as connection:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(2048)")
        return done

    return move


def wait_for(is_so):
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.05)
    pytest.fail("it did not become so")


@pytest.fixture
def verify(mover, run):  # noqa: F811 - the fixture
    """Prove sums and schema of both databases, each by itself."""

    def verify():
        for engine in (mover.old, mover.new):
            url = as_text(engine.url)
            for words in (("spend", "verify"), ("directory", "check")):
                result = run(*words, database_url=url)
                assert (result.status, result.err) == (0, ""), result.out

    return verify


def test_the_script_knows_every_table():
    """What has an organization moves with it; all else is in every database."""
    script = {"__name__": "move_slots"}
    exec(read_blocks(PAGE, "python")[0], script)
    known = {*script["OF_ORGANIZATIONS"], *script["OF_SITE"]}
    assert known == {table.name for table in TABLES.metadata.sorted_tables}
    assert script["OF_ORGANIZATIONS"].keys() == OF_ORGANIZATION.keys()


def succeed(done):
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize("run_script", [run_apart], ids=["as a process"])
def test_an_organization_is_moved_with_all_that_it_has_while_calls_come_in(
    mover,
    move,
    verify,
    run,  # noqa: F811 - the fixture
):
    """What a caller was told to be recorded is, once; other organizations notice nothing."""
    world = mover.world
    writer = Writer(mover, world.a, world.joined)
    beside = Writer(mover, world.b, world.outsider)
    with mover.gov.unit(world.org_admin) as unit:
        Overrides.delete(unit.authorize("update", organization=world.a), world.joined)
        grant = unit.authorize("update", organization=world.a)
        Overrides.set(grant, world.joined, world.a, 10**10, reason="on trial")
    succeed(move("fill", first=0))
    writer.start()
    beside.start()
    wait_for(lambda: writer.recorded and beside.recorded)
    refused = move("copy")
    assert (refused.returncode, "run `shut`" in refused.stderr) == (1, True)
    succeed(move("shut"))
    wait_for(lambda: writer.refusals)
    shut = mover.read_all(mover.old)
    assert all(shut.values())
    said = succeed(move("copy"))
    assert f"ai_usage: {len(shut['ai_usage'])} rows" in said
    assert mover.read_all(mover.new) == mover.read_all(mover.old) == shut
    verify()
    again = move("copy")
    assert (again.returncode, "has rows of these slots" in again.stderr) == (1, True)
    count = len(writer.recorded)
    mover.switch()
    wait_for(lambda: len(writer.recorded) > count)
    succeed(move("empty"))
    succeed(move("open"))
    writer.stop()
    beside.stop()
    assert beside.refusals == 0
    assert not any(mover.read_all(mover.old).values())
    verify()
    for engine in (mover.old, mover.new):
        assert run("db", "check", database_url=as_text(engine.url)).status == 0
    events = [row.event_id for row in mover.read_new("ai_usage", "event_id")]
    assert sorted(event for event in events if event.startswith("while")) == sorted(writer.recorded)
    place = read_slot(mover.held)
    usage = mover.act("settle", place, mover.held, "after", ONE)
    assert usage.cost_picos == 10**12
    assert mover.act("release", world.a, mover.own) is None
    assert mover.act("record", world.a, "now", mover.call, Tokens(input=6))[1] is False
    then = datetime(2026, 1, 20, tzinfo=UTC)
    late, _ = mover.act("record", world.a, "late", mover.call, ONE, occurred_at=then)
    assert late.cost_picos == 10**12
    assert [row for row in mover.read_new("ai_usage", "event_id", "late_for") if row.late_for]
    verify()


@pytest.mark.long
def test_a_move_is_taken_back_before_the_map_is_switched(mover, move, verify):
    before = mover.read_all(mover.old)
    for words in ("fill", "shut", "copy"):
        succeed(move(words))
    succeed(move("empty", is_back=True))
    succeed(move("open"))
    assert not any(mover.read_all(mover.new).values())
    assert mover.read_all(mover.old) == before
    mover("record", "again", mover.call, ONE)
    verify()


@pytest.mark.long
def test_a_copy_that_differs_or_can_lose_something_is_not_made(mover, move):
    succeed(move("fill"))
    succeed(move("shut"))
    with mover.new.begin() as connection:
        connection.execute(sa.update(TABLES.ai_model_prices).values(input_price=7))
    refused = move("copy")
    assert (refused.returncode, "ai_model_prices differs" in refused.stderr) == (1, True)
    empty = move("empty")
    assert (empty.returncode, "nothing was deleted" in empty.stderr) == (1, True)
    assert not any(mover.read_all(mover.new).values())
    assert all(mover.read_all(mover.old).values())
    filled = move("fill")
    assert filled.returncode == 0
    assert "ai_model_prices" in succeed(move("copy"))


@pytest.mark.long
def test_no_slip_in_a_move_loses_a_row(
    mover,
    move,
    verify,
    tmp_path,
    run,  # noqa: F811 - the fixture
):
    """Steps that are left out, done twice or in another order, other slots, one database twice."""
    beside = str(mover.slot - 1 if mover.slot else 1)

    def refuse(sentence, *words, **options):
        refused = move(*words, **options)
        assert (refused.returncode, sentence in refused.stderr) == (1, True), refused.stderr

    succeed(move("fill"))
    succeed(move("shut"))
    before = mover.read_all(mover.old)
    for action in ("shut", "copy", "empty", "open"):
        refuse("other slots are shut", action, first=beside)
    for action in ("fill", "shut", "copy", "empty", "open"):
        refuse("of one database", action, to_itself=True)
    succeed(move("open"))
    refuse("run `shut`", "copy")
    succeed(move("shut"))
    succeed(move("shut"))
    succeed(move("copy"))
    refuse("has rows of these slots", "copy")
    refuse("run `empty` first", "open")
    month = ("spend", "close", "2026-02", "--to", tmp_path / "february")
    closed = run(*month, database_url=as_text(mover.old.url))
    assert (closed.status, "moves this organization" in closed.sentence) == (2, True)
    assert mover.read_all(mover.old) == mover.read_all(mover.new) == before
    succeed(move("empty", is_back=True))
    succeed(move("open"))
    refuse("shut in neither database", "empty")
    assert mover.read_all(mover.old) == before
    for action in ("shut", "copy", "empty", "empty", "open"):
        succeed(move(action))
    assert mover.read_all(mover.new) == before
    assert not any(mover.read_all(mover.old).values())
    (tmp_path / "february").unlink(missing_ok=True)
    assert run(*month, database_url=as_text(mover.old.url)).status == 0
    verify()
