"""The Flask extension: wires settings, policy, directory and blueprint into an application."""

from __future__ import annotations

import inspect
from contextlib import nullcontext, suppress
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack, cast

import sqlalchemy as sa
from flask import Blueprint, Flask, current_app
from flask.cli import with_appcontext
from sqlalchemy import Connection, Engine
from sqlalchemy.sql.visitors import iterate

from govbudget.authz.policy import Policy
from govbudget.authz.reader import suggest
from govbudget.cli import cli
from govbudget.db.databases import Databases
from govbudget.db.own_pool import find_own
from govbudget.db.tables import Tables
from govbudget.directory.sql import GROUP_MEMBER, SqlDirectory, own_directory
from govbudget.errors import SettingsError
from govbudget.identity import Id, Scope
from govbudget.ids import IdType
from govbudget.installation import Installation
from govbudget.new_ids import Slot
from govbudget.parts import load_part
from govbudget.settings import Settings, read_features, read_settings, read_url_prefix
from govbudget.web.blueprint import NAME, make_blueprint
from govbudget.web.routes import list_routes

if TYPE_CHECKING:
    from collections.abc import Callable, Set as AbstractSet
    from os import PathLike

    from click import Command

    from govbudget.directory.protocol import Directory

    AnyEngine = Engine | Connection
    AnyCallable = Callable[[], AnyEngine] | Callable[[Id | None], AnyEngine]


class HasEngine(Protocol):
    """The `db` of Flask-SQLAlchemy, or of Flask-SQLAlchemy-Lite."""

    @property
    def engine(self) -> AnyEngine:
        """The engine of the current application."""


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
        if NAME in app.extensions:
            raise SettingsError(f"GovBudget is installed in `{app.name}` already; install it once")
        if NAME in app.blueprints:
            raise SettingsError(f"a blueprint of `{app.name}` is called `{NAME}`; rename that one")
        if app.url_map.host_matching:
            raise SettingsError(
                f"`{app.name}` has `host_matching`, so no endpoint without a host is ever found; "
                "install GovBudget in an application without it, and mount that one beside it"
            )
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


def _install(app: Flask, given: Options) -> Installation:
    """Check what was given, in this order, and make the installation of it."""
    settings = read_settings(app.config)
    engine: Any = given.get("engine")
    find_engine, identify = _find_with(engine, app), given.get("identify")
    if identify is None or _takes(identify) is False:
        raise SettingsError(
            "GovBudget needs `identify=`, a function without arguments that gives the caller's id, "
            "or None"
        )
    organization_of: Any = given.get("organization_of")
    if organization_of is not None and _takes(organization_of, None) is False:
        raise SettingsError(
            "`organization_of=` can't be called with a group's id; give a function of that one "
            "argument"
        )
    tables = Tables(settings.layout)
    directory = given.get("directory") or _find_own_directory(tables)
    policy = _load_policy(given.get("policy"), settings)
    _check_directory(directory, policy, tables)
    spend = bool(given.get("spend", True))
    make = load_part("spend").Installation if spend else Installation
    return make(
        settings=settings,
        policy=policy,
        directory=directory,
        find_engine=find_engine,
        identify=identify,
        find_features=_find_features(given.get("features"), settings),
        challenge=given.get("challenge") or "Bearer",
        app=app,
        routes=list_routes(spend=spend),
        databases=engine if _may_be_several(engine) else None,
        organization_of=organization_of,
    )


def _make_pages(gov: Installation, given: Options) -> Blueprint | None:
    """Make the blueprint of the pages, where the application has some."""
    if "pages" not in given:
        return None
    prefix = read_url_prefix("pages=", given["pages"], "/ai")
    if not given.get("spend", True):
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


def _load_policy(policy: Policy | str | PathLike[str] | None, settings: Settings) -> Policy:
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
    folder = Path(policy) if policy is not None else settings.policy_dir
    if folder is not None and not folder.is_absolute():
        raise SettingsError(
            f"the policy folder `{folder}` is a relative path, which depends on where the process "
            "was started; give the absolute path"
        )
    required = policy is None if settings.require_matrix is None else settings.require_matrix
    return Policy.load(folder, digest=settings.policy_digest, require_matrix=required)


def _find_with(given: object, app: Flask) -> Callable[[Id | None], AnyEngine]:
    """Give what gives the engine, and checks it; raise SettingsError for what can't be one."""
    if isinstance(given, Engine | Connection):
        engine = _check_engine(given)
        return lambda _: engine
    if callable(given):
        give = given
        if _needs_organization(give):
            if not isinstance(give, Databases):
                return lambda organization: _check_engine(_ask(give, organization))
            for _, one in give:
                _check_engine(one)
            return lambda organization: _check_engine(give(organization))
        return lambda _: _check_engine(give())
    if not hasattr(type(given), "engine"):
        raise SettingsError(
            "GovBudget needs `engine=`, a SQLAlchemy Engine for PostgreSQL, the `db` of "
            "Flask-SQLAlchemy, or a `Databases` of several engines"
        )
    db: Any = given

    def find(_: Id | None) -> AnyEngine:
        with nullcontext() if current_app == app else app.app_context():
            return _check_engine(db.engine)

    with suppress(RuntimeError):  # its own `init_app` may come later
        find(None)
    return find


def _ask(give: Callable[..., object], organization: Id | None) -> object:
    """Ask a function of the host's; raise TypeError for a slot, which it would take for an id."""
    if isinstance(organization, Slot):
        raise TypeError(
            "`engine=` is a function, which knows no slots; give `organization=` the id of the "
            "hold's organization"
        )
    try:
        return give(organization)
    except LookupError as error:
        raise SettingsError(
            f"`engine=` ended in `{type(error).__name__}`; let it give an engine also of an "
            "organization that is not known, such as that of the site (None)"
        ) from error


def _takes(given: object, *arguments: object) -> bool | None:
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
    takes_none, takes_one = _takes(give), _takes(give, None)
    if takes_none == takes_one is not None:
        wrong = "can be called with and without an" if takes_one else "needs several"
        raise SettingsError(
            f"`engine=` is a callable that {wrong} argument{'' if takes_one else 's'}; let it take "
            "none, such as `lambda: find_engine()`, or need one: the id of an organization"
        )
    return bool(takes_one)


def _may_be_several(engine: object) -> bool:
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
    if isinstance(engine, Connection):
        return engine
    return _find_isolated(engine) or find_own(engine)


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


def _find_features(
    features: AbstractSet[str] | Callable[[], AbstractSet[str]] | None, settings: Settings
) -> Callable[[], frozenset[str]]:
    if callable(features):
        if _takes(features) is False:
            raise SettingsError("`features=` needs an argument; give a function without any")
        return lambda: read_features("features=", features())
    fixed = settings.features if features is None else read_features("features=", features)
    return lambda: fixed
