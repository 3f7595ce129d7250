"""A host's own tables: any selectable, any type of id, any names of roles; and its transaction."""

from __future__ import annotations

import enum
import re
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql
from tests.budgets.support import delete_orphans, watch
from tests.support import authorize, count_statements, make_gov, names_budget_table

from govbudget import (
    SITE,
    Assignment,
    Domain,
    GovBudget,
    Group,
    IdType,
    Layout,
    NotFound,
    Scope,
    SettingsError,
    SqlDirectory,
)
from govbudget.audit.store import Audit
from govbudget.budgets.store import Budgets
from govbudget.db.sql import write
from govbudget.db.tables import Tables
from govbudget.directory.sql import own_directory
from govbudget.migrations import upgrade
from govbudget.prices.price import Price
from govbudget.prices.store import Prices
from govbudget.spend.overrides import Overrides
from govbudget.testing.directory import KnownFacts, check_directory

pytestmark = pytest.mark.slow

NAMES = ("ann", "bob", "olga", "acme", "corp", "red", "blue", "all", "nobody")
KINDS = {
    IdType.UUID: (sa.Uuid(), [UUID(int=n) for n in range(1, 10)]),
    IdType.BIGINT: (sa.Integer(), range(1, 10)),  # 32 bits, as most hosts have them
    IdType.TEXT: (sa.String(12), [f'{n}\'s "{n}"' for n in range(1, 10)]),
}
ROLES = {"boss": "org-admin", "root": "owner"}


class Host:
    """Teams in companies, seats in teams, staff of companies; staff have duties."""

    def __init__(self, id_type):
        kind, ids = KINDS[id_type]
        self.id_type, self.kind = id_type, kind
        self.id = SimpleNamespace(**dict(zip(NAMES, ids, strict=True)))
        self.metadata = sa.MetaData(schema="host")
        self.teams = self._table(
            "teams",
            sa.Column("id", kind, primary_key=True, autoincrement=False),
            sa.Column("organization_id", kind),
            sa.Column("is_everyone", sa.Boolean),
            sa.Column("archived", sa.Boolean, server_default=sa.false()),
        )
        self.seats = self._table("seats", *self._ids("group_id", "user_id"))
        self.staff = self._table("staff", *self._ids("organization_id", "user_id"))
        words = ("boss", "cook", "root", "org-admin", "group-member", "seated")
        duty = sa.Enum(*words, name="duty", schema="host")
        self.duties = self._table(
            "duties", *self._ids("user_id", "organization_id"), sa.Column("role", duty)
        )

    def _table(self, name, *columns):
        return sa.Table(name, self.metadata, *columns)

    def _ids(self, *names):
        return [sa.Column(name, self.kind) for name in names]

    def make(self, connection):
        connection.exec_driver_sql("CREATE SCHEMA host")
        self.metadata.create_all(connection)
        i = self.id
        teams = [(i.red, i.acme, None), (i.blue, i.corp, False), (i.all, i.acme, True)]
        self.add(connection, self.teams, "id organization_id is_everyone", *teams)
        self.add(connection, self.seats, "group_id user_id", (i.red, i.ann))
        self.add(connection, self.staff, "organization_id user_id", (i.acme, i.ann))
        duties = [(i.bob, i.acme, "boss"), (i.olga, None, "root"), (i.ann, i.acme, "cook")]
        self.add(connection, self.duties, "user_id organization_id role", *duties)

    def add(self, connection, table, columns, *rows):
        values = [dict(zip(columns.split(), row, strict=True)) for row in rows]
        connection.execute(sa.insert(table), values)

    def facts(self):
        """What the conformance suite is told; `all` is left to a test of its own."""
        i = self.id
        return KnownFacts(
            member=i.ann,
            group=i.red,
            organization=i.acme,
            other_group=i.blue,
            other_organization=i.corp,
            administrator=i.bob,
            administrator_role="org-admin",
            site_holder=i.olga,
            site_role="owner",
            missing=i.nobody,
        )


def as_tables(host, connection):
    return {
        "groups": host.teams,
        "group_members": host.seats,
        "organization_members": host.staff,
        "role_assignments": host.duties,
    }


