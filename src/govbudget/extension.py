"""The Flask extension: wires settings, policy, directory and blueprint into an application."""

from __future__ import annotations

import inspect
from copy import copy
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import sqlalchemy as sa
from flask.cli import with_appcontext
from sqlalchemy.sql.visitors import iterate

from govbudget.authz.policy import Policy
from govbudget.authz.reader import suggest
from govbudget.cli import cli
from govbudget.db.tables import Tables
from govbudget.directory.sql import GROUP_MEMBER, SqlDirectory, own_directory
from govbudget.engines import find_with, may_be_several, takes
from govbudget.errors import SettingsError
from govbudget.identity import Id, Scope
from govbudget.ids import IdType
from govbudget.installation import Installation
from govbudget.parts import load_part
from govbudget.settings import (
    Settings,
    read_challenge,
    read_features,
    read_flag,
    read_settings,
    read_url_prefix,
)
from govbudget.web.blueprint import NAME, make_blueprint
from govbudget.web.routes import list_routes

if TYPE_CHECKING:
    from collections.abc import Callable, Set as AbstractSet

    from click import Command
    from flask import Blueprint, Flask

    from govbudget.directory.protocol import Directory
    from govbudget.engines import AnyCallable, AnyEngine, HasEngine


# Of a directory, by requests; `list_subjects` is for the commands, which say that it is missing.
_ASKED = (
    *("groups", "group_members", "organization_members"),
    *("load_subject", "load_group", "load_organization", "load_member"),
)


class Options(TypedDict, total=False):
    """What an application gives; `GovBudget.init_app` says what each is. None is not given."""

    engine: AnyEngine | HasEngine | AnyCallable | None
    organization_of: Callable[[Id], Id | None] | None
    identify: Callable[[], object] | None
    policy: Policy | str | PathLike[str] | None
    features: AbstractSet[str] | Callable[[], AbstractSet[str]] | None
    directory: Directory | None
    challenge: str | None
    spend: bool | None
    pages: str | None


class GovBudget:
    """AI budgets for a Flask application. Holds no application: one object can serve several."""

    def __init__(self, app: Flask | None = None, **options: Unpack[Options]) -> None:
        """Take the options of `init_app`, and call it where an application is given."""
        self._options = _read_options(options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, **options: Unpack[Options]) -> Installation:
        """Install the endpoints into an application; sends no SQL.

        An option that is not given here is taken from the constructor.

        - `engine`: an Engine; the `db` of Flask-SQLAlchemy or Flask-SQLAlchemy-Lite; or a callable
          that gives an Engine, called in each request. Its dialect, listeners and creator are used,
          with a pool of our own of the same size, which closes with it. Or a Connection, for tests:
          all happens in savepoints of its transaction, which stays yours to end. A callable that
          needs an argument gets the id of an organization, or None for the site: a `Databases`, or
          a function of yours. One whose argument is optional is refused.
        - `organization_of`: gives the organization's id of a group's, or None. Where there are
          several databases, the endpoints of a group need it, before a connection is taken.
        - `identify`: gives the caller's id (of the id type, or its text), or None.
        - `policy`: a Policy, or the absolute path of a folder; default: the packaged policy.
        - `features`: the features that are on, or a callable asked at each request.
        - `directory`: where subjects and groups are loaded from; default: govbudget's own tables.
        - `challenge`: the `WWW-Authenticate` of a 401; default: `Bearer`.
        - `spend`: whether calls are metered and held, with the endpoints for it; default: yes.
        - `pages`: the path that read-only pages are under, such as `/ai`; default: no pages.

        Raises SettingsError, or PolicyError with every finding; the application then has nothing
        of govbudget.
        """
        given: Options = {**self._options, **_read_options(options)}
        _check_app(app)
        gov = _install(app, given)
        pages = _make_pages(gov, given)
        app.register_blueprint(make_blueprint(gov))
        if pages is not None:
            app.register_blueprint(pages)
        app.cli.add_command(_make_command(), NAME)
        app.extensions[NAME] = gov
        return gov


