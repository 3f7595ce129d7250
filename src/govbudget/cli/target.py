"""What a command works on: the host's installation inside a host, else the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from flask import current_app, has_app_context
from sqlalchemy import Connection, Engine

from govbudget.authz.grant import Grant
from govbudget.authz.policy import Policy
from govbudget.cli import NotSo
from govbudget.connection import DATABASE_URL, normalize_url, open_engine
from govbudget.directory.sql import own_directory
from govbudget.errors import SettingsError
from govbudget.identity import (
    OPERATOR,
    SITE,
    Action,
    Assignment,
    Directory,
    Id,
    Object,
    Organization,
    Scope,
    Subject,
)
from govbudget.installation import Installation
from govbudget.settings import Settings, read_settings
from govbudget.tables import Tables

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
            else own_directory(self.settings.require_own_directory())
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


@dataclass(frozen=True, slots=True)
class Operator(Target):
    """Who runs a command: whoever has the database holds every role of the site, under a policy."""

    connection: Connection
    policy: Policy

    @property
    def subject(self) -> Subject:
        """The subject that the policy is asked about, in the connection's transaction."""
        scopes = self.policy.table.scopes
        held = tuple(Assignment(role, SITE) for role in scopes if scopes[role] is Scope.SITE)
        return Subject(OPERATOR, held, self.connection.get_transaction())

    def authorize(self, action: Action, obj: Object) -> Grant:
        """Give a grant for this action on this object, as `Policy.authorize` does."""
        return self.policy.authorize(self.subject, action, obj)

    def require_known(self, organization: Organization) -> None:
        """Raise NotSo where the organization has no group: in our own tables each has Everyone."""
        groups = self.directory.groups
        wanted = sa.select(groups.c.id).where(groups.c.organization_id == organization.id)
        if not self.connection.scalar(sa.select(wanted.exists())):
            raise NotSo(f"no organization `{organization.id}` is known here")


@contextmanager
def open_as_operator() -> Iterator[Operator]:
    """Begin a transaction on the target, to act in it as its operator under the policy in force."""
    policy = find_policy()
    with open_target() as target, target.engine.begin() as connection:
        yield Operator(target.engine, target.settings, connection, policy)
