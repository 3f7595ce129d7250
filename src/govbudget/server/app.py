"""The stand-alone application: govbudget's own tables, bearer tokens, health, JSON logs."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from govbudget.authz.policy import Policy
from govbudget.db.connection import CONNECT_TIMEOUT_SECONDS, open_bounded, open_engine
from govbudget.db.databases import Databases
from govbudget.db.group_search import search_groups
from govbudget.db.own_pool import find_own
from govbudget.db.retries import MISFITS, MIXED_UP, T, connect, explain_outage, find_sqlstate, run
from govbudget.db.revisions import head_revision, read_revision
from govbudget.db.rights import find_lack
from govbudget.db.tables import require_own_tables
from govbudget.directory.sql import own_directory
from govbudget.errors import GovBudgetError, SettingsError
from govbudget.extension import GovBudget
from govbudget.identity import Id
from govbudget.server.sessions import Sessions, open_sessions
from govbudget.server.tokens import TOKEN_PREFIX, BearerTokens
from govbudget.settings import PREFIX, Settings, read_settings
from govbudget.web import requestlog
from govbudget.web.destination import find_request_organization
from govbudget.web.problems import answer_http_error, dump_json

Run = Callable[[Callable[[sa.Connection], Any]], Any]
logger = logging.getLogger("govbudget")

STATEMENT_TIMEOUT_MS = 5000
# A probe of a load balancer waits a second. Who is well has answered by then.
READY_SECONDS = 0.7
READY, SILENT = "ready", "the database has not answered yet"
# What a session starts with, whatever is set for the database or the role. A statement that waits
# for a lock has a connection meanwhile, which others wait for.
OPTIONS = {
    "statement_timeout": STATEMENT_TIMEOUT_MS,
    "lock_timeout": 1000,
    "default_transaction_isolation": "read\\ committed",
    "datestyle": "ISO",
    "timezone": "UTC",
    "idle_session_timeout": 0,  # the pool keeps what is idle, and would find it closed
}


class JsonLines(logging.Formatter):
    """Writes each record as one JSON object in ASCII, so that no text in it can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a request's facts, or any other message, with time and level."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
        }
        facts = getattr(record, "govbudget", None)
        if facts is None:
            line |= {"logger": record.name, "message": record.getMessage()}
            if record.exc_info:
                line["exception"] = self.formatException(record.exc_info)
        else:
            line |= facts
        return json.dumps(line, default=str)


