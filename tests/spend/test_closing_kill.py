"""A closing that is killed at any point is ended by the next one: nothing is lost or doubled."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from uuid import uuid4

import pytest
from tests.forking import start_forker
from tests.spend.test_closing import JANUARY, close, engine, read_all, spender, verify
from tests.spend.test_store import ONE

pytestmark = pytest.mark.long

__all__ = ["engine", "spender"]


@pytest.fixture
def close_until():
    """Close January in a process that is killed at a point; give how it ended."""
    with start_forker("tests.spend.close_and_die") as process:

        def close_until(spender, file, point):
            url = spender.world.engine.url.render_as_string(hide_password=False)
            process.stdin.write(f"{url} {file} {point}\n")
            return process.stdout.readline().split()

        yield close_until


def count_events(spender, *files):
    """How often each event is in the ledger, or else in a file, as JSON has it."""
    events = Counter(row.event_id for row in spender.read("ai_usage", "event_id"))
    for file in files:
        for line in map(json.loads, file.read_text().splitlines()):
            if "ai_usage" in line:
                events[line["ai_usage"]["event_id"]] += 1
    return events


@pytest.fixture
def put_back(spender):
    """A function that puts back, into every table, the rows that are there now."""
    options = {"isolation_level": "AUTOCOMMIT"}
    with spender.world.engine.connect().execution_options(**options) as connection:
        # Else closed months and the trail would refuse it.
        connection.exec_driver_sql("SET session_replication_role = replica")
        listed = "SELECT tablename FROM pg_tables WHERE schemaname = 'govbudget'"
        sql = ""
        for table in connection.exec_driver_sql(listed).scalars().all():
            sql += f"DELETE FROM govbudget.{table};"
            if connection.exec_driver_sql(f"SELECT FROM govbudget.{table}").first() is not None:
                copy = f"CREATE TEMP TABLE old_{table} AS TABLE govbudget.{table}"
                connection.exec_driver_sql(copy)
                sql += f"INSERT INTO govbudget.{table} TABLE old_{table};"
        yield lambda: connection.exec_driver_sql(sql)
        connection.exec_driver_sql("DISCARD ALL")


def test_killed_at_every_point_nothing_is_lost_or_doubled(spender, close_until, put_back, tmp_path):
    sums, all_of_them = read_all(spender), count_events(spender)
    for point in count():
        file = tmp_path / str(point)
        ended = close_until(spender, file, point)
        # How many points there are differs: it waits for what is under way in the whole server.
        assert ended == ["-9"] or (int(ended[0]) <= point and ended[1] == "0"), ended
        assert verify(spender) == [], point
        assert read_all(spender) == sums
        done = close(spender, file)
        assert (done.ai_usage, done.ai_holds) == (4, 2)
        assert count_events(spender, file) == all_of_them, point
        assert verify(spender, file) == [], point
        assert read_all(spender) == sums
        if ended != ["-9"]:
            break
        put_back()
        assert read_all(spender) == sums
    assert point > 20


def test_calls_that_come_while_it_closes_are_in_the_file_or_in_the_open_month(spender, tmp_path):
    """Of many that are recorded for the month meanwhile, none is lost, and none is in both."""
    stop, sent = threading.Event(), []
    then = datetime(2026, 1, 20, tzinfo=UTC)

    def write(number):
        for turn in count():
            if stop.is_set():
                return
            event = f"{number}-{turn}"
            spender("record", event, spender.call, ONE, occurred_at=then)
            sent.append(event)
            hold = spender("hold", spender.call, ONE, hold_id=uuid4())
            spender("settle", hold.id, "of " + event, ONE)
            sent.append("of " + event)

    before = count_events(spender)
    spender_limit = "UPDATE govbudget.group_ai_budgets SET spend_limit_micros = 1000000000000"
    with spender.world.engine.begin() as connection:
        connection.exec_driver_sql(spender_limit)
    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, number) for number in range(3)]
        try:
            wait_for_more(sent, writers)
            done = close(spender, tmp_path / "january", JANUARY)
            wait_for_more(sent, writers)
        finally:
            stop.set()
        for writer in writers:
            writer.result()
    assert done.ai_usage > 4
    assert count_events(spender, tmp_path / "january") == before + Counter(sent)
    rows = spender.read("ai_usage", "event_id", "period", "late_for")
    assert not any(row.period == JANUARY for row in rows)
    assert any(row.late_for == JANUARY for row in rows)
    assert verify(spender, tmp_path / "january") == []


def wait_for_more(sent, writers):
    """Wait until more were sent; the writers write on."""
    enough = len(sent) + 60
    while len(sent) < enough and not any(writer.done() for writer in writers):
        time.sleep(0.05)
