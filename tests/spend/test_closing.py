"""A month is closed: its rows go to a file that proves itself, and its sums stay."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.commands import as_text, run  # noqa: F401 - a fixture
from tests.spend.test_hold_life import DOLLAR, Clock
from tests.spend.test_store import ONE, Spender
from tests.support import TABLES, World, make_gov

from govbudget.errors import GovBudgetError, InvalidInput, NotFound
from govbudget.identity import OPERATOR
from govbudget.spend import closing
from govbudget.spend.closing import close_month, verify_closings
from govbudget.spend.closing_file import prove_file
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens
from govbudget.spend.verify import verify_spend

pytestmark = pytest.mark.slow

JANUARY, FEBRUARY = date(2026, 1, 1), date(2026, 2, 1)
FACTS = (("ai_holds", "id", "is_open", "ended"), ("ai_spend_counters", "period", "held_picos"))
IN_FEBRUARY, IN_APRIL = (datetime(2026, month, 20, 12, tzinfo=UTC) for month in (2, 4))


@pytest.fixture
def engine(emptied):
    """On a database without rows: a closed month is closed for everyone."""
    engine = sa.create_engine(emptied)
    yield engine
    engine.dispose()


@pytest.fixture
def spender(engine):
    """A member with calls in January: settled, recorded, corrected, unpriced, expired; it is April.

    Another one, in another organization, has one in February.
    """
    clock = Clock()
    spender = Spender(World(engine), clock=clock)
    spender.clock = clock
    spender.limit(spender.world.a1, 9)
    fill(spender)
    return spender


def fill(spender):
    world, call, clock = spender.world, spender.call, spender.clock
    spender.settled = spender("hold", call, Tokens(input=2)).id
    spender("settle", spender.settled, "e1", ONE)
    spender("record", "e2", call, ONE)
    spender("record", "e3", call.__class__(world.a, world.member, "acme", "unknown"), ONE)
    with spender.gov.unit(world.owner) as unit:
        grant = unit.authorize("update", ledger=True)
        Spend.correct(grant, "c1", world.a, "e2", Tokens(input=3), reason="it was more")
    spender.expired = spender("hold", call, ONE).id
    clock.now = IN_FEBRUARY
    spender("record", "f1", call, ONE)
    clock.now = IN_APRIL


def close(spender, path, month=JANUARY, days=60):
    return close_month(spender.gov, month, path, days)


def verify(spender, *files, connection=None):
    with spender.gov.unit(OPERATOR, connection=connection) as unit:
        found = verify_spend(unit.authorize("create", ledger=True)).findings
        grant = unit.authorize("update", ledger=True)
        found += verify_closings(grant)
        return found + [finding for file in files for finding in prove_file(grant, file)]


def read_all(spender):
    """What reports and limits are of."""
    world = spender.world
    with world.engine.connect() as connection:
        return [
            sorted(map(str, connection.execute(sa.select(getattr(TABLES, table)))))
            for table in ("ai_spend_rollups",)
        ] + [sorted(spender.read("ai_spend_counters", "period", "spent_picos"))]


def change(connection, sql):
    """Change what is stored, behind the back of what watches it."""
    connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
    assert connection.exec_driver_sql(sql).rowcount > 0


def change_for_good(spender, sql):
    with spender.world.engine.begin() as connection:
        change(connection, sql)


def test_its_rows_are_in_the_file_and_its_sums_stay(spender, tmp_path):
    sums, file = read_all(spender), tmp_path / "january"
    done = close(spender, file)
    assert (done.ai_usage, done.ai_holds) == (4, 2)
    assert read_all(spender) == sums
    assert [row.event_id for row in spender.read("ai_usage", "event_id")] == ["f1"]
    assert spender.read("ai_holds", "id") == []
    header, *lines = map(json.loads, file.read_text().splitlines())
    assert header["govbudget"]["month"] == "2026-01"
    assert header["govbudget"]["columns"]["ai_usage"] == TABLES.ai_usage.c.keys()
    events = {line["ai_usage"]["event_id"] for line in lines if "ai_usage" in line}
    assert events == {"e1", "e2", "e3", "c1"}
    assert {line["ai_holds"]["is_open"] for line in lines if "ai_holds" in line} == {False}
    assert verify(spender, file) == []
    assert close(spender, file) == done
    assert list(tmp_path.iterdir()) == [file]


def test_a_corrected_call_without_a_price_counts_once_in_the_file(spender, tmp_path):
    with spender.gov.unit(spender.world.owner) as unit:
        grant = unit.authorize("update", ledger=True)
        Spend.correct(grant, "c2", spender.world.a, "e3", Tokens(input=2), reason="it was two")
    close(spender, tmp_path / "january")
    assert verify(spender, tmp_path / "january") == []


def test_an_export_says_which_months_of_its_range_are_in_files(spender, tmp_path, run):  # noqa: F811
    """With an empty range, too, and of an organization that is gone; not of one that never was."""
    world, url = spender.world, as_text(spender.world.engine.url)

    def export(organization, *days):
        asked = ("spend", "export", "--organization", organization, *days)
        return run(*asked, database_url=url)

    january = ("--from", "2026-01-10", "--to", "2026-01-11")
    assert export(world.a, *january).err == ""
    done = close(spender, tmp_path / "january")
    said = f"2026-01 is closed: 3 calls are in the file {done.sha256}\n"
    for organization, days, calls in (
        (world.a, january, 3),
        (world.a, ("--from", "2026-01-31", "--to", "2026-03-01"), 3),
        (world.b, january, 0),
    ):
        result = export(organization, *days)
        assert (result.status, result.err) == (0, said.replace("3 calls", f"{calls} calls"))
    assert len(export(world.a, "--from", "2026-01-31", "--to", "2026-03-01").out.splitlines()) == 2
    assert export(world.a, "--month", "2026-02").err == ""
    assert export(world.a, "--month", "2025-12").err == ""
    with world.engine.begin() as connection:
        gone = TABLES.organizations.c.id == world.a
        connection.execute(sa.delete(TABLES.organizations).where(gone))
    assert (export(world.a, *january).status, export(world.a, *january).err) == (0, said)
    never = uuid4()
    unknown = export(never, *january)
    assert (unknown.status, unknown.sentence) == (1, f"no organization `{never}` is known here")


def test_refused_calls_go_with_their_month_and_with_those_before(spender, tmp_path):
    months = [date(2025, 12, 31), date(2026, 1, 31), date(2026, 2, 1)]
    table, who = TABLES.ai_refusals, {"organization_id": uuid4(), "user_id": uuid4()}
    row = {**who, "code": "unpriced-model", "calls": 1, "provider": "p", "model": "m"}
    with spender.world.engine.begin() as connection:
        connection.execute(sa.insert(table), [{**row, "day": day} for day in months])
    close(spender, tmp_path / "january")
    with spender.world.engine.connect() as connection:
        assert connection.execute(sa.select(table.c.day)).scalars().all() == [date(2026, 2, 1)]


def test_what_comes_for_it_counts_in_the_open_month_and_says_so(spender, tmp_path):
    """Its day's price counts. A hold that went is not found, nor is what a correction is of."""
    close(spender, tmp_path / "january")
    then = datetime(2026, 1, 30, tzinfo=UTC)
    usage, is_new = spender("record", "late", spender.call, ONE, occurred_at=then)
    assert (is_new, usage.cost_picos, usage.occurred_at) == (True, DOLLAR, then)
    assert spender("record", "late", spender.call, ONE, occurred_at=then) == (usage, False)
    spender("record", "now", spender.call, ONE, occurred_at=IN_APRIL - timedelta(days=1))
    spender("record", "march", spender.call, ONE, occurred_at=datetime(2026, 3, 31, tzinfo=UTC))
    rows = spender.read("ai_usage", "event_id", "period", "day", "late_for")
    assert {row.event_id: tuple(row[1:]) for row in rows} == {
        "f1": (FEBRUARY, IN_FEBRUARY.date(), None),
        "late": (date(2026, 4, 1), IN_APRIL.date(), JANUARY),
        "now": (date(2026, 4, 1), date(2026, 4, 19), None),
        "march": (date(2026, 3, 1), date(2026, 3, 31), None),
    }
    for act in (
        ("settle", spender.settled, "e1", ONE),
        ("settle", spender.expired, "e9", ONE),
        ("release", spender.expired),
    ):
        with pytest.raises(NotFound):
            spender(*act)
    with pytest.raises(NotFound):
        spender("extend", spender.expired, ttl_seconds=60)
    assert verify(spender, tmp_path / "january") == []