def as_views(host, connection):
    """Views that nobody described: names of columns, and no types."""
    views = {}
    for name, table in as_tables(host, connection).items():
        connection.exec_driver_sql(f"CREATE VIEW host.{name}_view AS SELECT * FROM {table}")
        columns = [sa.column(column.name) for column in table.c]
        views[name] = sa.table(f"{name}_view", *columns, schema="host")
    return views


def as_selects(host, connection):
    """Selects, as they are: from other names, and over more than one table."""
    teams, seats, staff, duties = (t.alias() for t in as_tables(host, connection).values())
    bosses = sa.select(duties.c.user_id, duties.c.role, duties.c.organization_id)
    return {
        "groups": sa.select(teams).where(~teams.c.archived),
        "group_members": sa.select(seats.c.user_id, seats.c.group_id).join(
            teams, teams.c.id == seats.c.group_id
        ),
        "organization_members": sa.select(staff).distinct(),
        "role_assignments": sa.union_all(
            bosses.where(duties.c.organization_id.is_not(None)),
            bosses.where(duties.c.organization_id.is_(None)),
        ),
    }


def as_subqueries(host, connection):
    selects = as_selects(host, connection)
    return {name: select.subquery(f"our {name}") for name, select in selects.items()}


def as_written(host, connection):
    """SQL that the host wrote by hand."""
    return {
        name: sa.text(f"SELECT * FROM {table}").columns(*table.c)
        for name, table in as_tables(host, connection).items()
    }


def as_classes(host, connection):
    """Classes that the host's ORM maps."""

    def map_class(name, table):
        mapped = type(name, (), {})
        orm.registry().map_imperatively(mapped, table, primary_key=list(table.c))
        return mapped

    return {name: map_class(name, table) for name, table in as_tables(host, connection).items()}


FORMS = [as_tables, as_views, as_selects, as_subqueries, as_written, as_classes]


@pytest.fixture(scope="module")
def host_url(make_database):
    return make_database()