def log_as_json() -> None:
    """Send everything that is logged in this process to standard output, as JSON lines.

    Warnings of Python too, and the traceback of what nobody caught.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("govbudget").setLevel(logging.INFO)
    logging.captureWarnings(capture=True)

    def log(error: BaseException | None) -> None:
        logger.critical("nobody caught this", exc_info=error)

    sys.excepthook = lambda _type, error, _trace: log(error)
    threading.excepthook = lambda caught: log(caught.exc_value)
    sys.unraisablehook = lambda caught: log(caught.exc_value)


class _Pool(sa.QueuePool):
    """Lets nobody wait for a connection while its database keeps silent: others need the thread."""

    def _do_get(self) -> Any:  # noqa: ANN401 - SQLAlchemy's
        try:
            return super()._do_get()
        except Exception:
            self._timeout = 0
            raise

    def _do_return_conn(self, record: Any) -> None:  # noqa: ANN401
        self._timeout = 0 if record.dbapi_connection is None else CONNECT_TIMEOUT_SECONDS
        super()._do_return_conn(record)


def make_engine(url: sa.URL, connections: int) -> sa.Engine:
    """Make an engine that gives up in time: a database that is away is a 503, soon."""
    ours = (f"-c {name}={value}" for name, value in OPTIONS.items())
    given = url.query.get("options")
    # The later of two has the say; an empty `options=` sends none, which a pooler may not take.
    options = "" if given == "" else " ".join((*ours, str(given or "")))
    engine = open_engine(
        url.update_query_dict({"options": options}),
        isolation_level="AUTOCOMMIT",
        poolclass=_Pool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_SECONDS,
        pool_use_lifo=True,  # the one used last, whose plans and pages are at hand
        hide_parameters=True,  # the text of an error goes to the log; what a caller sent does not
    )
    sa.event.listen(
        engine, "do_connect", lambda _, __, address, named: open_bounded(*address, **named)
    )
    return engine


def create_app(
    engine: sa.Engine | Databases, environment: Mapping[str, str], policy: Policy | None = None
) -> Flask:
    """Make the stand-alone application from `GOVBUDGET_*` variables.

    `policy` is one that was loaded under them already; default: it is loaded.
    """
    app = Flask("govbudget")
    app.config.update({k: v for k, v in environment.items() if k.startswith(PREFIX)})
    settings = _read_settings(app.config)
    tables = require_own_tables(settings.layout)
    tokens = BearerTokens(tables)
    # For all, one pool a database: no view here holds a connection of another pool.
    named = [("", engine)] if isinstance(engine, sa.Engine) else engine
    engines = {slots: find_own(one) for slots, one in named}

    def run_here(work: Callable[[sa.Connection], T]) -> T:
        """Run work in the database of the request."""
        return run(gov.find_engine(find_request_organization()), work)

    def is_caller_known(connection: sa.Connection) -> bool:
        secret = _read_secret()
        if secret is None:
            return sessions is not None and sessions.find_user(connection) is not None
        return tokens.find_user(connection, secret) is not None

    gov = GovBudget().init_app(
        app,
        engine=engine,
        identify=partial(_identify, tokens, run_here),
        policy=policy,
        organization_of=search_groups([*engines.values()], own_directory(tables), is_caller_known),
    )
    look_up = partial(_look_up, run_here, [*engines.values()])
    sessions = open_sessions(gov, tokens, look_up)  # type: ignore[arg-type]  # it has spend
    _own_site(app, gov.challenge, sessions)
    app.get("/readyz", endpoint="readyz")(partial(_answer_ready, engines, settings))
    return app


def _read_settings(config: Mapping[str, object]) -> Settings:
    """Read the settings; raise SettingsError for one that only an application of yours can have."""
    settings = read_settings(config)
    if settings.base_template is not None:
        raise SettingsError(
            "GOVBUDGET_BASE_TEMPLATE is for pages in an application of yours, whose template it "
            "is; unset it for `serve`"
        )
    return settings


def _own_site(app: Flask, challenge: str, sessions: Sessions | None) -> None:
    """Answer and log wherever there is no route, too: the site is all ours."""
    app.get("/healthz", endpoint="healthz")(lambda: _answer("ok"))

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        response = answer_http_error(error, challenge)
        if sessions is not None:
            response = sessions.show_problem(response)
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.before_request
    def start_record() -> None:
        if not request.blueprint:
            requestlog.start_record()

    @app.after_request
    def finish_record(response: Response) -> Response:
        return response if request.blueprint else requestlog.finish_record(response)


def _identify(tokens: BearerTokens, here: Run, /) -> Id:
    """Give the user whose live token came with this request."""
    secret = _read_secret()
    user: Id | None = secret and here(lambda connection: tokens.find_user(connection, secret))
    if user is None:
        hint = "send `Authorization: Bearer TOKEN`; `govbudget token create USER` prints a token"
        raise GovBudgetError("unauthenticated", hint)
    return user


def _read_secret() -> str | None:
    """Read the bearer token that came with this request; None: what came is not one of ours."""
    credentials = request.authorization
    if credentials is None or credentials.type != "bearer":
        return None
    secret = credentials.token or ""
    return secret if secret.startswith(TOKEN_PREFIX) else None


def _look_up(here: Run, engines: Sequence[sa.Engine], work: Callable[[sa.Connection], Any]) -> Any:  # noqa: ANN401 - what the work gives
    """Run work that asks for a session's token: of no organization, in the first that answers."""
    if find_request_organization() is not None:
        return here(work)
    *others, last = engines
    for one in others:
        with suppress(sa.exc.SQLAlchemyError):
            return run(one, work)
    return run(last, work)


def _answer(status: str, code: int = 200, **more: object) -> Response:
    answer = {"status": status, **more}
    return Response(dump_json(answer), status=code, mimetype="application/json")


