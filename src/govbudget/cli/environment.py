"""What a command works with: the host's installation inside a host, else the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import cast

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from werkzeug.local import LocalProxy

from govbudget.authz.policy import Policy
from govbudget.cli import NotSo
from govbudget.cli.place import find_host, find_policy_dir, find_settings
from govbudget.db.connection import DATABASE_URL, normalize_url, open_engine
from govbudget.db.gov import Gov
from govbudget.db.retries import T, retry
from govbudget.db.tables import require_own_tables
from govbudget.db.unit import Unit
from govbudget.directory.protocol import Directory
from govbudget.directory.sql import own_directory
from govbudget.errors import NotFound, SettingsError
from govbudget.identity import OPERATOR, Id


def find_directory() -> Directory:
    """Give the host's directory, else govbudget's own; SettingsError: only the host knows it."""
    host = find_host()
    return (
        own_directory(require_own_tables(find_settings().layout))
        if host is None
        else host.directory
    )


def read_database_url() -> sa.URL:
    """Read GOVBUDGET_DATABASE_URL; raise SettingsError where it is missing or malformed."""
    text = os.environ.get(DATABASE_URL)
    if not text:
        raise SettingsError(
            f"no database: set {DATABASE_URL}, for example postgresql://user@host/database; "
            "`govbudget serve --embedded DIR` runs one for trying"
        )
    return normalize_url(text)


@contextmanager
def open_database() -> Iterator[Engine]:
    """Find the database to work on, whose transactions are committed or rolled back whole.

    Raises SettingsError where none is named.
    """
    host = find_host()
    engine = (
        open_engine(read_database_url(), poolclass=sa.NullPool)
        if host is None
        else host.find_engine(None)
    )
    if isinstance(engine, Connection):
        raise SettingsError("`engine=` gives a Connection; a command needs an Engine")
    try:
        # A host's engine may commit by itself.
        yield engine.execution_options(isolation_level="READ COMMITTED")
    finally:
        if host is None:
            engine.dispose()


def run_on_database(work: Callable[[Connection], T]) -> T:
    """Run work that needs no right in a transaction, all or nothing; see `retry`."""

    def attempt() -> T:
        with open_database() as engine, engine.begin() as connection:
            return work(connection)

    return retry(attempt)


@contextmanager
def open_gov() -> Iterator[Gov]:
    """Find what units of work are opened from.

    Raises SettingsError where no database is named, PolicyError for a policy with findings.
    """
    host = find_host()
    if host is not None:
        yield host
        return
    settings = find_settings()
    required = settings.require_matrix is not False
    digest = settings.policy_digest
    policy = Policy.load(find_policy_dir(), digest=digest, require_matrix=required)
    # Some work asks no directory: it is found when it is asked.
    directory = cast("Directory", LocalProxy(cache(find_directory)))
    with open_database() as engine:
        yield Gov(settings, policy, directory, lambda _: engine)


def run_as_operator(work: Callable[[Unit], T], missing: str = "") -> T:
    """Run work as the operator, all or nothing; see `Gov.run`.

    Raises NotSo with the sentence `missing`, where there is one, in place of NotFound.
    """
    try:
        with open_gov() as gov:
            return gov.run(OPERATOR, work, atomic=True)
    except NotFound:
        if missing:
            raise NotSo(missing) from None
        raise


def require_known(unit: Unit, organization: Id) -> None:
    """Raise NotSo where the directory has no such organization."""
    if not unit.knows(organization):
        raise NotSo(f"no organization `{organization}` is known here")


def follow(
    page: Sequence[T], read: Callable[..., Sequence[T]], find_position: Callable[[T], object]
) -> Iterator[T]:
    """Give the rows of a page and of those after it; `read` takes the position of a last row."""
    while page:
        yield from page
        page = read(after=find_position(page[-1]))