@pytest.fixture
def connection(host_url):
    """Give a transaction in an empty database; it is rolled back."""
    engine = sa.create_engine(host_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


@pytest.fixture(params=IdType, ids=str)
def host(request, connection):
    host = Host(request.param)
    host.make(connection)
    return host


def open_directory(host, connection, form=as_tables, **options):
    return SqlDirectory(**form(host, connection), **{"roles": ROLES, **options})


def load(directory, connection, user, group):
    subject, loaded = directory.load_group(connection, user, group)
    return set(subject.assignments), loaded


def in_organization(role, organization):
    return Assignment(role, Domain(Scope.ORGANIZATION, organization))


def in_group(group, role="group-member"):
    return Assignment(role, Domain(Scope.GROUP, group))


# -- what may be named --


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_the_conformance_suite_finds_nothing_wrong(host, connection, form):
    """One statement each, ids of the host's type, tables, views, selects and subqueries alike."""
    connection.execute(sa.update(host.teams).values(is_everyone=False))
    directory = open_directory(host, connection, form)
    assert check_directory(directory, connection, host.facts()) == []


def test_each_load_is_one_statement_that_names_the_hosts_tables_only(host, connection):
    directory, i = open_directory(host, connection, as_selects), host.id
    for load_it in (
        lambda: directory.load_group(connection, i.ann, i.red),
        lambda: directory.load_organization(connection, i.ann, i.acme),
        lambda: directory.load_member(connection, i.bob, i.acme, i.ann),
        lambda: directory.load_subject(connection, i.ann),
        lambda: directory.load_assignments(connection, i.ann),
    ):
        with count_statements(connection.engine) as sent, watch(connection.engine) as seen:
            load_it()
        assert (len(sent), seen) == (1, [])
        assert not names_budget_table(sent[0])
        assert "govbudget." not in sent[0]  # the schema; CTEs are named govbudget_...


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_boolean_column_says_which_group_is_everyones(host, connection, form):
    """Whoever is in the company is in it; no row of the members' table is needed."""
    directory, i = open_directory(host, connection, form), host.id
    assert load(directory, connection, i.ann, i.all)[0] == {in_group(i.all)}
    assert load(directory, connection, i.nobody, i.all)[0] == set()
    subject, _ = directory.load_organization(connection, i.ann, i.acme)
    assert set(subject.assignments) == {in_group(i.red), in_group(i.all)}
    assert set(directory.load_assignments(connection, i.ann)) == set(subject.assignments)


def test_without_that_column_no_group_is_everyones(host, connection):
    plain = sa.select(host.teams.c.id, host.teams.c.organization_id)
    sources = {**as_tables(host, connection), "groups": plain}
    directory = SqlDirectory(**sources, roles=ROLES)
    assert load(directory, connection, host.id.ann, host.id.all)[0] == set()


def test_null_in_that_column_is_no(host, connection):
    directory, i = open_directory(host, connection), host.id
    connection.execute(sa.update(host.teams).values(is_everyone=None))
    assert load(directory, connection, i.ann, i.all)[0] == set()


def test_an_id_beyond_the_hosts_integers_is_not_found(connection):
    """It is an id, of no group: not an error of the database."""
    host = Host(IdType.BIGINT)
    host.make(connection)
    directory = open_directory(host, connection)
    for asked in (2**31, 2**63 - 1, -(2**63)):
        assert load(directory, connection, host.id.ann, asked) == (set(), None)
        assert load(directory, connection, asked, host.id.red)[0] == set()
        assert directory.load_organization(connection, asked, asked)[1] is None
        assert directory.load_member(connection, asked, host.id.acme, asked)[1] is None


def test_an_id_longer_than_the_hosts_texts_is_not_found(connection):
    """It is not cut down to one that is there."""
    host = Host(IdType.TEXT)
    host.make(connection)
    full = "x" * 12
    host.add(connection, host.teams, "id organization_id", (full, host.id.acme))
    directory = open_directory(host, connection)
    assert load(directory, connection, host.id.ann, full)[1] == Group(full, host.id.acme)
    assert load(directory, connection, host.id.ann, full + "y")[1] is None


class Spelled(sa.TypeDecorator):
    """A type of the host's own, for which an id is a text such as `team-1`."""

    impl = sa.Uuid
    cache_ok = True

    def process_bind_param(self, value, dialect):
        """Read it."""
        return UUID(value.removeprefix("team-"))

    def process_result_value(self, value, dialect):
        """Write it."""
        return f"team-{value}"


@pytest.mark.parametrize("kind", [sa.Uuid(as_uuid=False), Spelled()], ids=["Uuid", "Spelled"])
def test_ids_that_the_host_reads_as_something_else_are_uuids_here(connection, kind):
    """As the database has them, in a column of any type of the host's."""
    host = Host(IdType.UUID)
    host.make(connection)
    texts = sa.MetaData(schema="host")
    sources = {}
    for name, table in as_tables(host, connection).items():
        columns = [
            sa.Column(c.name, kind if isinstance(c.type, sa.Uuid) else c.type) for c in table.c
        ]
        sources[name] = sa.Table(table.name, texts, *columns)
    directory = SqlDirectory(**sources, roles=ROLES)
    connection.execute(sa.update(host.teams).values(is_everyone=False))
    assert check_directory(directory, connection, host.facts()) == []


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("groups", "id"),
        ("groups", "organization_id"),
        ("group_members", "user_id"),
        ("organization_members", "organization_id"),
        ("role_assignments", "role"),
    ],
)
def test_a_missing_column_is_named_at_start(name, column):
    host = Host(IdType.UUID)
    sources = as_tables(host, None)
    kept = [c for c in sources[name].c if c.name != column]
    sources[name] = sa.select(*kept)
    with pytest.raises(SettingsError, match=f"`{name}=` has no column `{column}`; it has `"):
        SqlDirectory(**sources)


class Model(orm.DeclarativeBase):
    """The base of a host's classes."""


class Seat(Model):
    """Its columns have other names than its attributes; a property is not a column."""

    __tablename__ = "seats"
    user_id: orm.Mapped[UUID] = orm.mapped_column("person", primary_key=True)
    group_id: orm.Mapped[UUID] = orm.mapped_column("team")

    @property
    def id(self):
        return self.user_id