def mark(spender):
    change_for_good(spender, "INSERT INTO govbudget.ai_closings (month) VALUES ('2026-01-01')")


def test_a_month_that_is_marked_is_closed_to_every_writer(spender):
    """Its rows are there still, and what is known is still known."""
    mark(spender)
    before = [spender.read(*facts) for facts in FACTS]
    for act in (
        ("settle", spender.expired, "e9", ONE),
        ("release", spender.expired),
    ):
        with pytest.raises(NotFound):
            spender(*act)
    with pytest.raises(NotFound):
        spender("extend", spender.expired, ttl_seconds=60)
    with pytest.raises(NotFound), spender.gov.unit(spender.world.owner) as unit:
        grant = unit.authorize("update", ledger=True)
        Spend.correct(grant, "c9", spender.world.a, "e1", ONE, reason="late")
    assert spender("record", "e2", spender.call, ONE)[1] is False
    assert [spender.read(*facts) for facts in FACTS] == before
    assert verify(spender) == []


def test_months_are_closed_in_order_and_not_too_early(spender, tmp_path):
    for month, days, reason in (
        (FEBRUARY, 60, r"2026-02 can be closed from 2026-04-30 00:00 UTC on"),
        (FEBRUARY, 7, r"2026-02 comes after 2026-01, which has rows"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            close(spender, tmp_path / "file", month, days)
    assert list(tmp_path.iterdir()) == []
    files = [tmp_path / "january", tmp_path / "february"]
    first, second = close(spender, files[0]), close(spender, files[1], FEBRUARY, 7)
    assert (first.previous_sha256, second.previous_sha256) == (None, first.sha256)
    with pytest.raises(InvalidInput, match="before a month that is closed"):
        close(spender, tmp_path / "x", date(2025, 12, 1))
    trail = TABLES.audit_log
    with spender.world.engine.connect() as connection:
        chosen = sa.select(trail).where(trail.c.object_type == "ai_closing").order_by("at")
        entries = connection.execute(chosen).all()
    assert [(entry.object_id, entry.after) for entry in entries] == [
        ("2026-01", first._asdict()),
        ("2026-02", second._asdict()),
    ]
    assert {entry.receipt["cause"] for entry in entries} == {"command"}
    assert verify(spender, *files) == []


def list_marked(spender):
    with spender.world.engine.connect() as connection:
        return connection.scalars(sa.select(TABLES.ai_closings.c.month)).all()


def test_what_is_there_is_not_written_over(spender, tmp_path):
    """Neither is a month marked for a file that can't be written."""
    file = tmp_path / "notes"
    there = "is there already, and is not of 2026-01; name another"
    for content in ("mine\n", "", '{"govbudget": {"month": "2025-01"}}\n'):
        file.write_text(content)
        with pytest.raises(InvalidInput, match=there):
            close(spender, file)
        assert file.read_text() == content
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(InvalidInput, match=there):
            close(spender, path)
    for path in (tmp_path / "none" / "file", tmp_path / ("n" * 250)):
        with pytest.raises(InvalidInput, match=r"can't be written: .*; nothing was deleted"):
            close(spender, path)
    assert list_marked(spender) == []
    assert verify(spender) == []


def test_the_file_of_a_closing_that_the_database_does_not_know_is_not_written_over(
    spender, tmp_path
):
    """The database was restored from before it, and the file may have what came after that."""
    file = tmp_path / "january"
    file.write_text('{"govbudget": {"month": "2026-01"}}\n')
    with pytest.raises(InvalidInput, match="may be the only record of its calls"):
        close(spender, file)
    assert list_marked(spender) == []
    mark(spender)
    assert close(spender, file).ai_usage == 4
    assert verify(spender, file) == []


def test_a_full_disk_takes_nothing_and_another_one_will_do(spender, tmp_path):
    """What was written is removed, so that it does not fill the disk."""
    (tmp_path / "january.partial").symlink_to("/dev/full")
    with pytest.raises(InvalidInput, match="january can't be written: no space left on device"):
        close(spender, tmp_path / "january")
    assert list(tmp_path.iterdir()) == []
    assert verify(spender) == []
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert close(spender, tmp_path / "link").ai_usage == 4
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    close(spender, tmp_path / "loop", FEBRUARY, 7)
    assert verify(spender, tmp_path / "elsewhere") == []


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "deleting"])
def test_a_closing_goes_on_with_its_own_file_alone(spender, tmp_path, is_closed):
    """It says which digest that has, and never that another file has the rows."""
    files = [tmp_path / "january", tmp_path / "february"]
    close(spender, files[0])
    done = close(spender, files[1], FEBRUARY, 7)
    if not is_closed:
        change_for_good(spender, "UPDATE govbudget.ai_closings SET closed_at = NULL")
    (tmp_path / "empty").touch()
    for path, reason in (
        (tmp_path / "none", "is not there"),
        (tmp_path / "empty", "line 1, is not of a closed month"),
        (files[0], "is of 2026-01"),
    ):
        with pytest.raises(InvalidInput, match=reason) as refused:
            close(spender, path, FEBRUARY)
        assert reason.startswith("line") or done.sha256 in str(refused.value)
    assert close(spender, files[1], FEBRUARY) == done


