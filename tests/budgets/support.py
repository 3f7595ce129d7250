"""What the tests of the stores share: watching connections, running at once."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import sqlalchemy as sa
from tests.support import TABLES, authorize

from govbudget.budgets.budget import UNCONDITIONAL
from govbudget.budgets.store import Budgets
from govbudget.installation import Installation

PATIENCE_SECONDS = 20


def get_budget(connection, person, group):
    return Budgets.get(authorize(connection, person, "read", group=group))


def set_budget(connection, person, group, limit, condition=UNCONDITIONAL):
    grant = authorize(connection, person, "update", group=group)
    return Budgets.set(grant, limit, condition)


def delete_budget(connection, person, group, condition=UNCONDITIONAL):
    return Budgets.delete(authorize(connection, person, "update", group=group), condition)


def list_budgets(connection, person, organization, *, limit=100, after=None):
    grant = authorize(connection, person, "read", organization=organization)
    return Budgets.list(grant, limit=limit, after=after)


def delete_orphans(gov, connection):
    """Delete what is left of groups that are gone, as the installation of a host does."""
    return Installation.delete_orphans(gov, connection)


def read_row(connection, group):
    """Read a budget's row as it is stored, or None."""
    table = TABLES.group_ai_budgets
    return connection.execute(sa.select(table).where(table.c.group_id == group)).one_or_none()


@contextmanager
def watch(engine):
    """Collect what ends or shapes a transaction: commit, rollback, savepoint, close, SET."""
    seen = []
    events = ("commit", "rollback", "savepoint", "rollback_savepoint", "release_savepoint")
    listeners = {name: functools.partial(_note, seen, name) for name in (*events, "checkin")}

    def listen(_conn, _cursor, statement, _parameters, _context, _many):
        first = statement.split()[0].upper()
        if first not in {"SELECT", "WITH", "INSERT", "UPDATE", "DELETE"}:
            seen.append(statement)
        if "set_config" in statement:
            seen.append(statement)

    listeners["before_cursor_execute"] = listen
    for name, listener in listeners.items():
        sa.event.listen(engine, name, listener)
    try:
        yield seen
    finally:
        for name, listener in listeners.items():
            sa.event.remove(engine, name, listener)


def _note(seen, name, *_):
    seen.append(name)


def attempt(function, *arguments, **options):
    """Give what a function returns or the error that it raises."""
    try:
        return function(*arguments, **options)
    except Exception as error:  # noqa: BLE001 - the tests look at which one it was
        return error


def run_together(engine, works):
    """Run each work on a connection of its own, in a thread of its own; give what came of each.

    A work is a generator function of a connection: what it does before its `yield` is done by all
    before any goes on; what it returns, or the error it raises, is its result. Its transaction is
    committed unless it raised.
    """
    barrier = threading.Barrier(len(works), timeout=PATIENCE_SECONDS)

    def run(work):
        with engine.connect() as connection:
            steps = work(connection)
            next(steps)
            barrier.wait()
            try:
                next(steps)
            except StopIteration as end:
                connection.commit()
                return end.value
            raise AssertionError("a work yields once")

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(attempt, run, work) for work in works]
        return [future.result(PATIENCE_SECONDS) for future in futures]


@contextmanager
def running(engine, work):
    """Run a work of a connection in a thread, until it waits for a lock; give its future.

    Its transaction is committed unless it raised.
    """
    pid = []

    def run():
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{PATIENCE_SECONDS}s'")
            pid.append(connection.scalar(sa.text("SELECT pg_backend_pid()")))
            result = work(connection)
            connection.commit()
            return result

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(attempt, run)
        wait_until(lambda: future.done() or (pid and _waits_for_lock(engine, pid[0])))
        yield future


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)


def _waits_for_lock(engine, pid):
    question = sa.text("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = :pid")
    with engine.connect() as connection:
        return connection.scalar(question, {"pid": pid})
