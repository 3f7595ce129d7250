"""What a command works with: the host's installation inside a host, else the environment."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import cache, partial
from itertools import chain, islice
from typing import Any, cast

import click
import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from govbudget.cli import NotSo
from govbudget.cli.each_database import Turn, find_turn, take
from govbudget.cli.host import find_host, find_policy_dir, find_settings
from govbudget.db.connection import open_engine
from govbudget.db.databases import Databases
from govbudget.db.gov import Gov
from govbudget.db.group_search import search_groups
from govbudget.db.retries import T, retry, run
from govbudget.db.tables import require_own_tables
from govbudget.db.unit import Grant, Unit
from govbudget.db.urls import DATABASE_URLS, read_urls
from govbudget.directory.protocol import Directory
from govbudget.directory.sql import own_directory
from govbudget.errors import GovBudgetError, NotFound, SettingsError
from govbudget.identity import OPERATOR, Id, Organization

PAGE = 1000  # rows that are read at once


def find_directory() -> Directory:
    """Give the host's directory, else govbudget's own; SettingsError: only the host knows it."""
    host = find_host()
    return (
        own_directory(require_own_tables(find_settings().layout))
        if host is None
        else host.directory
    )


class _DirectoryWhenAsked:
    """The directory, which is found when it is asked: some work asks none."""

    def __init__(self) -> None:
        self._find = cache(find_directory)

    def __getattr__(self, name: str) -> object:
        return getattr(self._find(), name)


def open_databases() -> Databases:
    """Open the databases that the environment names; SettingsError: none, or a wrong text."""
    urls = read_urls(os.environ)
    return Databases({slots: _make_engine(url) for slots, url in urls.items()})


def _make_engine(url: sa.URL) -> Engine:
    return open_engine(url, poolclass=sa.NullPool, isolation_level="READ COMMITTED")


def list_turns(organization: str | None = None, group: str | None = None) -> list[Turn]:
    """List the databases that a command works on where there are several; of one, nothing.

    All of them; of an organization or a group that is named (the text of an id), its own. Raises
    SettingsError where the host's `engine=` is a function that can't say which there are.
    """
    host = find_host()
    if host is None and not os.environ.get(DATABASE_URLS):
        return []
    databases: Any = open_databases() if host is None else host.databases
    if databases is None:
        return []
    find: Callable[[Any], Any] = databases if host is None else host.find_engine
    engines: dict[str, Engine] = {}
    if is_listed := isinstance(databases, Databases):
        slots = zip(databases, databases.list_first(), strict=True)
        engines = {text: find(slot) for (text, _), slot in slots}
    if len({*engines.values()}) == 1:  # one, or the connection of a test for each
        return []

    def make(text: str, engine: Engine, opened: list[str] | None = None) -> Turn:
        return Turn(text, engine, lambda owner: find(owner) is engine, opened)

    if organization is None and group is None:
        _require(
            is_listed, "its databases; name an organization, or let `engine=` be a `Databases`"
        )
        opened: list[str] = []
        return [make(text, engine, opened) for text, engine in engines.items()]
    parse = find_settings().id_type.parse
    if group is None:
        found = find(parse(organization or ""))
    else:
        ask = None if host is None else host.organization_of
        _require(ask or is_listed, "the organization of a group; give it `organization_of=`")
        ask = ask or search_groups([*engines.values()], find_directory())
        found = find(ask(parse(group)))
    return [make(next((text for text in engines if engines[text] is found), ""), found)]


def _require(is_known: object, what: str) -> None:
    if not is_known:
        raise SettingsError(f"this application's `engine=` is a function, which can't say {what}")


@contextmanager
def open_database() -> Iterator[Engine]:
    """Find the database to work on, whose transactions are committed or rolled back whole.

    Of several the one whose turn it is, or else the site's. Raises SettingsError where none is
    named.
    """
    host, turn = find_host(), find_turn()
    if turn is not None:
        engine: Engine | Connection = turn.engine
    else:
        engine = open_databases()(None) if host is None else host.find_engine(None)
    if isinstance(engine, Connection):
        raise SettingsError("`engine=` gives a Connection; a command needs an Engine")
    try:
        # A host's engine may commit by itself.
        yield engine.execution_options(isolation_level="READ COMMITTED")
    finally:
        if host is None:
            engine.dispose()


def run_on_database(work: Callable[[Connection], T]) -> T:
    """Run work that needs no right in a transaction, all or nothing; see `retries.run`."""
    with open_database() as engine:
        return run(engine, work, "READ COMMITTED")


@contextmanager
def open_gov() -> Iterator[Gov]:
    """Find what units of work are opened from, on the database to work on.

    Raises SettingsError where no database is named, PolicyError for a policy with findings.
    """
    host, turn = find_host(), find_turn()
    if host is not None:
        if turn is not None:
            host, engine = copy(host), turn.engine
            host.find_engine = lambda _: engine
        yield host
        return
    from govbudget.authz.policy import Policy  # and Casbin

    settings = find_settings()
    required = settings.require_matrix is not False
    digest = settings.policy_digest
    policy = Policy.load(find_policy_dir(), digest=digest, require_matrix=required)
    directory = cast("Directory", _DirectoryWhenAsked())
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


def run_everywhere(work: Callable[[Connection], T]) -> dict[str, T]:
    """Run work that needs no right in every database; give what it gave, by their slots.

    All or nothing: each is committed once the work is done in all. Where there is one database, its
    slots are an empty text. Raises `unavailable`, which says where it was done and where not, where
    one can't be committed after another one was; SettingsError where two of them are one.
    """
    turns = list_turns()
    if not turns:
        return {"": run_on_database(work)}
    done: dict[str, T] = {}

    def attempt() -> None:
        with ExitStack() as stack:
            begun = {}
            own_lock = sa.select(sa.func.pg_try_advisory_xact_lock(secrets.randbits(63)))
            for turn in turns:
                engine = turn.engine.execution_options(isolation_level="READ COMMITTED")
                with take(turn):
                    connection = stack.enter_context(engine.connect())
                    begun[turn.slots] = connection.begin()
                    if not connection.scalar(own_lock):
                        raise _explain_same(turn.slots)
                    done[turn.slots] = work(connection)
            for number, turn in enumerate(turns):
                try:
                    with take(turn):
                        begun[turn.slots].commit()
                except BaseException as error:  # after Ctrl-C as well
                    if number:
                        raise _explain_half_done(list(begun), number, error) from error
                    raise

    retry(attempt)
    return done


def _explain_half_done(slots: Sequence[str], number: int, error: BaseException) -> GovBudgetError:
    reason = str(error).partition("\n")[0] or "interrupted"
    return GovBudgetError(
        "unavailable",
        f"this is done in the databases {' and '.join(slots[:number])}, and not in "
        f"{' and '.join(slots[number:])}: {reason}; run it again when they all answer",
    )


def _explain_same(slots: str) -> SettingsError:
    """Say that two URLs lead to this database: its second transaction would wait for the first."""
    return SettingsError(
        f"`{slots}` and other slots lead to one database, by two addresses; name it once, with all "
        "its slots"
    )


def run_everywhere_as_operator(work: Callable[[Unit], T]) -> dict[str, T]:
    """Run work as the operator in every database; see `run_everywhere`."""
    if not list_turns():
        return {"": run_as_operator(work)}
    with open_gov() as gov:

        def act(connection: Connection) -> T:
            with gov.unit(OPERATOR, connection=connection) as unit:
                return work(unit)

        return run_everywhere(act)


def show_done(done: Mapping[str, T], show: Callable[[T], Iterable[str]]) -> None:
    """Print what `run_everywhere` did, under the slots of each of several databases."""
    for slots, one in done.items():
        if slots:
            click.echo(f"database {slots}:")
        for line in show(one):
            click.echo(line)


def require_known(unit: Unit, organization: Id) -> None:
    """Raise NotSo where the directory has no such organization."""
    if not unit.knows(organization):
        raise NotSo(f"no organization `{organization}` is known here")


def list_all(
    grant: Grant[Organization], read: Callable[..., Sequence[T]], position: Callable[[T], object]
) -> Iterator[T]:
    """Give all rows of a list of the organization; raise NotSo where that is not known."""
    rows = follow(partial(read, grant), position)
    first = list(islice(rows, 1))
    if not first:
        require_known(grant.unit, grant.object.id)
    return chain(first, rows)


def follow(
    read: Callable[..., Sequence[T]], position: Callable[[T], object], after: object = None
) -> Iterator[T]:
    """Give the rows of a list, a page at a time: those after the position of a row, or all."""
    while page := read(limit=PAGE, after=after):
        yield from page
        after = position(page[-1])
