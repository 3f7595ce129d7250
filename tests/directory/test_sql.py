"""The directory: one statement reports a caller's roles as they are stored, and decides nothing."""

from __future__ import annotations

from itertools import product
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.budgets.support import attempt, watch
from tests.support import TABLES, authorize, count_statements, make_gov, names_budget_table

from govbudget import (
    SITE,
    Assignment,
    Domain,
    Forbidden,
    Group,
    IdType,
    Layout,
    Member,
    NotFound,
    Organization,
    Scope,
    SqlDirectory,
)
from govbudget.budgets.store import Budgets
from govbudget.db.tables import Tables
from govbudget.identity import Action
from govbudget.migrations import upgrade


@pytest.fixture
def connection(engine, world):
    with engine.connect() as connection:
        yield connection


def in_organization(role, organization):
    return Assignment(role, Domain(Scope.ORGANIZATION, organization))


def in_group(group):
    return Assignment("group-member", Domain(Scope.GROUP, group))


def of_group(connection, world, person, group):
    subject, loaded = world.directory.load_group(connection, person, group)
    assert loaded == Group(group, loaded.organization_id)
    return set(subject.assignments)


def of_organization(connection, world, person, organization):
    subject, loaded = world.directory.load_organization(connection, person, organization)
    assert loaded == Organization(organization)
    return set(subject.assignments)


def test_a_group_is_loaded_with_the_callers_roles_toward_it(connection, world):
    """On the site, in its organization and in it; what is held elsewhere is left out."""
    a1 = {name: of_group(connection, world, i, world.a1) for name, i in world.people.items()}
    assert a1 == {
        "owner": {Assignment("owner", SITE)},
        "gateway": {Assignment("gateway", SITE)},
        "org_admin": {in_organization("org-admin", world.a)},
        "user_admin": {in_organization("user-admin", world.a)},
        "member": {in_group(world.a1)},
        **{name: set() for name in ("joined", "outsider", "b_admin", "nobody")},
    }
    _, group = world.directory.load_group(connection, world.nobody, world.a1)
    assert group == Group(world.a1, world.a)


def test_an_organization_is_loaded_with_the_callers_roles_in_it_and_its_groups(connection, world):
    world.join_group(connection, world.a, world.a2, "member")
    of_a = {
        name: of_organization(connection, world, i, world.a) for name, i in world.people.items()
    }
    everyone = in_group(world.a)
    assert of_a == {
        "owner": {Assignment("owner", SITE)},
        "gateway": {Assignment("gateway", SITE)},
        "org_admin": {in_organization("org-admin", world.a), everyone},
        "user_admin": {in_organization("user-admin", world.a), everyone},
        "member": {in_group(world.a1), in_group(world.a2), everyone},
        "joined": {everyone},
        **{name: set() for name in ("outsider", "b_admin", "nobody")},
    }


def test_a_member_of_the_organization_is_a_member_of_its_everyone_group(connection, world):
    """Without a row in group_members; and of no other organization's."""
    assert of_group(connection, world, world.joined, world.a) == {in_group(world.a)}
    assert of_group(connection, world, world.joined, world.b) == set()
    assert of_group(connection, world, world.nobody, world.a) == set()


def test_a_role_stored_at_a_wrong_scope_is_reported_as_stored_and_counts_for_nothing(
    connection, world
):
    world.assign(connection, "nobody", "owner", world.a)
    world.assign(connection, "nobody", "org-admin", None)
    world.assign(connection, "nobody", "group-member", world.a)
    world.assign(connection, "nobody", "group-member", None)
    world.assign(connection, "nobody", "no such role", world.a)
    stored = {
        in_organization("owner", world.a),
        Assignment("org-admin", SITE),
        in_organization("group-member", world.a),
        Assignment("group-member", SITE),
        in_organization("no such role", world.a),
    }
    assert of_group(connection, world, world.nobody, world.a1) == stored
    assert of_organization(connection, world, world.nobody, world.a) == stored
    for action, asked in product(Action, ({"group": world.a1}, {"organization": world.a})):
        with pytest.raises(NotFound):
            authorize(connection, world.nobody, action, **asked)