def test_a_closing_that_came_second_takes_the_file_of_the_first_as_it_is(spender, tmp_path):
    """The first one ends between two statements of the second."""
    file = tmp_path / "january"

    overtaken = []

    def overtake(*arguments):
        if "pg_try_advisory_xact_lock" in arguments[2] and not overtaken:
            overtaken.append(True)
            close(spender, file)

    sa.event.listen(spender.world.engine, "before_cursor_execute", overtake)
    assert close(spender, file).ai_usage == 4
    assert overtaken
    assert verify(spender, file) == []


ROW = '{"govbudget": {"month": "2026-01"}}\n'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "1\n",
        '{"govbudget": 5}',
        '{"govbudget": {}}',
        '{"govbudget": {"month": 5}}',
        '{"govbudget": {"month": "2026-13"}}',
        ROW * 2,
        ROW + '{"ai_usage": 5}',
        ROW + '{"ai_usage": {}}',
        ROW
        + '{"ai_usage": {"organization_id": 1, "group_id": 1, "user_id": 1, "cost_picos": "1"}}',
        "[" * 100_000,
        "\0" * 3_000_000,
    ],
    ids=lambda content: content[:30].encode("unicode_escape").decode() + str(len(content)),
)
def test_what_is_not_of_a_closed_month_is_a_sentence(engine, tmp_path, content):
    (tmp_path / "file").write_text(content)
    with make_gov(engine=engine).unit(OPERATOR) as unit:
        grant = unit.authorize("update", ledger=True)
        with pytest.raises(InvalidInput, match=r"is not of a closed month; give the file that"):
            list(prove_file(grant, tmp_path / "file"))


