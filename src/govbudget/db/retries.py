"""Units of work: one connection in AUTOCOMMIT, a few tries, and what counts as "unavailable"."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine, exc

from govbudget.errors import GovBudgetError

T = TypeVar("T")

MAX_TRIES = 4
RETRY_AFTER_SECONDS = 5

# https://www.postgresql.org/docs/current/errcodes-appendix.html
RETRIED = frozenset({"40001", "40P01"})  # serialization failure, deadlock
AWAY = frozenset({"57014", "55P03", "25006"})  # timeout or cancel, lock timeout, read-only standby
# No such table, column, schema, function or unique key; a column of another type; a column that a
# newer version fills. So a schema that is not there, or is of another version.
OTHER_SCHEMA = frozenset({"42P01", "42703", "3F000", "42883", "42P10", "42804", "23502"})
MIXED_UP = (
    "a connection pooler mixes up what its clients prepare; let it pool sessions, or follow"
    " prepared statements (PgBouncer 1.21 or later, with `max_prepared_statements`)"
)
# What it means, and what to do. An invalid parameter value is a time zone: no other one is sent.
MISFITS = {
    **dict.fromkeys(
        OTHER_SCHEMA,
        "the database's schema is missing or of another version; run `govbudget db upgrade`",
    ),
    # A statement's name is taken, or is not there: we make each name once.
    **dict.fromkeys(("42P05", "26000"), MIXED_UP),
    "22023": "the database does not know GOVBUDGET_TIME_ZONE; name a zone that it knows",
}
# Of others, what whoever runs a command can do.
HINTS = {
    **MISFITS,
    "25006": "it is a standby or read-only; name the primary",
    "42501": "connect as a role that may, such as the owner of the schema",
    "55P03": "try again when what holds the lock has ended",
    **dict.fromkeys(
        ("57014", "25P03"),  # the limits are the database's, or its role's
        "try again, if need be with"
        " PGOPTIONS='-c statement_timeout=0 -c idle_in_transaction_session_timeout=0'",
    ),
    # Of PostgreSQL 17 and later: one before would not start a session with it.
    "25P04": "try again, if need be with PGOPTIONS='-c transaction_timeout=0'",
}
AWAY_CLASSES = frozenset({"08", "53", "57", "58"})  # connection, resources, operator, system


def retry(work: Callable[[], T], states: frozenset[str] = RETRIED) -> T:
    """Run a whole transaction, and a few times again where it ends in one of these SQLSTATEs."""
    for left in reversed(range(MAX_TRIES)):
        try:
            return work()
        except exc.DBAPIError as error:
            if not (left and find_sqlstate(error) in states):
                raise
        pause(5, 30)
    raise AssertionError("a try ends by returning or raising")


def run(db: Engine | Connection, work: Callable[[Connection], T], level: str = "AUTOCOMMIT") -> T:
    """Run work that needs no right on a connection of its own; see `connect` and `retry`."""

    def attempt() -> T:
        with connect(db, level) as connection:
            return work(connection)

    return retry(attempt)


def pause(shortest_ms: int, longest_ms: int) -> None:
    """Sleep for some milliseconds, so that the tries of several don't meet again."""
    time.sleep(random.uniform(shortest_ms, longest_ms) / 1000)  # noqa: S311 - nothing secret


@contextmanager
def connect(
    engine: Engine | Connection, isolation_level: str = "AUTOCOMMIT"
) -> Iterator[Connection]:
    """Take a connection: in AUTOCOMMIT, or in a transaction that is committed where all went well.

    An engine that is in AUTOCOMMIT already is spared the change, and the change back. A connection
    of the host's is taken as it is, in a savepoint, and is the host's to commit.
    """
    if isinstance(engine, Connection):
        with engine.begin_nested():
            yield engine
        return
    with engine.connect() as connection:
        autocommits = getattr(connection.connection.dbapi_connection, "autocommit", False)
        if autocommits is not (isolation_level == "AUTOCOMMIT"):
            connection.execution_options(isolation_level=isolation_level)
        if isolation_level == "AUTOCOMMIT":
            yield connection
            return
        with connection.begin():  # now: a grant may be loaded without a statement
            yield connection


def explain_outage(error: Exception) -> GovBudgetError | None:
    """Give the error `unavailable` where the exception says that the database can't serve now."""
    away = isinstance(error, exc.TimeoutError)
    if isinstance(error, exc.DBAPIError):
        state = find_sqlstate(error)
        if state in MISFITS:
            return GovBudgetError("unavailable", MISFITS[state])
        away = (
            error.connection_invalidated
            or (state is None and isinstance(error, exc.OperationalError | exc.InterfaceError))
            or state in RETRIED | AWAY
            or (state is not None and state[:2] in AWAY_CLASSES)
        )
    if not away:
        return None
    return GovBudgetError("unavailable", "the database does not answer in time; try again later")


@contextmanager
def apart(connection: Connection) -> Iterator[None]:
    """Let a statement that fails undo nothing else: in a savepoint, unless it commits itself."""
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        yield
        return
    with connection.begin_nested():
        yield


@contextmanager
def referring(missing: GovBudgetError) -> Iterator[None]:
    """Write a row that refers to others; raise `missing` where one of them is not there."""
    try:
        yield
    except exc.IntegrityError as error:
        if find_sqlstate(error) == "23503":  # foreign key violation
            raise missing from error
        raise


def find_sqlstate(error: Exception) -> str | None:
    """Give the SQLSTATE of a refusal of the database, if that is what the error is."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state if isinstance(state, str) else None