def test_a_mapped_class_has_the_columns_that_its_attributes_are_called():
    directory = SqlDirectory(**{**as_tables(Host(IdType.UUID), None), "group_members": Seat})
    assert set(directory.group_members.c.keys()) == {"user_id", "group_id"}
    assert "seats.person AS user_id" in str(directory.group_members)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (Seat, "`groups=` has no column `id` and no `organization_id`; it has `user_id`, "),
        (orm.Session, "`groups=` is a `type`; give a table, a select or a mapped class"),
        ("teams", "`groups=` is a `str`; give a table, a select or a mapped class"),
        (None, "`groups=` is a `NoneType`; give a table"),
        (sa.text("SELECT * FROM teams"), "`groups=` is a `TextClause`; give a table"),
    ],
)
def test_what_is_nothing_to_select_from_is_refused_by_the_arguments_name(given, sentence):
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        SqlDirectory(**{**as_tables(Host(IdType.UUID), None), "groups": given})


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        (
            sa.column("kind") == sa.bindparam("kind"),
            "`groups=` has the parameter `kind`, whose value is not known at start",
        ),
        (
            sa.column("kind") == sa.bindparam("kind", callable_=lambda: "x"),
            "`groups=` has the parameter `kind`, whose value is not known at start",
        ),
        (
            sa.column("tags", postgresql.JSONB).contains({"a": 1}),
            "with datatype JSONB); if it is about a constant, write that as SQL: `sa.literal_col",
        ),
    ],
)
def test_a_select_that_could_not_be_asked_does_not_start(condition, sentence):
    """Each hold would fail, or go by the value of the first one."""
    sources = as_tables(Host(IdType.UUID), None)
    chosen = sa.select(sources["groups"]).where(condition)
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        SqlDirectory(**{**sources, "groups": chosen})


@pytest.mark.parametrize(
    "constant", ["org:team:", ":a:b", "a::b", "C:\\teams", r"\:", "50%", "it's"]
)
def test_the_hosts_constants_are_the_same_in_our_own_statements(connection, constant):
    """Else a group that may be seen would have no limit."""
    assert connection.scalar(sa.text(write(sa.select(sa.literal(constant))))) == constant


# -- the names of roles --


def test_with_a_mapping_only_mapped_roles_count(host, connection):
    """The host's `cook` is nobody here, and a role of the policy's name is not taken for it."""
    directory, i = open_directory(host, connection), host.id
    assert load(directory, connection, i.bob, i.red)[0] == {in_organization("org-admin", i.acme)}
    assert load(directory, connection, i.olga, i.red)[0] == {Assignment("owner", SITE)}
    assert directory.load_subject(connection, i.olga).assignments == (Assignment("owner", SITE),)
    swapped = open_directory(host, connection, roles={"cook": "org-admin", "org-admin": "owner"})
    assert load(swapped, connection, i.bob, i.red)[0] == set()
    assert swapped.load_assignments(connection, i.bob) == ()
    assert load(swapped, connection, i.ann, i.red)[0] == {
        in_organization("org-admin", i.acme),
        in_group(i.red),
    }


def test_without_a_mapping_roles_are_reported_as_they_are(host, connection):
    directory, i = open_directory(host, connection, roles=None), host.id
    assert load(directory, connection, i.bob, i.red)[0] == {in_organization("boss", i.acme)}
    assert load(directory, connection, i.ann, i.red)[0] == {
        in_organization("cook", i.acme),
        in_group(i.red),
    }


def test_an_empty_mapping_leaves_members_only(host, connection):
    directory, i = open_directory(host, connection, roles={}), host.id
    assert load(directory, connection, i.bob, i.red)[0] == set()
    assert load(directory, connection, i.ann, i.red)[0] == {in_group(i.red)}


def test_several_roles_of_the_host_may_be_one_of_the_policy(host, connection):
    both = {"boss": "org-admin", "cook": "org-admin"}
    directory, i = open_directory(host, connection, roles=both), host.id
    for user in (i.ann, i.bob):
        administers = in_organization("org-admin", i.acme)
        assert administers in load(directory, connection, user, i.red)[0]


