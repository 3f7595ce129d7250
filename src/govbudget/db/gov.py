"""What units of work are opened from: a policy, a directory, settings and an engine."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, TableClause
from sqlalchemy.sql.visitors import iterate

from govbudget.db.retries import T, connect, retry
from govbudget.db.sql import prepare
from govbudget.db.unit import Report, Unit
from govbudget.errors import SettingsError
from govbudget.new_ids import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    import sqlalchemy as sa

    from govbudget.authz.policy import Policy
    from govbudget.db.governed import Governed, Ungoverned
    from govbudget.directory.protocol import Directory
    from govbudget.identity import Id, Operator
    from govbudget.settings import Settings


def leave_to_database() -> None:
    """Give no time: the database's clock counts."""


def _require_connection(given: Any) -> Connection:  # noqa: ANN401 - what a host takes for one
    """Give a host's connection back; raise TypeError for a session, an engine, or anything else."""
    if not isinstance(given, Connection):
        kind = type(given).__name__
        raise TypeError(f"`connection=` is a `{kind}`; give a Connection: `session.connection()`")
    return given


@dataclass(eq=False, repr=False)
class Gov:
    """A policy, a directory and a database: what units of work are opened from.

    `find_engine` gives the engine of units that bring no connection, for an organization or None,
    the site; `clock` gives the time (with its zone), or None for the database's.
    """

    settings: Settings
    policy: Policy
    directory: Directory
    find_engine: Callable[[Id | None], Engine | Connection]
    clock: Callable[[], datetime | None] = leave_to_database
    _prepared: dict[tuple[Governed[Any], bool, bool], sa.Executable] = field(
        init=False, default_factory=dict
    )

    def find(self, governed: Governed[Any], elsewhere: bool, is_first: bool) -> sa.Executable:  # noqa: FBT001 - the key of a case
        """Give the statement as this installation has it; it is prepared when first asked for."""
        case = governed, elsewhere, is_first
        if case not in self._prepared:
            self._prepared[case] = governed.prepare(self, elsewhere=elsewhere, is_first=is_first)
        return self._prepared[case]

    def execute(self, connection: Connection, ungoverned: Ungoverned, **values: object) -> Any:  # noqa: ANN401 - rows, which SQLAlchemy 2.0 and 2.1 type differently
        """Run a statement that needs no right, on the caller's connection. Never commits."""
        layout, parts = self.settings.layout, ungoverned.parts(self)
        return connection.execute(prepare(ungoverned.text, layout, (), **parts), values)

    @cached_property
    def _schemas(self) -> frozenset[str | None]:
        """The schemas of the directory's tables, as they are named."""
        directory = self.directory
        sources = directory.groups, directory.group_members, directory.organization_members
        parts = (part for source in sources for part in iterate(source))
        return frozenset(part.schema for part in parts if isinstance(part, TableClause))

    def check_schemas(self, connection: Connection) -> None:
        """Raise SettingsError where a load would read other tables than our own SQL names.

        That is where a `schema_translate_map` renames a schema of the directory's.
        """
        renamed = connection.get_execution_options().get("schema_translate_map")
        if renamed and (wrong := self._schemas & renamed.keys()):
            raise SettingsError(
                f"the connection's `schema_translate_map` renames `{next(iter(wrong))}`, in which"
                " `directory=` has tables; give those tables the schema that they are really in"
            )

    @contextmanager
    def unit(
        self,
        caller: Id | Operator,
        *,
        connection: Connection | None = None,
        organization: Id | None = None,
        atomic: bool = False,
        request_id: str | None = None,
    ) -> Iterator[Unit]:
        """Open a unit of work of one caller.

        On the given connection, on which it never commits, rolls back, closes or sets anything; or
        on one of its own: in AUTOCOMMIT, so that each statement commits itself, or `atomic`, in a
        transaction that is committed where the block ends well. Where there are several databases
        it is one of the organization's, without an `organization` one of the site's; a slot may
        stand for it (`Databases.read_slot` reads that of a hold's id). Its grants end with it. What
        was done on one of its own, and is committed, is then announced.
        Raises TypeError for a caller that is not an id, such as None (nobody is signed in), for an
        organization that is not, and for a session in place of its connection.
        """
        level = "READ COMMITTED" if atomic else "AUTOCOMMIT"
        given = None if connection is None else nullcontext(_require_connection(connection))
        if not (organization is None or isinstance(organization, Slot)):
            organization = self.settings.id_type.accept(organization)  # one spelling, one slot
        reports: list[Report] = []
        is_committed = not atomic  # each statement commits itself
        try:
            with given or connect(self.find_engine(organization), level) as used:
                # An engine that is a connection of the host's has given a savepoint of it.
                is_ours = given is None and not used.in_nested_transaction()
                unit = Unit(self, caller, used, request_id, owns_connection=is_ours)
                try:
                    yield unit
                finally:
                    unit.is_open, reports = False, unit.reports
            is_committed = True
        finally:
            if reports and is_committed and given is None:
                self.announce(reports)

    def announce(self, reports: Iterable[Report]) -> None:
        """Announce what a unit of work has done: here, to nobody."""

    def run(
        self,
        caller: Id | Operator,
        work: Callable[[Unit], T],
        *,
        organization: Id | None = None,
        atomic: bool = False,
        request_id: str | None = None,
    ) -> T:
        """Run work in a unit of its own, on a connection of its own.

        After a serialization failure or a deadlock it is run again in a new one, four times in all.
        """

        def attempt() -> T:
            with self.unit(
                caller, organization=organization, atomic=atomic, request_id=request_id
            ) as unit:
                return work(unit)

        return retry(attempt)
