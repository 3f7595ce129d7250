"""A pytest plugin for an application's own tests: what govbudget does is rolled back with each.

It loads where it is asked for: `pytest_plugins = ["govbudget.testing.host"]` in the top
`conftest.py`. It needs a fixture `app` of yours: the Flask application, with GovBudget installed.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.dialects.postgresql import insert

from govbudget.db.retries import connect
from govbudget.db.tables import Tables
from govbudget.identity import Group, Id
from govbudget.ids import IdType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask

    from govbudget.installation import Installation

__all__ = ["Setup", "govbudget"]

SAVEPOINT = re.compile(r"(SAVEPOINT|RELEASE SAVEPOINT|ROLLBACK TO SAVEPOINT) (\w+)$")
# A query after WITH may write; then a word says so.
READING = re.compile(
    r"\s*(SELECT|WITH\b(?!.*\b(INSERT|UPDATE|DELETE|MERGE)))\b", re.IGNORECASE | re.DOTALL
)
OURS, READ, WRITTEN = "OURS", "READ", "WRITTEN"


@pytest.fixture
def govbudget(app: Flask) -> Iterator[Setup]:
    """Run all of govbudget's work, HTTP and `hold()`, in a transaction that is rolled back.

    Where `engine=` gives a Connection, that is used, and is the application's to roll back. Of
    several databases all is done in the site's.
    """
    gov: Installation = app.extensions["govbudget"]
    with app.app_context():
        found, find_engine = gov.find_engine(None), gov.find_engine
    if isinstance(found, Connection) and found.closed:
        pytest.fail("`engine=` gives a closed connection: put the engine back when a test ends")
    is_kept = False
    with nullcontext(found) if isinstance(found, Connection) else found.connect() as connection:
        if connection is not found:
            connection.execution_options(isolation_level="READ COMMITTED")
            whole = connection.begin()
        savepoints = _Savepoints(connection)
        event.listen(connection, "before_cursor_execute", savepoints.follow)
        gov.find_engine = savepoints.lend
        try:
            yield Setup(gov, connection)
        finally:
            gov.find_engine = find_engine
            event.remove(connection, "before_cursor_execute", savepoints.follow)
            if connection is not found:
                is_kept = not whole.is_active
                connection.rollback()
    if is_kept:
        pytest.fail("the test ended the transaction of `govbudget.connection`, so rows are kept")


class _Savepoints:
    """Keeps what govbudget did in a savepoint of the application's that only govbudget wrote in.

    A session opens a savepoint at its first statement, such as that of a log-in, and rolls it back
    when the request ends. Outside of tests govbudget has a connection of its own, and its work
    stays; so it stays here, unless the application itself wrote something that must go.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.open: dict[str, str] = {}  # from the outermost: whose it is, or what was done there
        self.is_lent = False

    def lend(self, _: Id | None) -> Connection:
        """Give the connection to a unit of work of govbudget's, which opens the next savepoint."""
        self.is_lent = True
        return self.connection

    def follow(self, _: Connection, cursor: Any, statement: str, *_others: object) -> None:  # noqa: ANN401 - of the driver
        """Note what a statement does to the savepoints, before it is sent."""
        found = SAVEPOINT.match(statement)
        if found is None:
            if OURS not in self.open.values() and not READING.match(statement):
                self.open = dict.fromkeys(self.open, WRITTEN)
            return
        verb, name = found.groups()
        if verb == "SAVEPOINT":
            self.open[name] = OURS if self.is_lent else READ
            self.is_lent = False
            return
        state = None
        while name in self.open:
            state = self.open.popitem()[1]
        status = cursor.connection.info.transaction_status
        if verb != "RELEASE SAVEPOINT" and state == READ and status == status.INTRANS:
            cursor.execute(f"SAVEPOINT {name}")  # this one is rolled back then


@dataclass(frozen=True, slots=True, repr=False)
class Setup:
    """Puts rows into govbudget's tables, without asking the policy, on the test's `connection`."""

    gov: Installation
    connection: Connection

    def add_group(self, *members: Id, organization: Id | None = None) -> Group:
        """Add a group with these members, in an organization that is added where it is missing.

        Raises ValueError where groups are in tables of the application's own.
        """
        place = organization or self._make_id()
        group = Group(self._make_id(), place)
        here = {"organization_id": place}
        self._put("organizations", {"id": place, "name": "an organization"})
        self._put("groups", {"id": group.id, "name": "a group", **here})
        for user in members:
            self._put("users", {"id": user, "name": "somebody"})
            self._put("organization_members", {"user_id": user, **here})
            self._put("group_members", {"group_id": group.id, "user_id": user, **here})
        return group

    def add_role(self, user: Id, role: str, organization: Id | None = None) -> None:
        """Give a user a role in an organization, or on the site.

        Raises ValueError where roles are in tables of the application's own.
        """
        held = {"user_id": user, "role": role, "organization_id": organization}
        self._put("users", {"id": user, "name": "somebody"})
        self._put("role_assignments", {"id": uuid4(), **held})

    def set_price(self, provider: str, model: str, **prices: int) -> None:
        """Set a custom price: `input_price=` and the like, in micros per one million tokens."""
        names = {"provider": provider, "model": model, "source": "custom"}
        self._put("ai_model_prices", {**names, **prices}, is_own=False)

    def set_limit(self, group: Id, limit_micros: int) -> None:
        """Set what each member of a group may spend in a month, in micros."""
        row = {"group_id": group, "spend_limit_micros": limit_micros, "revision": uuid4()}
        self._put("group_ai_budgets", row, is_own=False)

    def _make_id(self) -> Id:
        made, kind = uuid4(), self.gov.settings.id_type
        return made.int >> 65 if kind is IdType.BIGINT else kind.accept(str(made))

    def _put(self, name: str, row: dict[str, Any], *, is_own: bool = True) -> None:
        """Put a row into a table: of our own directory if it is missing, else in its place."""
        layout = self.gov.settings.layout
        if is_own and not layout.owns_directory:
            message = f"`{name}` are in tables of your own; add yours there, in this transaction"
            raise ValueError(message)
        table = getattr(Tables(layout), name)
        put = insert(table).values(row)
        replacing = put.on_conflict_do_update(constraint=table.primary_key, set_=row)
        with connect(self.gov.find_engine(None)) as connection:
            connection.execute(put.on_conflict_do_nothing() if is_own else replacing)