class Duty(enum.Enum):
    """The host's enumeration, of which a column keeps the names."""

    BOSS = "boss"
    COOK = "cook"


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        ({Duty.BOSS: "org-admin"}, "`roles=` has `<Duty.BOSS: 'boss'>: 'org-admin'`; give both as"),
        ({80: "org-admin"}, "`roles=` has `80: 'org-admin'`; give both as texts, yours as the"),
        ({"BOSS": None}, "`roles=` has `'BOSS': None`; give both as texts"),
        ({"boss": "org-admin"}, "`roles=` names `boss`, which the column `role` can't hold; did"),
        (["boss"], "`roles=` is a `list`; give a dict from your roles to the policy's"),
    ],
)
def test_a_mapping_of_what_is_not_stored_is_refused(roles, sentence):
    """Nobody would hold the role, and nothing would say so."""
    sources = as_tables(Host(IdType.UUID), None)
    duties = sources["role_assignments"]
    duty = sa.type_coerce(duties.c.role, sa.Enum(Duty)).label("role")
    stored = sa.select(duties.c.user_id, duties.c.organization_id, duty)
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        SqlDirectory(**{**sources, "role_assignments": stored}, roles=roles)
    SqlDirectory(**{**sources, "role_assignments": stored}, roles={"BOSS": "org-admin"})


def test_the_role_of_members_is_a_name_of_the_policy_and_not_mapped(host, connection):
    mapping = {"group-member": "owner", "seated": "owner"}
    directory, i = open_directory(host, connection, roles=mapping, member_role="seated"), host.id
    assert load(directory, connection, i.ann, i.red)[0] == {in_group(i.red, "seated")}


def test_roles_may_be_numbers(connection):
    """The mapping then has the numbers as text."""
    host = Host(IdType.UUID)
    host.make(connection)
    levels = sa.select(
        host.duties.c.user_id,
        host.duties.c.organization_id,
        sa.case((host.duties.c.role == "boss", 80), else_=10).label("role"),
    )
    sources = {**as_tables(host, connection), "role_assignments": levels}
    directory = SqlDirectory(**sources, roles={"80": "org-admin"})
    i = host.id
    assert load(directory, connection, i.bob, i.red)[0] == {in_organization("org-admin", i.acme)}
    assert load(directory, connection, i.olga, i.red)[0] == set()


@pytest.mark.parametrize(
    ("role", "sentence"),
    [
        (
            "org-admn",
            "did you mean `org-admin`? known are: `gateway`, `org-admin`, `owner`, `user-admin`",
        ),
        ("group-member", "known are: `gateway`, `org-admin`, `owner`, `user-admin`"),
        ("self", "known are: `gateway`, `org-admin`, `owner`, `user-admin`"),
    ],
)
def test_a_mapping_to_a_role_that_nobody_can_be_given_does_not_start(role, sentence):
    host = Host(IdType.UUID)
    directory = SqlDirectory(**as_tables(host, None), roles={"boss": role})
    app = Flask("host")
    app.config["GOVBUDGET_GROUPS"] = "host.teams.id"
    nowhere = sa.create_engine("postgresql+psycopg://127.0.0.1:1/none")
    with pytest.raises(SettingsError, match=re.escape(sentence)) as refused:
        GovBudget(app, engine=nowhere, identify=lambda: None, directory=directory)
    assert f"`{role}`" in refused.value.detail
    assert "govbudget" not in app.extensions


def test_groups_of_the_host_do_not_start_where_budgets_refer_to_govbudgets_own():
    """Each budget would be refused for ever: its foreign key goes to a table that stays empty."""
    directory = SqlDirectory(**as_tables(Host(IdType.UUID), None))
    nowhere = sa.create_engine("postgresql+psycopg://127.0.0.1:1/none")
    with pytest.raises(SettingsError, match=r"`directory=`.*GOVBUDGET_GROUPS is `own`"):
        GovBudget(Flask("host"), engine=nowhere, identify=lambda: None, directory=directory)
    own = own_directory(Tables(Layout()))
    GovBudget(Flask("host"), engine=nowhere, identify=lambda: None, directory=own)


@pytest.mark.parametrize("id_type", [IdType.BIGINT, IdType.TEXT])
def test_ids_of_another_type_than_the_setting_do_not_start(id_type):
    """Each request would fail."""
    directory = SqlDirectory(**as_tables(Host(id_type), None))
    app = Flask("host")
    app.config["GOVBUDGET_GROUPS"] = "host.teams.id"
    nowhere = sa.create_engine("postgresql+psycopg://127.0.0.1:1/none")
    with pytest.raises(SettingsError, match=f"GOVBUDGET_ID_TYPE is `uuid`.*`{id_type}`"):
        GovBudget(app, engine=nowhere, identify=lambda: None, directory=directory)