def test_a_file_of_a_month_that_is_not_closed_here_proves_nothing(spender, tmp_path):
    """Its sums are right, but nothing says that it is the file."""
    file = tmp_path / "january"
    close(spender, file)
    change_for_good(spender, "DELETE FROM govbudget.ai_closings")
    assert (
        verify(spender, file)[-1] == f"{file} is of 2026-01, which is not closed in this database"
    )


ALTERED = (
    ('"cost_picos":1000000000000', '"cost_picos":1000000000001', "rollups of 2026-01 have"),
    ('"event_id":"e1"', '"event_id":"e8"', "its sha256 is"),
    ("\n", "\n\n", "is not of a closed month"),
    ('{"ai_holds"', '{"a_table"', "is not of a closed month"),
)


def test_a_file_that_was_altered_is_found(spender, tmp_path):
    """Each alteration alone, in a copy."""
    file, copy = tmp_path / "january", tmp_path / "copy"
    close(spender, file)
    content = file.read_text()
    for old, new, sentence in ALTERED:
        assert old in content
        copy.write_text(content.replace(old, new, 1))
        try:
            found = verify(spender, copy)
        except InvalidInput as error:
            found = [str(error)]
        assert any(sentence in finding for finding in found), (new, found)
    assert verify(spender, file) == []


def test_a_line_that_is_missing_is_found(spender, tmp_path):
    file = tmp_path / "january"
    close(spender, file)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    assert ["its ai_holds is 1; of 2026-01 was stored 2" in f for f in verify(spender, file)][1]


CHANGES = (
    "UPDATE govbudget.ai_spend_rollups SET calls = calls + 1 WHERE starts_on = '2026-01-31'",
    "UPDATE govbudget.ai_spend_rollups SET model = model || '!' WHERE starts_on = '2026-01-31'",
    "UPDATE govbudget.ai_spend_rollups SET cost_picos = 7 WHERE starts_on = '2026-01-01'",
    "UPDATE govbudget.ai_spend_counters SET spent_picos = 7 WHERE period = '2026-01-01'",
    "DELETE FROM govbudget.ai_spend_counters WHERE period = '2026-01-01'",
    "DELETE FROM govbudget.ai_spend_rollups WHERE starts_on < '2026-02-01'",
    "DELETE FROM govbudget.audit_log WHERE object_type = 'ai_closing'",
    "UPDATE govbudget.ai_closings SET file = jsonb_set(file, '{sha256}', '\"x\"')",
    "UPDATE govbudget.ai_closings SET sums = '{}'",
)


