"""`govbudget serve`: the stand-alone server on gunicorn, with threads."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa
from flask import Flask

from govbudget.authz.policy import Policy
from govbudget.cli.host import find_host
from govbudget.db.connection import DATABASE_URL, normalize_url, open_engine
from govbudget.db.databases import Databases
from govbudget.db.urls import ALL_SLOTS, read_urls
from govbudget.errors import GovBudgetError, SettingsError
from govbudget.installation import Installation
from govbudget.server.app import create_app, log_as_json, make_engine
from govbudget.server.embedded import say_extra, start_postgres
from govbudget.server.sessions import SECRET_KEY
from govbudget.settings import read_settings

LISTENING = "listening on "
DRAIN_SECONDS = 30

_say = partial(click.echo, err=True)
logger = logging.getLogger("govbudget")


def _number(name: str, default: int, limits: tuple[int, int], text: str) -> Callable[[Any], Any]:
    kind = click.IntRange(*limits)
    return click.option(name, type=kind, default=default, help=text)


def _read_folder(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Path | None:
    if text == "":  # a variable that is not set; as a path it would be the working directory
        raise click.BadParameter("is empty; name a folder for the data")
    return None if text is None else Path(text)


@click.command()
@click.option("--host", default="127.0.0.1", help="The address to listen on.")
@_number("--port", 8080, (0, 65535), "The port to listen on; 0: a free one.")
@_number("--workers", 2, (1, 64), "Processes. One for each core is best.")
@_number("--threads", 80, (1, 1024), "Threads of a process, each for one request at a time.")
@_number("--connections", 8, (1, 256), "Most connections of a process to a database.")
@click.option(
    "--embedded",
    metavar="DIR",
    type=click.Path(file_okay=False),
    callback=_read_folder,
    help="Start a PostgreSQL with its data in DIR. For trying, not for production.",
)
def serve(  # noqa: PLR0917 - click passes them by name
    host: str, port: int, workers: int, threads: int, connections: int, embedded: Path | None
) -> None:
    """Serve the endpoints, /healthz and /readyz; callers send bearer tokens (`govbudget token`).

    Settings come from the environment; set at least GOVBUDGET_DATABASE_URL, or for several
    databases GOVBUDGET_DATABASE_URLS. SIGHUP starts workers with the policy's files as they are
    then. If these are refused, the policy stays as it was.
    """
    if find_host() is not None:
        raise SettingsError(
            "`serve` is the stand-alone server; this application serves the endpoints itself"
        )
    make_server = _import_server()
    policy = _load_policy()
    databases = _run_embedded(embedded) if embedded else nullcontext(read_urls(os.environ))
    _require_free(host, port)
    with _hangups_held(), databases as urls:

        def load() -> Flask:
            engines = {slots: make_engine(url, connections) for slots, url in urls.items()}
            return create_app(Databases(engines), os.environ, policy)

        options = {
            "bind": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"],
            "workers": workers,
            "threads": threads,
            "on_reload": lambda _arbiter: _reload(policy),
        }
        log_as_json()
        if not os.environ.get(SECRET_KEY):
            logger.info("there are no pages: set `%s` to 32 or more random characters", SECRET_KEY)
        make_server({**OPTIONS, **options}, load).run()


@contextmanager
def _hangups_held() -> Iterator[None]:
    """Let SIGHUP wait until there is something to reload.

    Until then it would end this process alone, and leave the database of its own running.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _run_embedded(folder: Path) -> Iterator[dict[str, sa.URL]]:
    """Run a PostgreSQL for the length of the block, migrated; give its URL, and print it."""
    from govbudget.migrations import upgrade  # imports Alembic, which nothing else here needs

    layout = read_settings(os.environ).layout
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with start_postgres(folder, _say) as address:
        url = normalize_url(address)
        with open_engine(url, poolclass=sa.NullPool).begin() as connection:
            upgrade(connection, layout)
        # It has no password to hide.
        shown = url.set(drivername="postgresql").render_as_string(hide_password=False)
        _say("for other commands, paste the next line into another shell:")
        _say(f"export {DATABASE_URL}='{shown}'")
        yield {ALL_SLOTS: url}


def _import_server() -> Callable[[dict[str, object], Callable[[], Flask]], Any]:
    """Give what makes a server of its options and the application's loader."""
    try:
        from govbudget.server.workers import Server
    except ImportError:
        raise SettingsError(f"gunicorn is not installed; {say_extra('serve')}") from None
    return Server


def _load_policy() -> Policy:
    """Load the policy; raise where it or a setting is wrong, before anything starts."""
    app = create_app(sa.create_engine(normalize_url("postgresql://")), os.environ)
    gov: Installation = app.extensions["govbudget"]
    return gov.policy


def _reload(policy: Policy) -> None:
    """Read the policy's files anew on SIGHUP, in the process that the workers are forked from."""
    # INVARIANT: all workers have the policy of the process that they are forked from
    try:
        policy.reload()
    except GovBudgetError as error:
        logger.error("SIGHUP: the policy stays as it was: %s", error.detail)  # noqa: TRY400 - said


def _require_free(host: str, port: int) -> None:
    """Raise SettingsError where one can't listen: gunicorn would try for seconds, and say pages."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SettingsError(
            f"can't listen on `{host}` port {port}: {reason}; name another `--host` or `--port`"
        ) from None


def _start_arbiter(server: Any) -> None:  # noqa: ANN401 - gunicorn ships no types
    """Say where we listen, and let a first Ctrl-C finish what is in flight, as SIGTERM does.

    gunicorn's own answer to SIGINT raises SystemExit wherever a worker happens to be. A second one
    still gets that.
    """
    at_once = signal.getsignal(signal.SIGINT)

    def finish(*_: object) -> None:
        signal.signal(signal.SIGINT, at_once)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, finish)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    host, port = server.LISTENERS[0].sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _say(f"{LISTENING}http://{shown}:{port}")


def _start_worker(_worker: Any) -> None:  # noqa: ANN401 - gunicorn ships no types
    """Leave Ctrl-C, which a terminal sends to all of us, to the arbiter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# What gunicorn is run with, whatever a caller says.
OPTIONS = {
    "graceful_timeout": DRAIN_SECONDS,
    "forwarded_allow_ips": "",  # no client says where the application is, or how it came
    "sendfile": False,  # it would wait for a client for ever
    "control_socket_disable": True,  # of newer gunicorns: a second way in, in the home
    "when_ready": _start_arbiter,
    "post_worker_init": _start_worker,
    "loglevel": "warning",
}