@pytest.mark.parametrize(
    ("place", "column"),
    [
        ("groups", "organization_id"),
        ("group_members", "user_id"),
        ("organization_members", "organization_id"),
        ("role_assignments", "user_id"),
    ],
)
def test_ids_of_two_types_do_not_start(place, column):
    """Such as numbers of users beside UUIDs of groups: each request would fail."""
    sources = as_tables(Host(IdType.UUID), None)
    given = sources[place]
    others = [c for c in given.c if c.key != column]
    cast = sa.cast(given.c[column], sa.Integer).label(column)
    directory = SqlDirectory(**{**sources, place: sa.select(*others, cast)})
    with pytest.raises(SettingsError, match=f"`uuid`, but `{column}` in `{place}=`.*`bigint`"):
        install_nowhere(directory)


@pytest.mark.parametrize(
    ("directory", "sentence"),
    [
        ("tables", "`directory=` is not a directory"),
        (SqlDirectory, "`directory=` is not a directory"),
        ("member", "`member_role=` of the SqlDirectory is `member`"),
        ("org-admin", "`member_role=` of the SqlDirectory is `org-admin`"),
    ],
)
def test_what_is_no_directory_or_gives_members_no_role_does_not_start(directory, sentence):
    if "`member_role=`" in sentence:
        directory = SqlDirectory(**as_tables(Host(IdType.UUID), None), member_role=directory)
    with pytest.raises(SettingsError, match=sentence):
        install_nowhere(directory)


def install_nowhere(directory):
    app = Flask("host")
    app.config["GOVBUDGET_GROUPS"] = "host.teams.id"
    nowhere = sa.create_engine("postgresql+psycopg://127.0.0.1:1/none")
    GovBudget(app, engine=nowhere, identify=lambda: None, directory=directory)


# -- the host's groups, and what goes with them --


def install(host, connection, groups):
    """Migrate beside the host; give what units are opened from."""
    upgrade(connection, Layout(id_type=host.id_type, groups=groups))
    directory = open_directory(host, connection)
    return make_gov(directory=directory, id_type=host.id_type, groups=groups)


def find_tables(gov):
    return Tables(gov.settings.layout)


def set_limit(gov, connection, user, group, limit):
    return Budgets.set(authorize(connection, user, "update", gov=gov, group=group), limit)


def read_budgets(gov, connection):
    table = find_tables(gov).group_ai_budgets
    rows = connection.execute(sa.select(table.c.group_id, table.c.spend_limit_micros))
    return {group: limit for group, limit in rows}  # noqa: C416 - rows


def read_entries(gov, connection):
    """What the audit trail says: object, before, after, cause, actor and organization."""
    log = find_tables(gov).audit_log
    rows = connection.execute(sa.select(log).order_by(log.c.at, log.c.id))
    return [
        (
            row.object_id,
            row.before and row.before["spend_limit_micros"],
            row.after and row.after["spend_limit_micros"],
            row.receipt["cause"],
            row.receipt["actor"],
            row.organization_id,
        )
        for row in rows
    ]


def test_a_deleted_group_takes_its_budget_along_and_leaves_an_entry(host, connection):
    """By the foreign key to the host's table: no actor, cause `cascade`, in its organization."""
    gov, i = install(host, connection, "host.teams.id"), host.id
    set_limit(gov, connection, i.bob, i.red, 7)
    set_limit(gov, connection, i.olga, i.blue, 8)
    connection.execute(sa.delete(host.teams).where(host.teams.c.id == i.red))
    assert read_budgets(gov, connection) == {i.blue: 8}
    assert read_entries(gov, connection) == [
        (str(i.red), None, 7, "call", str(i.bob), i.acme),
        (str(i.blue), None, 8, "call", str(i.olga), i.corp),
        (str(i.red), 7, None, "cascade", None, i.acme),
    ]


def test_a_budget_of_no_group_of_the_host_is_refused(host, connection):
    gov, i = install(host, connection, "host.teams.id"), host.id
    insert = sa.insert(find_tables(gov).group_ai_budgets).values(
        group_id=i.nobody, spend_limit_micros=1, revision=UUID(int=1)
    )
    with pytest.raises(sa.exc.IntegrityError, match="group_ai_budgets_group_id_fkey"):
        connection.execute(insert)