def test_a_caller_with_many_roles_has_them_all(connection, world):
    world.assign(connection, "member", "owner", None)
    world.assign(connection, "member", "org-admin", world.a)
    world.assign(connection, "member", "user-admin", world.a)
    world.assign(connection, "member", "org-admin", world.b)
    assert of_group(connection, world, world.member, world.a1) == {
        Assignment("owner", SITE),
        in_organization("org-admin", world.a),
        in_organization("user-admin", world.a),
        in_group(world.a1),
    }


@pytest.mark.parametrize("who", ["owner", "member", "stranger"])
def test_a_group_that_is_not_there_is_none(connection, world, who):
    subject, group = world.directory.load_group(connection, getattr(world, who), uuid4())
    assert (subject.id, subject.assignments, group) == (getattr(world, who), (), None)


def test_an_organization_that_is_not_there_is_none(connection, world):
    for missing in (uuid4(), world.a1):
        subject, organization = world.directory.load_organization(connection, world.owner, missing)
        assert (subject.assignments, organization) == ((), None)


def test_a_caller_without_a_row_has_no_roles(connection, world):
    assert of_group(connection, world, world.stranger, world.a1) == set()
    assert of_organization(connection, world, world.stranger, world.a) == set()
    assert world.directory.load_subject(connection, world.stranger).assignments == ()


def test_a_member_is_loaded_with_the_callers_roles_on_the_site_and_in_the_organization(
    connection, world
):
    """Roles in groups are none toward a member, and what is held elsewhere is left out."""
    world.assign(connection, "org_admin", "org-admin", world.b)
    held = {}
    for name, person in world.people.items():
        subject, loaded = world.directory.load_member(connection, person, world.a, world.member)
        assert (subject.id, loaded) == (person, Member(world.a, world.member))
        held[name] = set(subject.assignments)
    assert {name: roles for name, roles in held.items() if roles} == {
        "owner": {Assignment("owner", SITE)},
        "gateway": {Assignment("gateway", SITE)},
        "org_admin": {in_organization("org-admin", world.a)},
        "user_admin": {in_organization("user-admin", world.a)},
    }


def test_who_is_no_member_of_an_organization_is_not_found_in_it(connection, world):
    """In a group of it by a stray row, in another one, nowhere, or a member of nothing."""
    missing = uuid4()
    for organization, user in (
        (world.b, world.member),
        (world.a, world.stranger),
        (world.a, missing),
        (missing, world.member),
        (world.a1, world.member),
    ):
        loaded = world.directory.load_member(connection, world.owner, organization, user)
        assert (loaded[0].assignments, loaded[1]) == ((), None)


def test_a_member_who_is_listed_twice_is_one(connection, world):
    tables = world.tables
    twice = sa.union_all(*[sa.select(tables.organization_members)] * 2).subquery()
    directory = SqlDirectory(
        groups=world.directory.groups,
        group_members=tables.group_members,
        organization_members=twice,
        role_assignments=tables.role_assignments,
    )
    subject, loaded = directory.load_member(connection, world.owner, world.a, world.member)
    assert loaded == Member(world.a, world.member)
    assert subject.assignments == (Assignment("owner", SITE),)


def test_a_subject_alone_has_the_roles_held_on_the_site(connection, world):
    world.assign(connection, "owner", "org-admin", world.a)
    subject = world.directory.load_subject(connection, world.owner)
    assert (subject.id, subject.assignments) == (world.owner, (Assignment("owner", SITE),))
    assert world.directory.load_subject(connection, world.org_admin).assignments == ()


