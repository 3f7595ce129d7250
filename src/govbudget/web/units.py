"""Units of work: one connection in AUTOCOMMIT, a few tries, and what counts as "unavailable"."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, exc

from govbudget.errors import GovBudgetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

T = TypeVar("T")

MAX_TRIES = 4
RETRY_AFTER_SECONDS = 5

# https://www.postgresql.org/docs/current/errcodes-appendix.html
RETRIED = frozenset({"40001", "40P01"})  # serialization failure, deadlock
AWAY = frozenset({"57014", "55P03", "25006"})  # timeout or cancel, lock timeout, read-only standby
AWAY_CLASSES = frozenset({"08", "53", "57", "58"})  # connection, resources, operator, system


def retry(work: Callable[[], T], states: frozenset[str] = RETRIED) -> T:
    """Run a whole transaction, and a few times again where it ends in one of these SQLSTATEs."""
    for left in reversed(range(MAX_TRIES)):
        try:
            return work()
        except exc.DBAPIError as error:
            if not (left and _sqlstate(error) in states):
                raise
        time.sleep(random.uniform(0.005, 0.03))  # noqa: S311 - spreads the tries, nothing secret
    message = "a try ends by returning or raising"
    raise AssertionError(message)


def run_unit(engine: Engine | Connection, work: Callable[[Connection], T]) -> T:
    """Run work on a connection in AUTOCOMMIT; try again on a serialization failure or deadlock.

    On a connection of the host's it runs in a savepoint, and is the host's to commit. Raises what
    the database does; `explain_outage` says whether it is away, busy beyond the tries, or too slow.
    """

    def run() -> T:
        if isinstance(engine, Connection):
            with engine.begin_nested():
                return work(engine)
        with engine.connect() as connection:
            # An engine that is in AUTOCOMMIT already is spared the change, and the change back.
            if not getattr(connection.connection.dbapi_connection, "autocommit", False):
                connection.execution_options(isolation_level="AUTOCOMMIT")
            return work(connection)

    return retry(run)


def explain_outage(error: Exception) -> GovBudgetError | None:
    """Give the error `unavailable` where the exception says that the database can't serve now."""
    away = isinstance(error, exc.TimeoutError)
    if isinstance(error, exc.DBAPIError):
        state = _sqlstate(error)
        away = (
            error.connection_invalidated
            or (state is None and isinstance(error, exc.OperationalError | exc.InterfaceError))
            or state in RETRIED | AWAY
            or (state is not None and state[:2] in AWAY_CLASSES)
        )
    if not away:
        return None
    return GovBudgetError("unavailable", "the database does not answer in time; try again later")


def explain_failure(error: Exception) -> GovBudgetError:
    """Give the error of ours for any failure of a call from Python, which has no log of its own."""
    if isinstance(error, GovBudgetError):
        return error
    text = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if isinstance(error, ValueError | TypeError | exc.DataError):
        return GovBudgetError("input-invalid", text)
    hint = "; has `govbudget db upgrade` been run?" if lacks_schema(error) else ""
    return explain_outage(error) or GovBudgetError("internal-error", text + hint)


def lacks_schema(error: Exception) -> bool:
    """Whether a table, a column or the schema was not there."""
    return isinstance(error, exc.DBAPIError) and _sqlstate(error) in {"42P01", "42703", "3F000"}


def _sqlstate(error: exc.DBAPIError) -> str | None:
    state = getattr(error.orig, "sqlstate", None)
    return state if isinstance(state, str) else None
