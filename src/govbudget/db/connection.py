"""Connections of our own, those of `serve` and of the commands: in UTF-8, with an end to waiting.

A host's connections are the host's: nothing is set on them.
"""

from __future__ import annotations

import math
import time
from typing import Any, TypeVar, cast

import psycopg
import sqlalchemy as sa
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict

from govbudget.errors import SettingsError

T = TypeVar("T")

DATABASE_URL = "GOVBUDGET_DATABASE_URL"
CONNECT_TIMEOUT_SECONDS = 5
GRACE_SECONDS = 2

# Parameters of libpq, which a URL overrides. A server that vanishes without a word is given up on
# when it acknowledges nothing, or is silent, for so long.
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
DEFAULTS = {
    "client_encoding": "utf8",
    "connect_timeout": str(CONNECT_TIMEOUT_SECONDS),
    "tcp_user_timeout": "5000",  # milliseconds
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
}


def normalize_url(text: str, name: str = DATABASE_URL) -> sa.URL:
    """Read a PostgreSQL URL as libpq does: several hosts, a socket's folder, any parameter.

    `name` is that of the setting. Raises SettingsError, whose text shows nothing that may be a part
    of a password.
    """
    scheme, separator, rest = text.partition("://")
    backend = scheme.partition("+")[0]
    if separator and backend not in {"postgresql", "postgres"}:
        raise SettingsError(f"{name} names `{backend}`; name a PostgreSQL, 15 or later")
    authority, _, path = rest.partition("/")
    if authority.count("@") > 1 or "@" in path:
        raise _refuse(name, "percent-encode what is special in the password, such as %40 for `@`")
    try:
        parts: dict[str, Any] = conninfo_to_dict(f"postgresql://{rest}" if separator else text)
    except psycopg.Error as error:
        is_secret = not separator or "@" in rest or "password" in rest
        raise _refuse(name, "" if is_secret else str(error).strip()) from None
    if not text.strip():  # libpq would take what its own variables name
        raise _refuse(name, "it is empty")
    user, password, database = (parts.pop(name, None) for name in ("user", "password", "dbname"))
    if not all(port.isdecimal() for port in parts.get("port", "").split(",") if port):
        raise _refuse(name, "the port is not a number")
    if parts.get("port", "").isdecimal():  # one, for all hosts: SQLAlchemy wants one for each
        parts["port"] = ",".join([parts["port"]] * (parts.get("host", "").count(",") + 1))
    return sa.URL.create("postgresql+psycopg", user, password, database=database, query=parts)


def open_engine(url: sa.URL, **options: Any) -> sa.Engine:  # noqa: ANN401 - of `create_engine`
    """Make an engine with the defaults of our own connections; it refuses other encodings."""
    engine = sa.create_engine(url.set(query={**DEFAULTS, **url.query}), **options)
    sa.event.listen(engine, "connect", _require_utf8)
    return engine


def _require_utf8(connection: psycopg.Connection[Any], _record: object) -> None:
    """Refuse a database that can't hold every name; the error is as one of the server's."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise psycopg.OperationalError(
            f"the encoding of the database `{connection.info.dbname}` is {encoding}; name one that"
            " was made with ENCODING 'UTF8'"
        )


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that closes where the server keeps silent for longer than it may.

    A server that hangs, or waits for a standby that is away, keeps none of its own timeouts, and
    while its machine is up TCP finds nothing wrong.
    """

    silence_seconds: float = CONNECT_TIMEOUT_SECONDS  # infinite where statements have no limit

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:  # noqa: ANN401 - psycopg's
        """Wait for the server, as psycopg does; OperationalError: it is silent for too long."""
        return super().wait(self._bound(gen), *args, **options)

    def _bound(self, work: PQGen[T]) -> PQGen[T]:
        end, ready = time.monotonic() + self.silence_seconds, cast("Any", None)
        while True:
            try:
                wanted = work.send(ready)
            except StopIteration as done:
                return cast("T", done.value)
            ready = yield wanted
            if not ready and time.monotonic() > end:
                self.close()
                raise psycopg.OperationalError("the server is silent for too long")


def open_bounded(*address: Any, **parameters: Any) -> BoundedConnection:  # noqa: ANN401 - psycopg's
    """Connect, and wait for no statement for longer than the server lets it run, and a little."""
    connection = BoundedConnection.connect(*address, **parameters, autocommit=True)
    query = "SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'"
    (limit_ms,) = connection.execute(query).fetchone() or (0,)
    connection.silence_seconds = limit_ms / 1000 + GRACE_SECONDS if limit_ms else math.inf
    connection.autocommit = False
    return connection


def _refuse(name: str, reason: str) -> SettingsError:
    example = "write postgresql://user@host/database"
    return SettingsError(f"{name} is not a database URL; {reason or example}")