def test_what_was_changed_in_a_closed_month_is_found(spender, tmp_path):
    """Each change alone: it is undone before the next one."""
    close(spender, tmp_path / "january")
    assert verify(spender) == []
    for sql in CHANGES:
        with spender.world.engine.connect() as connection:
            change(connection, sql)
            found = verify(spender, connection=connection)
        assert found, sql
        assert all("the closed month 2026-01" in finding for finding in found), sql
    assert verify(spender) == []


def test_rows_that_do_not_add_up_are_not_deleted(spender, tmp_path):
    change_for_good(spender, "UPDATE govbudget.ai_usage SET cost_picos = 7 WHERE event_id = 'e1'")
    with pytest.raises(InvalidInput, match="don't add up"):
        close(spender, tmp_path / "january")
    assert len(spender.read("ai_usage", "event_id")) == 5


def test_a_row_that_was_changed_behind_its_back_stays(spender, tmp_path, monkeypatch):
    delete = closing._delete

    def meddle(*arguments):
        change_for_good(spender, "UPDATE govbudget.ai_usage SET reason = 'x' WHERE event_id = 'e1'")
        delete(*arguments)

    monkeypatch.setattr(closing, "_delete", meddle)
    with pytest.raises(InvalidInput, match="rows that are not in"):
        close(spender, tmp_path / "january")
    assert {row.event_id for row in spender.read("ai_usage", "event_id")} == {"e1", "f1"}


@pytest.mark.parametrize("begins", ["reads", "writes"])
def test_it_waits_for_what_began_before_it(spender, tmp_path, monkeypatch, begins):
    """And says which processes it waited for; what was written then is in the file."""
    file = tmp_path / "january"
    level = "REPEATABLE READ" if begins == "reads" else "READ COMMITTED"
    engine = spender.world.engine.execution_options(isolation_level=level)
    with spender.gov.unit(spender.world.nobody, connection=(older := engine.connect())) as unit:
        grant = unit.authorize("create", ledger=True)
        if begins == "writes":
            then = datetime(2026, 1, 5, tzinfo=UTC)
            Spend.record(grant, "early", spender.call, ONE, occurred_at=then)
        pid = older.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with monkeypatch.context() as patched:
            patched.setattr(closing, "WAIT_SECONDS", 0)
            with pytest.raises(GovBudgetError, match=rf"processes: .*\b{pid}\b"):
                close(spender, file)
        assert not file.exists()
        older.commit()
    older.close()
    assert close(spender, file).ai_usage == 4 + (begins == "writes")
    assert verify(spender, file) == []


def test_its_role_need_not_see_what_others_run_to_wait_for_them(spender, tmp_path, monkeypatch):
    """PostgreSQL hides most of their statistics from a role that is not theirs."""
    owner, other = (f"{name}_{uuid4().hex[:12]}" for name in ("owner", "other"))
    engine = spender.world.engine
    with engine.begin() as connection:
        for role in (owner, other):
            connection.exec_driver_sql(
                f"CREATE ROLE {role} LOGIN PASSWORD 'word';"
                f"GRANT USAGE ON SCHEMA govbudget TO {role};"
                f"GRANT ALL ON ALL TABLES IN SCHEMA govbudget TO {role}"
            )
    try:
        with become(engine, other).connect() as older:
            older.execution_options(isolation_level="REPEATABLE READ")
            older.exec_driver_sql("SELECT count(*) FROM govbudget.ai_usage")
            pid = older.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            spender.gov = make_gov(engine=become(engine, owner), clock=spender.clock)
            with monkeypatch.context() as patched:
                patched.setattr(closing, "WAIT_SECONDS", 0)
                with pytest.raises(GovBudgetError, match=rf"processes: .*\b{pid}\b"):
                    close(spender, tmp_path / "january")
        # The tests of other databases of this PostgreSQL have transactions under way as well.
        assert close(spender, tmp_path / "january").ai_usage == 4
    finally:
        with engine.begin() as connection:
            for role in (owner, other):
                connection.exec_driver_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


def become(engine, role):
    """Give an engine whose connections log in as another role."""
    url = engine.url.set(username=role, password="word")
    return sa.create_engine(url, poolclass=sa.NullPool)


def test_expired_holds_of_every_past_month_are_closed(spender, tmp_path):
    """A hold that expired still settles as before."""
    spender.clock.now = IN_FEBRUARY
    hold = spender("hold", spender.call, ONE)
    spender.clock.now = IN_APRIL
    close(spender, tmp_path / "january")
    assert {row.held_picos for row in spender.read("ai_spend_counters", "held_picos")} == {0}
    assert spender("settle", hold.id, uuid4().hex, ONE).cost_picos == DOLLAR
    assert verify(spender) == []