def _answer_ready(engines: Mapping[str, sa.Engine], settings: Settings) -> Response:
    """Say whether the database is ready; of several, whether one is, and what each is.

    One that keeps silent does not keep the answer for longer than `READY_SECONDS`.
    """
    if len(engines) == 1:
        (engine,) = engines.values()
        obstacle = _find_obstacle_of(engine, settings)
        return _answer(READY) if obstacle is None else _answer(obstacle, 503)
    pool = ThreadPoolExecutor(len(engines))
    asked = {
        slots: pool.submit(_find_obstacle_of, engine, settings, f"database {slots}: ")
        for slots, engine in engines.items()
    }
    pool.shutdown(wait=False)
    done, others = wait(asked.values(), READY_SECONDS)
    if all(one.result() is not None for one in done):
        wait(others)
    found = {
        slots: (one.result() or READY) if one.done() else SILENT for slots, one in asked.items()
    }
    if READY in found.values():
        return _answer(READY, databases=found)
    return _answer("no database is ready", 503, databases=found)


def _find_obstacle_of(engine: sa.Engine, settings: Settings, about: str = "") -> str | None:
    """Say in a sentence why a database can't serve now, and log it; None: it can."""
    is_silent = False
    try:
        obstacle = cause = run(engine, lambda c: find_obstacle(c, settings))
    except sa.exc.SQLAlchemyError as error:
        away = explain_outage(error) is not None
        obstacle = f"the database {'does not answer' if away else 'refuses to be asked'}"
        obstacle = MISFITS.get(find_sqlstate(error) or "", obstacle)
        cause = str(error).splitlines()[0]
        is_silent = away and find_sqlstate(error) is None
    if obstacle is not None:
        logger.error("not ready: %s%s", about, cause)
    if obstacle is not None and not is_silent:
        # Connections keep some settings for life, and the server that they reached. The next ask
        # has new ones. Where nothing answered, a new pool would let callers wait for it once more.
        engine.dispose()
    return obstacle


_SESSION = sa.text(
    "SELECT pg_backend_pid(), pg_is_in_recovery(),"
    " current_setting('transaction_read_only')::boolean,"
    " current_setting('session_replication_role') = 'replica'"
)
_NAMES = sa.text(
    "SELECT pg_backend_pid(),"
    " EXISTS (SELECT FROM pg_prepared_statements WHERE starts_with(name, '_pg3_'))"
)


def _mixes_up(connection: sa.Connection) -> bool:
    """Say whether a pooler lends a session to one client after another, with what they prepared.

    One that keeps them apart gives the statements names of its own.
    """
    connection.detach()  # there is room for one client more, also in a pool of one
    with connect(connection.engine) as other:
        clients = (connection, other, other, connection) * 4  # so often that psycopg prepares
        found = [(client, *client.execute(_NAMES).one()) for client in clients]
    sessions = {(client, process) for client, process, _ in found}
    is_lent = len(sessions) > 2 or len({process for _, process in sessions}) < 2  # noqa: PLR2004
    return is_lent and any(is_named for *_, is_named in found)


def find_obstacle(connection: sa.Connection, settings: Settings) -> str | None:
    """Say in a sentence why this database can't serve requests now; None: it can."""
    obstacle = _find_obstacle_of_session(connection)
    if obstacle is not None:
        return obstacle
    revision, needed = read_revision(connection, settings.layout), head_revision()
    if revision != needed:
        found = "not there" if revision is None else f"at revision `{revision}`"
        return f"the schema is {found}, and `{needed}` is needed; run `govbudget db upgrade`"
    lack = find_lack(connection, settings.layout)
    if lack is not None:
        return f"the database's role has no {lack}; run what `govbudget db grants ROLE` prints"
    # It fails if the server does not know the zone: its list is not the one that Python has.
    connection.execute(sa.select(sa.func.timezone(settings.time_zone, sa.func.now())))
    return None


def _find_obstacle_of_session(connection: sa.Connection) -> str | None:
    process, is_standby, is_read_only, is_replica = connection.execute(_SESSION).one()
    # A pooler gives a number of its own to each client.
    if process != connection.connection.dbapi_connection.info.backend_pid and _mixes_up(connection):  # type: ignore[union-attr]
        return MIXED_UP
    if is_standby:
        return "the database is a standby; name its primary, or promote it"
    if is_read_only:
        return "the database is read-only; see its setting `default_transaction_read_only`"
    if is_replica:
        return (
            "no trigger writes the audit trail; see the setting `session_replication_role` of the"
            " database and of the role"
        )
    return None
