"""What a host may give as `engine=`, and how the engine of a unit of work is found in it."""

from __future__ import annotations

import inspect
import json
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Protocol

from flask import current_app, has_request_context
from sqlalchemy import Connection, Dialect, Engine
from werkzeug.exceptions import HTTPException

from govbudget.db.databases import Databases
from govbudget.db.own_pool import find_own
from govbudget.errors import SettingsError
from govbudget.new_ids import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from govbudget.identity import Id

    AnyEngine = Engine | Connection
    AnyCallable = Callable[[], AnyEngine] | Callable[[Id | None], AnyEngine]


class HasEngine(Protocol):
    """The `db` of Flask-SQLAlchemy, or of Flask-SQLAlchemy-Lite."""

    @property
    def engine(self) -> AnyEngine:
        """The engine of the current application."""


def find_with(given: object, app: Flask) -> Callable[[Id | None], AnyEngine]:
    """Give what gives the engine, and checks it; raise SettingsError for what can't be one."""
    if isinstance(given, Engine | Connection):
        engine = _check_engine(given)
        return lambda _: engine
    # A session is callable too, but is not an engine. Its class is not imported: that is slow.
    is_session = type(given).__module__.startswith("sqlalchemy.orm.")
    if callable(given) and not is_session:
        give = given
        if _needs_organization(give):
            if not isinstance(give, Databases):
                return lambda organization: _check_engine(_ask(give, organization))
            for _, one in give:
                _check_engine(one)
            return lambda organization: _check_engine(give(organization))
        return lambda _: _check_engine(_ask(give))
    if not hasattr(type(given), "engine"):
        raise SettingsError(
            "GovBudget needs `engine=`, a SQLAlchemy Engine for PostgreSQL, the `db` of "
            "Flask-SQLAlchemy, or a `Databases` of several engines"
        )
    db: Any = given

    def find(_: Id | None) -> AnyEngine:
        with nullcontext() if current_app == app else app.app_context():
            return _check_engine(_find_default(db))

    with suppress(RuntimeError):  # its own `init_app` may come later
        find(None)
    return find


def _find_default(db: Any) -> object:  # noqa: ANN401 - of an extension of the host's
    try:
        return db.engine
    except LookupError as error:
        raise SettingsError(
            "the `db` of `engine=` has no default engine, only binds; name the bind that has your "
            "groups: `engine=lambda: db.engines['NAME']`"
        ) from error


def _ask(give: Callable[..., object], *organization: Id | None) -> object:
    """Ask a function of the host's; raise TypeError for a slot, which it would take for an id."""
    if organization and isinstance(organization[0], Slot):
        raise TypeError(
            "`engine=` is a function, which knows no slots; give `organization=` the id of the "
            "hold's organization"
        )
    try:
        given = give(*organization)
    except HTTPException:
        raise
    except (LookupError, AttributeError, RuntimeError) as error:
        lacks = []
        if organization:
            lacks.append("of an organization that is not known, such as that of the site (None)")
        if not has_request_context():
            lacks.append("outside of a request")
        if not lacks:
            raise
        raise SettingsError(
            f"`engine=` ended in `{type(error).__name__}`; let it give an engine also "
            f"{', and '.join(lacks)}"
        ) from error
    if isinstance(given, Connection) and not given.in_transaction():
        raise SettingsError(
            "`engine=` gave a Connection that is in no transaction, so nothing would commit what is"
            " done there; give its Engine"
        )
    return given


def takes(given: object, *arguments: object) -> bool | None:
    """Say whether it can be called with these arguments; None: its signature is not known."""
    if not callable(given):
        return False
    try:
        inspect.signature(given).bind(*arguments)
    except TypeError:
        return False
    except (ValueError, RuntimeError):  # it is not of Python, or a proxy outside its context
        return None
    return True


def _needs_organization(give: object) -> bool:
    """Say whether it is a callable that needs an argument; SettingsError: it is not clear."""
    if not callable(give):
        return False
    takes_none, takes_one = takes(give), takes(give, None)
    if takes_none == takes_one is not None:
        wrong = "can be called with and without an" if takes_one else "needs several"
        raise SettingsError(
            f"`engine=` is a callable that {wrong} argument{'' if takes_one else 's'}; let it take "
            "none, such as `lambda: find_engine()`, or need one: the id of an organization"
        )
    return bool(takes_one)


def may_be_several(engine: object) -> bool:
    """Say whether `engine=` may give several databases."""
    is_one = isinstance(engine, Databases) and len(engine.list_first()) == 1
    return _needs_organization(engine) and not is_one


def _check_engine(engine: object) -> AnyEngine:
    """Give the engine over a pool of our own; raise SettingsError where it can't serve."""
    if not isinstance(engine, Engine | Connection):
        raise SettingsError(
            f"`engine=` gave `{type(engine).__name__}`; give a SQLAlchemy Engine or Connection, "
            "also of an organization that is not known"
        )
    dialect = engine.dialect
    if (dialect.name, dialect.driver) != ("postgresql", "psycopg"):
        raise SettingsError(
            f"`engine=` is for `{dialect.name}+{dialect.driver}`, but govbudget keeps its data in "
            "PostgreSQL and reaches it with psycopg 3; give an engine whose URL starts with "
            "`postgresql+psycopg://`"
        )
    if dialect.is_async:
        raise SettingsError(
            "`engine=` is asynchronous, but govbudget is not; give an engine of `create_engine`"
        )
    _check_json(dialect)
    if isinstance(engine, Connection):
        return engine
    return _find_isolated(engine) or find_own(engine)


def _check_json(dialect: Dialect) -> None:
    """Refuse what writes or reads JSON as something else: receipts of the audit trail, say."""
    plain = {"policy_lines": ["a:1"], "limit": 10**18, "none": None}
    write = getattr(dialect, "_json_serializer", None) or json.dumps
    read = getattr(dialect, "_json_deserializer", None) or json.loads
    with suppress(Exception):
        if json.loads(write(plain)) == plain == read(json.dumps(plain).encode()):
            return
    raise SettingsError(
        "`engine=` has a `json_serializer=` or `json_deserializer=` that makes something else of "
        "JSON; give an engine of its own, made without them"
    )


def _find_isolated(engine: Engine) -> Connection | None:
    """Give the connection of a test that has put it into the engine, in a transaction.

    `test_isolation` of Flask-SQLAlchemy-Lite does; a pool of our own would commit for real.
    """
    connect = vars(engine).get("connect")
    connection = connect() if connect else None
    if connection is None or connection.in_transaction():
        return connection
    connection.close()
    return None