def test_what_the_page_says_about_drop_all_and_truncate(connection):
    """docs/how-to/test-your-application.md."""
    host = Host(IdType.UUID)
    host.make(connection)
    gov, i = install(host, connection, "host.teams.id"), host.id
    set_limit(gov, connection, i.bob, i.red, 7)
    truncate = sa.text("TRUNCATE host.teams")
    for act in (host.metadata.drop_all, lambda c: c.execute(truncate)):
        with (
            pytest.raises(sa.exc.DBAPIError, match=r"depend|foreign key"),
            connection.begin_nested(),
        ):
            act(connection)
    connection.exec_driver_sql("TRUNCATE host.teams CASCADE")
    assert read_budgets(gov, connection) == {}
    assert len(read_entries(gov, connection)) == 2
    connection.exec_driver_sql("DROP SCHEMA govbudget CASCADE")
    host.metadata.drop_all(connection)


def test_without_a_foreign_key_a_call_deletes_what_is_left(host, connection):
    """`none`: the budget stays, is out of reach, and goes by delete_orphans, with its entry."""
    gov, i = install(host, connection, "none"), host.id
    set_limit(gov, connection, i.bob, i.red, 7)
    set_limit(gov, connection, i.olga, i.blue, 8)
    assert delete_orphans(gov, connection) == 0
    connection.execute(sa.delete(host.teams).where(host.teams.c.id == i.red))
    assert read_budgets(gov, connection) == {i.red: 7, i.blue: 8}
    assert load(gov.directory, connection, i.bob, i.red)[1] is None
    overrides = find_tables(gov).member_ai_overrides
    for group in (i.red, i.all):
        row = {"organization_id": i.acme, "group_id": group, "user_id": group}
        values = {**row, "spend_limit_micros": 9, "revision": uuid4()}
        connection.execute(sa.insert(overrides).values(values))
    assert delete_orphans(gov, connection) == 2
    assert read_budgets(gov, connection) == {i.blue: 8}
    assert connection.scalars(sa.select(overrides.c.group_id)).all() == [i.all]
    gone = (str(i.red), 7, None, "cascade", None, i.acme)
    override_gone = (str(i.red), 9, None, "cascade", None, i.acme)
    entries = read_entries(gov, connection)
    assert sorted(e for e in entries if e[3] == "cascade") == [gone, override_gone]
    assert delete_orphans(gov, connection) == 0


def test_an_override_of_a_group_that_the_member_left_is_none(host, connection):
    """The host keeps no key to it. The group moved away: its id never shows in the old place."""
    gov, i = install(host, connection, "host.teams.id"), host.id
    grant = authorize(connection, i.bob, "update", gov=gov, organization=i.acme)
    Overrides.set(grant, i.ann, i.red, 9)
    grant = authorize(connection, i.bob, "read", gov=gov, member=(i.acme, i.ann))
    assert Overrides.get(grant).group_id == i.red
    moved = sa.update(host.teams).where(host.teams.c.id == i.red)
    connection.execute(moved.values(organization_id=i.corp))
    with pytest.raises(NotFound):
        Overrides.get(grant)


def test_a_schema_that_a_connection_renames_is_refused_where_tables_are_in_it(host, connection):
    """SQLAlchemy renames it in a load, and not in our own SQL, which would read other tables."""
    gov, i = install(host, connection, "host.teams.id"), host.id
    connection.execution_options(schema_translate_map={"reports": "of_one_tenant"})
    set_limit(gov, connection, i.bob, i.red, 7)
    connection.execution_options(schema_translate_map={"host": "of_one_tenant"})
    sentence = "`schema_translate_map` renames `host`, in which `directory=` has tables"
    with pytest.raises(SettingsError, match=sentence), gov.unit(i.bob, connection=connection):
        pytest.fail("the block was entered")


# -- the host's transaction --