def _read_options(options: Options) -> Options:
    """Leave out what is None; raise TypeError for an unknown option."""
    known = Options.__optional_keys__
    for name in sorted(options.keys() - known):
        raise TypeError(f"GovBudget has no option `{name}=`; {suggest(name, known)}")
    return cast("Options", {name: value for name, value in options.items() if value is not None})


def _check_app(app: Flask) -> None:
    """Refuse an application that has a GovBudget, or in which none can be found."""
    if NAME in app.extensions:
        raise SettingsError(f"GovBudget is installed in `{app.name}` already; install it once")
    if NAME in app.blueprints:
        raise SettingsError(f"a blueprint of `{app.name}` is called `{NAME}`; rename that one")
    if app.url_map.host_matching:
        raise SettingsError(
            f"`{app.name}` has `host_matching`, so no endpoint without a host is ever found; "
            "install GovBudget in an application without it, and mount that one beside it"
        )


def _install(app: Flask, given: Options) -> Installation:
    """Check what was given, in this order, and make the installation of it."""
    settings = read_settings(app.config)
    for name, one in given.items():
        if inspect.iscoroutinefunction(one):
            raise SettingsError(f"`{name}=` is an `async def`; give a plain function")
    engine: Any = given.get("engine")
    find_engine, identify = find_with(engine, app), given.get("identify")
    if identify is None or takes(identify) is False:
        raise SettingsError(
            "GovBudget needs `identify=`, a function without arguments that gives the caller's id, "
            "or None"
        )
    organization_of: Any = given.get("organization_of")
    if organization_of is not None and takes(organization_of, None) is False:
        raise SettingsError(
            "`organization_of=` can't be called with a group's id; give a function of that one "
            "argument"
        )
    tables = Tables(settings.layout)
    directory = given.get("directory") or _find_own_directory(tables)
    policy = _load_policy(given.get("policy"), settings)
    _check_directory(directory, policy, tables)
    spend = read_flag("spend=", given.get("spend", True))
    make = load_part("spend").Installation if spend else Installation
    return make(
        settings=settings,
        policy=policy,
        directory=directory,
        find_engine=find_engine,
        identify=identify,
        find_features=_find_features(given.get("features"), settings),
        challenge=read_challenge(given.get("challenge", "Bearer")),
        app=app,
        routes=list_routes(spend=spend),
        databases=engine if may_be_several(engine) else None,
        organization_of=organization_of,
    )


def _make_pages(gov: Installation, given: Options) -> Blueprint | None:
    """Make the blueprint of the pages, where the application has some."""
    if "pages" not in given:
        return None
    prefix = read_url_prefix("pages=", given["pages"], "/ai")
    if not hasattr(gov, "spend"):
        raise SettingsError(
            "`pages=` shows what was spent, so it needs spend; leave out `spend=False`"
        )
    pages: Blueprint = load_part("pages").make_blueprint(gov, prefix)
    return pages


def _find_own_directory(tables: Tables) -> Directory:
    if not tables.layout.owns_directory:
        raise SettingsError(
            "GOVBUDGET_GROUPS names groups of your own, so GovBudget needs `directory=`, a "
            "SqlDirectory over your tables or an object with the Directory protocol"
        )
    return own_directory(tables)


def _check_directory(directory: Directory, policy: Policy, tables: Tables) -> None:
    """Refuse what is not a directory, or does not go with the policy or the settings."""
    if isinstance(directory, SqlDirectory):
        _check_roles(directory, policy)
        _check_ids(directory, tables)
        _check_groups(directory, tables)
    elif isinstance(directory, type) or not hasattr(directory, "load_group"):
        raise SettingsError(
            "`directory=` is not a directory; give a SqlDirectory over your tables, or an object "
            "with the Directory protocol"
        )
    elif missing := [name for name in _ASKED if not hasattr(directory, name)]:
        kind, names = type(directory).__name__, ", ".join(f"`{name}`" for name in missing)
        raise SettingsError(
            f"`directory=`, a `{kind}`, lacks {names}; write what the Directory protocol asks of it"
        )