@pytest.mark.parametrize("person", ["owner", "org_admin", "member", "joined"])
def test_the_groups_of_a_deleted_organization_are_gone(connection, world, person):
    organizations = TABLES.organizations
    connection.execute(
        sa.update(organizations).where(organizations.c.id == world.a).values(deleted=True)
    )
    for group in (world.a, world.a1):
        loaded = world.directory.load_group(connection, getattr(world, person), group)
        assert (loaded[0].assignments, loaded[1]) == ((), None)
    for loaded in (
        world.directory.load_organization(connection, getattr(world, person), world.a),
        world.directory.load_member(connection, getattr(world, person), world.a, world.member),
    ):
        assert (loaded[0].assignments, loaded[1]) == ((), None)
    assert world.directory.load_group(connection, world.owner, world.b1)[1] is not None


def loads(directory, connection, user, group, organization):
    return [
        lambda: directory.load_group(connection, user, group),
        lambda: directory.load_organization(connection, user, organization),
        lambda: directory.load_member(connection, user, organization, user),
        lambda: directory.load_subject(connection, user),
    ]


def test_each_load_is_one_quiet_statement_that_names_no_budget_or_price(connection, engine, world):
    """Whoever asks, and whether the thing is there or not; it neither commits nor rolls back."""
    missing = uuid4()
    for user in (world.owner, world.member, world.stranger):
        for group, organization in ((world.a1, world.a), (world.a, world.b), (missing, missing)):
            for load in loads(world.directory, connection, user, group, organization):
                with count_statements(engine) as sent, watch(engine) as seen:
                    load()
                assert len(sent) == 1
                assert seen == []
                assert not names_budget_table(sent[0])


def test_a_role_that_is_taken_away_is_gone_at_the_next_load(engine, world):
    """From the site, from an organization, from a group, and from everyone in it."""
    with engine.connect() as connection, engine.connect() as other:

        def loaded(person, group):
            connection.rollback()
            return of_group(connection, world, person, group)

        for table, column, person, group in (
            ("role_assignments", "user_id", world.owner, world.a1),
            ("role_assignments", "user_id", world.org_admin, world.a1),
            ("group_members", "user_id", world.member, world.a1),
            ("organization_members", "user_id", world.joined, world.a),
        ):
            assert loaded(person, group) != set()
            gone = getattr(TABLES, table)
            other.execute(sa.delete(gone).where(gone.c[column] == person))
            assert loaded(person, group) != set()
            other.commit()
            assert loaded(person, group) == set()


# -- a host's own tables: other names, other types of id, other columns --

NAMES = ("ann", "bob", "eve", "acme", "corp", "red", "blue", "all")
IDS = {
    IdType.BIGINT: {name: number for number, name in enumerate(NAMES, start=-3)},
    IdType.TEXT: {name: f'{name}\'s "id" é' for name in NAMES},
}


@pytest.fixture(scope="module")
def host_url(make_database):
    return make_database()


