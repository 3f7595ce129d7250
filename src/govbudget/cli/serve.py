"""`govbudget serve`: the stand-alone server on gunicorn, with threads."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import sqlalchemy as sa

from govbudget.cli.target import DATABASE_URL, read_database_url
from govbudget.embedded import start_postgres
from govbudget.errors import SettingsError
from govbudget.migrations import upgrade
from govbudget.settings import read_settings

if TYPE_CHECKING:
    from flask import Flask

LISTENING = "listening on "
DRAIN_SECONDS = 30


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--threads", type=click.IntRange(1, 256), default=8, show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option(
    "--embedded",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run a PostgreSQL of its own, with its data in DIR. For trying, not for production.",
)
def serve(host: str, port: int, threads: int, workers: int, embedded: Path | None) -> None:
    """Serve the endpoints, /healthz and /readyz; callers send bearer tokens (`govbudget token`).

    Reads GOVBUDGET_DATABASE_URL, GOVBUDGET_POLICY_DIR, GOVBUDGET_FEATURES.
    """
    try:
        from gunicorn.app.base import BaseApplication
    except ImportError:
        raise SettingsError("no server here; install `govbudget[serve]`") from None
    settings = read_settings(os.environ)
    with ExitStack() as stack:
        if embedded is None:
            if not os.environ.get(DATABASE_URL):
                raise SettingsError(
                    f"no database: set {DATABASE_URL} (postgresql://user@host/database), or let "
                    "`--embedded DIR` run one for trying"
                )
            url = read_database_url()
        else:
            signal.signal(signal.SIGTERM, _exit)
            say = lambda text: click.echo(text, err=True)  # noqa: E731
            url = sa.make_url(stack.enter_context(start_postgres(embedded, say)))
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            with engine.begin() as connection:
                upgrade(connection, settings.layout)

        class Server(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
            def load_config(self) -> None:
                options = {
                    "bind": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"],
                    "workers": workers,
                    "threads": threads,
                    "worker_class": "gthread",
                    "graceful_timeout": DRAIN_SECONDS,
                    "when_ready": _announce,
                    "loglevel": "warning",
                }
                for key, value in options.items():
                    self.cfg.set(key, value)

            def load(self) -> Flask:
                from govbudget.web.standalone import create_app, log_as_json, make_engine

                log_as_json()
                return create_app(make_engine(url, threads), os.environ)

        # A policy or a setting that is wrong is found before the first worker starts.
        from govbudget.web.standalone import create_app, make_engine

        create_app(make_engine(url, 1), os.environ)
        Server().run()


def _announce(server: Any) -> None:  # noqa: ANN401 - gunicorn ships no types
    host, port = server.LISTENERS[0].sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"{LISTENING}http://{shown}:{port}", err=True)


def _exit(*_: object) -> None:
    raise SystemExit(0)