def use_everything(gov, connection, host):
    """Call every function of the library that takes a connection."""
    i = host.id
    set_limit(gov, connection, i.bob, i.red, 1)
    set_limit(gov, connection, i.bob, i.all, 2)
    with gov.unit(i.bob, connection=connection) as unit:
        assert Budgets.get(unit.authorize("read", group=i.red)).spend_limit_micros == 1
        Budgets.delete(unit.authorize("update", group=i.red))
        delete_orphans(gov, connection)
        place = {"organization": i.acme}
        assert len(Budgets.list(unit.authorize("read", **place), limit=9)) == 1
        assert len(Audit.list(unit.authorize("update", **place), limit=3)) == 3
    prices = dict.fromkeys(("output_price", "cache_read_price", "cache_write_price"))
    price = Price(provider="acme", model="m", input_price=3, **prices)
    with gov.unit(i.olga, connection=connection) as unit:
        grant = unit.authorize("update", prices=True)
        assert Prices.upsert(grant, [price]).changed == 1
        assert len(Audit.list_site(grant, limit=9)) == 1
        found = Prices.get(unit.authorize("read", prices=True), "acme", "m")
        assert found.model_dump() == price.model_dump()
    gov.directory.load_assignments(connection, i.bob)


def count_rows(gov, connection):
    tables = find_tables(gov)
    return [
        connection.scalar(sa.select(sa.func.count()).select_from(table))
        for table in (tables.group_ai_budgets, tables.ai_model_prices, tables.audit_log)
    ]


@pytest.fixture
def installed_host(make_database):
    """A host with bigint ids, and govbudget, in a database of their own."""
    host = Host(IdType.BIGINT)
    engine = sa.create_engine(make_database())
    with engine.begin() as connection:
        host.make(connection)
        gov = install(host, connection, "host.teams.id")
    yield host, gov, engine
    engine.dispose()


def test_nothing_ends_or_shapes_the_hosts_transaction(installed_host):
    """No commit, rollback, savepoint, close or SET, in a session or on a connection."""
    host, gov, engine = installed_host
    with orm.Session(engine) as session:
        connection = session.connection()
        whole = connection.get_transaction()
        with watch(engine) as seen:
            use_everything(gov, session.connection(), host)
        assert seen == []
        assert connection.get_transaction() is whole
        assert whole.is_active
        assert not connection.closed
        shape = "SELECT current_setting('{}')".format
        for name in ("lock_timeout", "statement_timeout", "search_path", "transaction_isolation"):
            with engine.connect() as fresh:
                expected = fresh.exec_driver_sql(shape(name)).scalar()
            assert connection.exec_driver_sql(shape(name)).scalar() == expected
        session.rollback()
        assert count_rows(gov, session.connection()) == [0, 0, 0]
        use_everything(gov, session.connection(), host)
        session.commit()
        assert count_rows(gov, session.connection()) == [1, 1, 4]


def test_a_savepoint_that_is_rolled_back_takes_changes_and_entries_along(installed_host):
    host, gov, engine = installed_host
    i = host.id
    with orm.Session(engine) as session:
        set_limit(gov, session.connection(), i.bob, i.red, 5)
        before = count_rows(gov, session.connection())
        with session.begin_nested() as savepoint:
            use_everything(gov, session.connection(), host)
            assert count_rows(gov, session.connection()) != before
            savepoint.rollback()
        assert count_rows(gov, session.connection()) == before == [1, 0, 1]
        assert read_budgets(gov, session.connection()) == {i.red: 5}
        session.commit()
    with engine.connect() as connection:
        assert read_entries(gov, connection) == [(str(i.red), None, 5, "call", str(i.bob), i.acme)]


def test_a_grant_from_outside_a_savepoint_holds_inside_it(installed_host):
    """A savepoint is a part of the unit of work; the budget is kept when it is released."""
    host, gov, engine = installed_host
    i = host.id
    with orm.Session(engine) as session:
        grant = authorize(session.connection(), i.bob, "update", gov=gov, group=i.red)
        with session.begin_nested():
            Budgets.set(grant, 6)
        session.commit()
    with engine.connect() as connection:
        assert read_budgets(gov, connection) == {i.red: 6}


def test_a_team_and_its_budget_are_made_together_or_not_at_all(installed_host):
    """The host's own insert, not yet committed, is seen by the directory and the foreign key."""
    host, gov, engine = installed_host
    i = host.id
    for ends_well in (False, True):
        with orm.Session(engine) as session:
            session.execute(sa.insert(host.teams).values(id=99, organization_id=i.acme))
            set_limit(gov, session.connection(), i.bob, 99, 1)
            if ends_well:
                session.commit()
        with engine.connect() as connection:
            assert read_budgets(gov, connection) == ({99: 1} if ends_well else {})
            assert len(read_entries(gov, connection)) == int(ends_well)
