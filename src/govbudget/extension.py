"""The Flask extension: wires settings, policy, directory and blueprint into an application."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

import sqlalchemy as sa
from flask import current_app, has_app_context
from flask.cli import with_appcontext
from sqlalchemy import Connection, Engine
from sqlalchemy.sql.visitors import iterate

from govbudget.audit.store import AuditStore
from govbudget.authz.policy import Policy
from govbudget.authz.reader import suggest
from govbudget.budgets.store import BudgetStore
from govbudget.cli import cli
from govbudget.directory.sql import SqlDirectory, own_directory
from govbudget.errors import SettingsError
from govbudget.identity import Scope
from govbudget.ids import IdType
from govbudget.installation import Installation
from govbudget.prices.store import PriceStore
from govbudget.settings import Settings, read_features, read_settings
from govbudget.spend.overrides import OverrideStore
from govbudget.spend.reports import SpendReports
from govbudget.spend.store import SpendStore
from govbudget.spend.usage import DEFAULT_TTL_SECONDS
from govbudget.tables import Tables
from govbudget.web.blueprint import NAME, make_blueprint
from govbudget.web.own_pool import find_own

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractContextManager
    from os import PathLike

    from click import Command
    from flask import Flask

    from govbudget.identity import Directory, Id
    from govbudget.spend.open_hold import OpenHold
    from govbudget.spend.tokens import Tokens
    from govbudget.spend.usage import Call

    AnyEngine = Engine | Connection


@dataclass(frozen=True, slots=True)
class _Arguments:
    engine: AnyEngine | Callable[[], AnyEngine] | None
    identify: Callable[[], object] | None
    policy: Policy | str | PathLike[str] | None
    features: AbstractSet[str] | Callable[[], AbstractSet[str]] | None
    directory: Directory | None
    challenge: str


class GovBudget:
    """AI budgets for a Flask application. Holds no application: one object can serve several."""

    def __init__(
        self,
        app: Flask | None = None,
        *,
        engine: AnyEngine | Callable[[], AnyEngine] | None = None,
        identify: Callable[[], object] | None = None,
        policy: Policy | str | PathLike[str] | None = None,
        features: AbstractSet[str] | Callable[[], AbstractSet[str]] | None = None,
        directory: Directory | None = None,
        challenge: str = "Bearer",
    ) -> None:
        """Take the arguments of `init_app`, and call it where an application is given."""
        self._apps: WeakSet[Flask] = WeakSet()
        self._arguments = _Arguments(engine, identify, policy, features, directory, challenge)
        if app is not None:
            self.init_app(app)

    def hold(
        self,
        gateway: Id,
        call: Call,
        tokens: Tokens,
        *,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
    ) -> AbstractContextManager[OpenHold]:
        """Hold what a call costs for a block of code: `Installation.hold` of the current app.

        Outside of any it is the one application that this object was installed in.
        """
        apps = [current_app] if has_app_context() else list(self._apps)
        homes = [app.extensions[NAME] for app in apps if NAME in app.extensions]
        if len(homes) != 1:
            raise SettingsError(
                f"hold() is asked of {len(homes)} applications; call it in the context of one that "
                'has govbudget, or take `app.extensions["govbudget"].hold`'
            )
        home: Installation = homes[0]
        return home.hold(gateway, call, tokens, ttl_seconds=ttl_seconds)

    def init_app(
        self,
        app: Flask,
        *,
        engine: AnyEngine | Callable[[], AnyEngine] | None = None,
        identify: Callable[[], object] | None = None,
        policy: Policy | str | PathLike[str] | None = None,
        features: AbstractSet[str] | Callable[[], AbstractSet[str]] | None = None,
        directory: Directory | None = None,
        challenge: str | None = None,
    ) -> Installation:
        """Install the endpoints into an application; sends no SQL.

        - `engine`: an Engine, or a callable that gives one, called in each request. Its dialect,
          listeners and creator are used, with a pool of our own of the same size, which closes with
          it. Or a Connection, for tests: all happens in savepoints of its transaction.
        - `identify`: gives the caller's id (of the id type, or its text), or None.
        - `policy`: a Policy, or the absolute path of a folder; default: the packaged policy.
        - `features`: the features that are on, or a callable asked at each request.
        - `directory`: where subjects and groups are loaded from; default: govbudget's own tables.
        - `challenge`: the `WWW-Authenticate` of a 401.

        Raises SettingsError, or PolicyError with every finding; the application then has nothing
        of govbudget.
        """
        given = self._arguments
        if NAME in app.extensions:
            raise SettingsError(f"GovBudget is installed in `{app.name}` already; install it once")
        if NAME in app.blueprints:
            raise SettingsError(f"a blueprint of `{app.name}` is called `{NAME}`; rename that one")
        settings = read_settings(app.config)
        engine = engine or given.engine
        if not (isinstance(engine, Engine | Connection) or callable(engine)):
            raise SettingsError("GovBudget needs `engine=`, a SQLAlchemy Engine for PostgreSQL")
        identify = identify or given.identify
        if not callable(identify):
            raise SettingsError(
                "GovBudget needs `identify=`, a function that gives the caller's id, or None"
            )
        tables = Tables(settings.layout)
        directory = directory or given.directory
        if directory is None:
            if not settings.layout.owns_directory:
                raise SettingsError(
                    "GOVBUDGET_GROUPS names groups of your own, so GovBudget needs `directory=`, a "
                    "SqlDirectory over your tables or an object with the Directory protocol"
                )
            directory = own_directory(tables)
        loaded = _load_policy(policy if policy is not None else given.policy, settings)
        if isinstance(directory, SqlDirectory):
            _check_roles(directory, loaded)
            _check_groups(directory, tables)
        home = Installation(
            settings=settings,
            policy=loaded,
            directory=directory,
            budgets=BudgetStore(tables, directory.groups, settings.budget_object),
            prices=PriceStore(tables),
            spend=SpendStore(tables, directory, settings.spend_rules),
            overrides=OverrideStore(tables, directory, settings.budget_object),
            reports=SpendReports(tables, directory, settings.budget_object, settings.spend_rules),
            audit=AuditStore(tables, settings.budget_object),
            find_engine=_find_with(engine),
            identify=identify,
            find_features=_read_features_argument(
                features if features is not None else given.features, settings
            ),
            challenge=challenge or given.challenge,
            app=app,
        )
        app.register_blueprint(make_blueprint(home))
        app.cli.add_command(_make_command(), NAME)
        app.extensions[NAME] = home
        self._apps.add(app)
        return home


def _check_roles(directory: SqlDirectory, policy: Policy) -> None:
    """Refuse a mapping to a role that the policy does not know, or that no assignment can give."""
    placed = {Scope.SITE, Scope.ORGANIZATION}
    assignable = {role for role, scope in policy.table.scopes.items() if scope in placed}
    for role in sorted(directory.named_roles - assignable):
        raise SettingsError(
            f"`roles=` of the SqlDirectory names `{role}`, which the policy in `{policy.folder}` "
            f"gives nobody on the site or in an organization; {suggest(role, assignable)}"
        )


def _check_groups(directory: SqlDirectory, tables: Tables) -> None:
    """Refuse groups with ids of another type, or that budgets could not refer to."""
    kinds = {IdType.UUID: sa.Uuid, IdType.BIGINT: sa.Integer, IdType.TEXT: sa.String}
    found = directory.groups.c.id.type
    for id_type, kind in kinds.items():
        if isinstance(found, kind) and id_type is not tables.layout.id_type:
            raise SettingsError(
                f"GOVBUDGET_ID_TYPE is `{tables.layout.id_type}`, but the ids of the groups in "
                f"`directory=` are `{id_type}`; set it to that"
            )
    if not tables.layout.owns_directory:
        return
    own = tables.groups.fullname
    if all(getattr(part, "fullname", None) != own for part in iterate(directory.groups)):
        raise SettingsError(
            "`directory=` has groups of your own, but GOVBUDGET_GROUPS is `own`; write the "
            "`schema.table.column` of your groups' ids, or `none`"
        )


def _make_command() -> Command:
    """Make `flask govbudget`: the command inside the application that Flask was told to load."""
    command = copy(cli)
    command.callback = with_appcontext(lambda: None)
    return command


def _load_policy(policy: Policy | str | PathLike[str] | None, settings: Settings) -> Policy:
    """Load the policy, and refuse one that judges budgets as something else than is asked about."""
    loaded = _open_policy(policy, settings)
    judged_as = loaded.table.budget_object
    if judged_as is not settings.budget_object:
        raise SettingsError(
            f"GOVBUDGET_BUDGET_OBJECT is `{settings.budget_object}`, but the policy in "
            f"`{loaded.folder}` judges budgets as `{judged_as}`; set it to that"
        )
    return loaded


def _open_policy(policy: Policy | str | PathLike[str] | None, settings: Settings) -> Policy:
    if isinstance(policy, Policy):
        if settings.policy_digest not in (None, policy.digest):
            raise SettingsError(
                f"GOVBUDGET_POLICY_DIGEST demands {settings.policy_digest}, but `policy=` has "
                f"{policy.digest}"
            )
        return policy
    folder = Path(policy) if policy is not None else settings.policy_dir
    if folder is not None and not folder.is_absolute():
        raise SettingsError(
            f"the policy folder `{folder}` is a relative path, which depends on where the process "
            "was started; give the absolute path"
        )
    return Policy.load(folder, digest=settings.policy_digest)


def _find_with(given: AnyEngine | Callable[[], AnyEngine]) -> Callable[[], AnyEngine]:
    def find() -> AnyEngine:
        engine = given() if callable(given) else given
        return find_own(engine) if isinstance(engine, Engine) else engine

    return find


def _read_features_argument(
    features: AbstractSet[str] | Callable[[], AbstractSet[str]] | None, settings: Settings
) -> Callable[[], frozenset[str]]:
    if features is None:
        return lambda: settings.features
    if callable(features):
        return lambda: read_features("features=", features())
    fixed = read_features("features=", features)
    return lambda: fixed
