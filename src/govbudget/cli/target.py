"""What a command works on: the host's installation inside a host, else the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

import sqlalchemy as sa
from flask import current_app, has_app_context
from sqlalchemy import Connection, Engine

from govbudget.authz.policy import Policy
from govbudget.cli import NotSo
from govbudget.db.connection import DATABASE_URL, normalize_url, open_engine
from govbudget.db.gov import Gov
from govbudget.db.retries import T
from govbudget.db.tables import Tables, require_own_tables
from govbudget.db.unit import Unit
from govbudget.directory.protocol import Directory
from govbudget.directory.sql import own_directory
from govbudget.errors import SettingsError
from govbudget.identity import OPERATOR, Id
from govbudget.installation import Installation
from govbudget.settings import Settings, read_settings

POLICY_DIR = "GOVBUDGET_POLICY_DIR"


@dataclass(frozen=True, slots=True)
class Target:
    """A database, and the settings that say how it is laid out."""

    engine: Engine
    settings: Settings

    @property
    def tables(self) -> Tables:
        """The tables; raise SettingsError where the directory is not govbudget's own."""
        return Tables(self.settings.layout)

    def parse_id(self, text: str) -> Id:
        """Read an id; raise `invalid-id` for what is not of the configured type."""
        return self.settings.id_type.parse(text)

    @property
    def directory(self) -> Directory:
        """The host's directory, else govbudget's own; SettingsError: only the host knows it."""
        home = find_installation()
        return (
            home.directory
            if home is not None
            else own_directory(require_own_tables(self.settings.layout))
        )


def find_installation() -> Installation | None:
    """Give the installation of the host application that the command runs in, if any."""
    if not has_app_context():
        return None
    home: Installation | None = current_app.extensions.get("govbudget")
    return home


def find_settings() -> Settings:
    """Give the host's settings, else the environment's."""
    home = find_installation()
    return home.settings if home is not None else read_settings(os.environ)


@contextmanager
def open_target() -> Iterator[Target]:
    """Find the database to work on; raise SettingsError where none is named."""
    home, settings = find_installation(), find_settings()
    if home is not None:
        # A host's engine may commit by itself; a command's changes are made together or not at all.
        engine = home.find_engine()
        if isinstance(engine, Connection):
            raise SettingsError("`engine=` gives a Connection; a command needs an Engine")
        yield Target(engine.execution_options(isolation_level="READ COMMITTED"), settings)
        return
    engine = open_engine(read_database_url(), poolclass=sa.NullPool)
    try:
        yield Target(engine, settings)
    finally:
        engine.dispose()


class _HostsDirectory:
    """Stands for the directory of a host that the command does not run in."""

    def __init__(self, refusal: SettingsError) -> None:
        self._refusal = refusal

    def __getattr__(self, name: str) -> NoReturn:
        raise self._refusal


def _open_directory(settings: Settings) -> Directory:
    """Give govbudget's own directory, or what raises SettingsError once it is asked."""
    try:
        return own_directory(require_own_tables(settings.layout))
    except SettingsError as refusal:
        return cast("Directory", _HostsDirectory(refusal))


@contextmanager
def open_gov() -> Iterator[Gov]:
    """Find what a command works with: the host's installation, else the environment's.

    Raises SettingsError where no database is named, PolicyError for a policy with findings.
    """
    home = find_installation()
    if home is not None:
        yield home
        return
    settings, policy = find_settings(), find_policy()
    engine = open_engine(read_database_url(), poolclass=sa.NullPool)
    try:
        yield Gov(settings, policy, _open_directory(settings), lambda: engine)
    finally:
        engine.dispose()


def run_as_operator(work: Callable[[Unit], T]) -> T:
    """Run work as the operator, all or nothing; see `Gov.run`."""
    with open_gov() as gov:
        return gov.run(OPERATOR, work, atomic=True)


def require_known(unit: Unit, organization: Id) -> None:
    """Raise NotSo where the directory has no such organization."""
    if not unit.knows(organization):
        raise NotSo(f"no organization `{organization}` is known here")


def read_database_url() -> sa.URL:
    """Read GOVBUDGET_DATABASE_URL; raise SettingsError where it is missing or malformed."""
    text = os.environ.get(DATABASE_URL)
    if not text:
        raise SettingsError(
            f"no database: set {DATABASE_URL}, for example postgresql://user@host/database; "
            "`govbudget serve --embedded DIR` runs one for trying"
        )
    return normalize_url(text)


def find_policy_dir(argument: str | None = None) -> Path | None:
    """Give the folder asked about: the argument, the host's, the environment's; else None."""
    home = find_installation()
    if not argument and home is not None:
        return home.policy.folder
    folder = argument or os.environ.get(POLICY_DIR)
    return Path(folder) if folder else None


def find_policy() -> Policy:
    """Load the policy in force: the host's, the environment's, or the packaged one."""
    home = find_installation()
    if home is not None:
        return home.policy
    return Policy.load(find_policy_dir(), digest=find_settings().policy_digest)