@pytest.fixture(params=[IdType.BIGINT, IdType.TEXT])
def host(host_url, request):
    """Give a host with teams in companies: its connection, its ids and its tables."""
    kind = sa.BigInteger() if request.param is IdType.BIGINT else sa.Text()
    metadata = sa.MetaData(schema="host")
    teams = sa.Table(
        "teams",
        metadata,
        sa.Column("team_no", kind, primary_key=True, autoincrement=False),
        sa.Column("company", kind),
        sa.Column("archived", sa.Boolean, server_default=sa.false()),
        sa.Column("kind", sa.Text, server_default="plain"),
    )
    seats = sa.Table("seats", metadata, sa.Column("team", kind), sa.Column("person", kind))
    staff = sa.Table(
        "staff",
        metadata,
        sa.Column("firm", kind),
        sa.Column("person", kind),
        sa.Column("duty", sa.Text),
    )
    ids = IDS[request.param]
    engine = sa.create_engine(host_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE SCHEMA host")
        metadata.create_all(connection)
        for name, company in (("red", "acme"), ("blue", "corp"), ("all", "acme")):
            row = {"team_no": ids[name], "company": ids[company], "archived": False}
            connection.execute(
                sa.insert(teams), {**row, "kind": "everyone" if name == "all" else "plain"}
            )
        connection.execute(sa.insert(seats), {"team": ids["red"], "person": ids["ann"]})
        for firm, person, duty in (
            ("acme", "ann", "works here"),
            ("acme", "bob", "org-admin"),
            ("corp", "eve", "works here"),
        ):
            row = {"firm": ids[firm], "person": ids[person], "duty": duty}
            connection.execute(sa.insert(staff), row)
        yield connection, request.param, ids, teams, seats, staff


def host_directory(teams, seats, staff, *, with_everyone):
    columns = [teams.c.team_no.label("id"), teams.c.company.label("organization_id")]
    if with_everyone:
        columns.append((teams.c.kind == "everyone").label("is_everyone"))
    return SqlDirectory(
        groups=sa.select(*columns).where(~teams.c.archived).subquery("live_teams"),
        group_members=sa.select(
            seats.c.team.label("group_id"), seats.c.person.label("user_id")
        ).subquery("seats"),
        organization_members=sa.select(
            staff.c.firm.label("organization_id"), staff.c.person.label("user_id")
        ).subquery("members"),
        role_assignments=sa.select(
            staff.c.person.label("user_id"),
            staff.c.duty.label("role"),
            staff.c.firm.label("organization_id"),
        )
        .where(staff.c.duty.like("%-admin"))
        .subquery("duties"),
    )


@pytest.mark.parametrize("with_everyone", [True, False])
def test_a_hosts_tables_are_a_directory(host, with_everyone):
    """Other names, numbers or texts for ids; everyone is in a group only where the host says so."""
    connection, _, ids, *tables = host
    directory = host_directory(*tables, with_everyone=with_everyone)

    def roles(person, group):
        subject, loaded = directory.load_group(connection, ids[person], ids[group])
        assert loaded.id == ids[group]
        return set(subject.assignments)

    everyone = {in_group(ids["all"])} if with_everyone else set()
    assert roles("ann", "red") == {in_group(ids["red"])}
    assert roles("bob", "red") == {in_organization("org-admin", ids["acme"])}
    assert roles("bob", "blue") == roles("ann", "blue") == roles("eve", "red") == set()
    assert roles("ann", "all") == everyone
    assert roles("bob", "all") == everyone | {in_organization("org-admin", ids["acme"])}

    subject, loaded = directory.load_organization(connection, ids["ann"], ids["acme"])
    assert loaded == Organization(ids["acme"])
    assert set(subject.assignments) == {in_group(ids["red"])} | everyone
    assert directory.load_organization(connection, ids["ann"], ids["red"])[1] is None

    archived = sa.update(tables[0]).where(tables[0].c.team_no == ids["red"]).values(archived=True)
    connection.execute(archived)
    assert directory.load_group(connection, ids["ann"], ids["red"])[1] is None


@pytest.mark.slow
def test_a_hosts_group_has_a_budget(host):
    """End to end on the host's own groups table: set, get, list, and gone with the group."""
    connection, id_type, ids, *tables = host
    layout = Layout(id_type=id_type, groups="host.teams.team_no")
    upgrade(connection, layout)
    directory = host_directory(*tables, with_everyone=True)
    gov = make_gov(directory=directory, id_type=id_type, groups=layout.groups)

    def find_right(person, action):
        return authorize(connection, ids[person], action, gov=gov, group=ids["red"])

    budget = Budgets.set(find_right("bob", "update"), 7)
    assert (budget.group_id, budget.spend_limit_micros) == (ids["red"], 7)
    assert Budgets.get(find_right("ann", "read")) == budget
    assert type(attempt(find_right, "ann", "update")) is Forbidden
    assert type(attempt(find_right, "eve", "read")) is NotFound

    grant = authorize(connection, ids["ann"], "read", gov=gov, organization=ids["acme"])
    assert Budgets.list(grant, limit=9) == [budget]
    assert Budgets.list(grant, limit=9, after=ids["red"]) == []

    connection.execute(sa.delete(tables[0]).where(tables[0].c.team_no == ids["red"]))
    assert Budgets.list(grant, limit=9) == []
    count = sa.select(sa.func.count()).select_from(Tables(layout).group_ai_budgets)
    assert connection.scalar(count) == 0