def _check_roles(directory: SqlDirectory, policy: Policy) -> None:
    """Refuse a role that the policy does not know, or that nobody can hold so."""
    scopes, member_role = policy.table.scopes, directory.member_role
    if member_role != GROUP_MEMBER and scopes.get(member_role) is not Scope.GROUP:
        raise SettingsError(
            f"`member_role=` of the SqlDirectory is `{member_role}`, which the policy in "
            f"`{policy.folder}` gives nobody in a group; name one of its roles with that scope"
        )
    placed = {Scope.SITE, Scope.ORGANIZATION}
    assignable = {role for role, scope in scopes.items() if scope in placed}
    for role in sorted(directory.named_roles - assignable):
        raise SettingsError(
            f"`roles=` of the SqlDirectory names `{role}`, which the policy in `{policy.folder}` "
            f"gives nobody on the site or in an organization; {suggest(role, assignable)}"
        )


def _check_ids(directory: SqlDirectory, tables: Tables) -> None:
    """Refuse ids of another type than the setting says."""
    kinds = {sa.Uuid: IdType.UUID, sa.Integer: IdType.BIGINT, sa.String: IdType.TEXT}
    of_all = tables.layout.id_type
    for argument, column in directory.list_ids():
        for kind, id_type in kinds.items():
            if isinstance(column.type, kind) and id_type is not of_all:
                raise SettingsError(
                    f"GOVBUDGET_ID_TYPE is `{of_all}`, but `{column.key}` in `{argument}=` of the "
                    f"SqlDirectory is `{id_type}`; all ids are of one type, so set it to theirs, "
                    "or cast the columns that differ"
                )


def _check_groups(directory: SqlDirectory, tables: Tables) -> None:
    """Refuse groups that budgets could not refer to."""
    if not tables.layout.owns_directory:
        return
    own = tables.groups.fullname
    if all(getattr(part, "fullname", None) != own for part in iterate(directory.groups)):
        raise SettingsError(
            "`directory=` has groups of your own, but GOVBUDGET_GROUPS is `own`; write the "
            "`schema.table.column` of your groups' ids, or `none`"
        )


def _make_command() -> Command:
    """Make `flask govbudget`: the command inside the application that Flask loads."""
    command = copy(cli)
    command.callback = with_appcontext(lambda: None)
    return command


def _load_policy(policy: object, settings: Settings) -> Policy:
    if isinstance(policy, Policy):
        if settings.policy_digest not in (None, policy.digest):
            raise SettingsError(
                f"GOVBUDGET_POLICY_DIGEST demands {settings.policy_digest}, but `policy=` has "
                f"{policy.digest}"
            )
        if settings.require_matrix and not policy.requires_matrix:
            raise SettingsError(
                "GOVBUDGET_REQUIRE_MATRIX is on, but `policy=` was loaded without "
                "`require_matrix=True`"
            )
        return policy
    if not isinstance(policy, str | PathLike | None):
        kind = type(policy).__name__
        raise SettingsError(f"`policy=` is a `{kind}`; give a Policy, or the path of a folder")
    folder = Path(policy) if policy is not None else settings.policy_dir
    if folder is not None and not folder.is_absolute():
        raise SettingsError(
            f"the policy folder `{folder}` is a relative path, which depends on where the process "
            "was started; give the absolute path"
        )
    required = policy is None if settings.require_matrix is None else settings.require_matrix
    return Policy.load(folder, digest=settings.policy_digest, require_matrix=required)


def _find_features(
    features: AbstractSet[str] | Callable[[], AbstractSet[str]] | None, settings: Settings
) -> Callable[[], frozenset[str]]:
    if callable(features):
        if takes(features) is False:
            raise SettingsError("`features=` needs an argument; give a function without any")
        return lambda: read_features("features=", features())
    fixed = settings.features if features is None else read_features("features=", features)
    return lambda: fixed
