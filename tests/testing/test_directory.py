"""check_directory: right directories pass, and each way of being wrong is found."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from uuid import uuid4

import pytest
import sqlalchemy as sa

from govbudget import (
    SITE,
    Assignment,
    Domain,
    Group,
    Member,
    Organization,
    Scope,
    SqlDirectory,
    Subject,
)
from govbudget.testing.directory import KnownFacts, check_directory

pytestmark = pytest.mark.slow


@pytest.fixture
def facts(world):
    return KnownFacts(
        member=world.member,
        group=world.a1,
        organization=world.a,
        other_group=world.b1,
        other_organization=world.b,
        administrator=world.org_admin,
        administrator_role="org-admin",
        site_holder=world.owner,
        site_role="owner",
        missing=uuid4(),
        everyone=world.a,
    )


@pytest.fixture
def connection(engine):
    with engine.begin() as connection:
        yield connection


def test_govbudgets_own_directory_is_right(world, connection, facts):
    assert check_directory(world.directory, connection, facts) == []


def test_it_is_right_in_autocommit_too(world, engine, facts):
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        assert check_directory(world.directory, connection, facts) == []


def make_host_tables(connection):
    """A host's own tables, of whole numbers, gone when the connection is rolled back."""
    number = sa.BigInteger
    metadata = sa.MetaData()

    def table(name, **columns):
        made = (sa.Column(column, kind) for column, kind in columns.items())
        return sa.Table(name, metadata, *made, prefixes=["TEMP"])

    team = table("team", id=number, company=number)
    people = table("people", team=number, person=number)
    staff = table("staff", person=number, role=sa.Text, company=number)
    metadata.create_all(connection)
    connection.execute(team.insert(), [{"id": 7, "company": 1}, {"id": 8, "company": 2}])
    connection.execute(people.insert(), [{"team": 7, "person": 100}])
    leads = [{"person": 200, "role": "org-admin", "company": 1},
             {"person": 300, "role": "owner", "company": None}]  # fmt: skip
    connection.execute(staff.insert(), leads)
    return team, people, staff


HOST_FACTS = KnownFacts(
    member=100,
    group=7,
    organization=1,
    other_group=8,
    other_organization=2,
    administrator=200,
    administrator_role="org-admin",
    site_holder=300,
    site_role="owner",
    missing=999,
)


def over(team, people, staff):
    """A SqlDirectory over the host's tables, their columns renamed."""
    groups = sa.select(team.c.id, team.c.company.label("organization_id"))
    members = sa.select(people.c.team.label("group_id"), people.c.person.label("user_id"))
    employed = (
        sa.select(team.c.company.label("organization_id"), people.c.person.label("user_id"))
        .join_from(team, people, people.c.team == team.c.id)
        .distinct()
    )
    roles = sa.select(
        staff.c.person.label("user_id"), staff.c.role, staff.c.company.label("organization_id")
    )
    return SqlDirectory(
        groups=groups.subquery("teams"),
        group_members=members.subquery("team_members"),
        organization_members=employed.subquery("company_members"),
        role_assignments=roles.subquery("roles"),
    )


def test_a_directory_over_a_hosts_own_tables_is_right(connection):
    directory = over(*make_host_tables(connection))
    assert check_directory(directory, connection, HOST_FACTS) == []
    connection.rollback()


def test_what_the_tables_get_wrong_is_found(connection):
    """Roles stored with the wrong company; a team that is there twice."""
    tables = make_host_tables(connection)
    team, _, staff = tables
    directory = over(*tables)
    wrong_role = {"person": 200, "role": "org-admin", "company": 2}
    connection.execute(staff.insert(), [wrong_role])
    found = check_directory(directory, connection, HOST_FACTS)
    assert "load_group reported org-admin in organization:2, which is not held toward this" in found
    connection.execute(staff.delete().where(staff.c.company == 2))
    assert check_directory(directory, connection, HOST_FACTS) == []
    connection.execute(team.insert(), [{"id": 7, "company": 1}])
    assert any(
        "each once" in sentence for sentence in check_directory(directory, connection, HOST_FACTS)
    )
    connection.rollback()


class Broken:
    """The world's own directory, with one thing wrong."""

    def __init__(self, inner, facts):
        self.inner, self.facts = inner, facts

    @property
    def groups(self):
        return self.inner.groups

    @property
    def group_members(self):
        return self.inner.group_members

    @property
    def organization_members(self):
        return self.inner.organization_members

    def load_subject(self, connection, subject_id):
        return self.inner.load_subject(connection, subject_id)

    def load_group(self, connection, subject_id, group_id):
        return self.inner.load_group(connection, subject_id, group_id)

    def load_organization(self, connection, subject_id, organization_id):
        return self.inner.load_organization(connection, subject_id, organization_id)

    def load_member(self, connection, subject_id, organization_id, user_id):
        return self.inner.load_member(connection, subject_id, organization_id, user_id)

    def list_subjects(self, connection):
        return self.inner.list_subjects(connection)


LOADERS = ("load_subject", "load_group", "load_organization", "load_member")


def wrap(name, change):
    """A directory of which one loader's answer is changed."""

    def load(self, connection, *ids):
        result = getattr(self.inner, name)(connection, *ids)
        return change(self, connection, ids, result)

    return type("Wrapped", (Broken,), {name: load})


def change_subject(name, change):
    """A directory of which one loader's subject is changed."""

    def apply(broken, connection, ids, result):
        if isinstance(result, tuple):
            return change(broken, ids, result[0]), result[1]
        return change(broken, ids, result)

    return wrap(name, apply)


def hold(*more):
    return lambda broken, ids, subject: replace(
        subject, assignments=(*subject.assignments, *(one(broken.facts) for one in more))
    )


def send(text):
    def change(_, connection, ids, result):
        connection.execute(sa.text(text))
        return result

    return change


def end(how):
    def change(_, connection, ids, result):
        getattr(connection, how)()
        return result

    return change


def fail(*_):
    message = "the host's own mistake"
    raise LookupError(message)


def refuse_operator(name):
    """A directory of which one loader takes None for a mistake."""

    def load(self, connection, *ids):
        return getattr(self.inner, name)(connection, *ids) if ids[0] is not None else fail()

    return type("Refusing", (Broken,), {name: load})


def change_list(change):
    """A directory whose list of people is changed."""

    def list_subjects(self, connection):
        return change(self, connection, self.inner.list_subjects(connection))

    return type("Listing", (Broken,), {"list_subjects": list_subjects})


def give_all(subject, *more):
    return replace(subject, assignments=(*subject.assignments, *more))


def commit(_, connection, subjects):
    listed = list(subjects)
    connection.commit()
    return listed


def name_prices(_, connection, subjects):
    connection.execute(sa.text("SELECT count(*) FROM govbudget.ai_model_prices"))
    return subjects


OPERATING = Subject(None, (Assignment("owner", SITE),))


def in_organization(role, which):
    return lambda facts: Assignment(role, Domain(Scope.ORGANIZATION, getattr(facts, which)))


def in_group(which):
    return lambda facts: Assignment("group-member", Domain(Scope.GROUP, getattr(facts, which)))


BREAKAGES = {
    # what: (the directory, what is said of it)
    **{
        f"{name} sends two statements": (wrap(name, send("SELECT 1")), f"{name} sent 2 statements")
        for name in LOADERS
    },
    **{
        f"{name} names a budget table": (
            wrap(name, send("SELECT count(*) FROM govbudget.group_ai_budgets")),
            f"{name} names the table group_ai_budgets",
        )
        for name in LOADERS
    },
    **{
        f"{name} names the prices": (
            wrap(name, send("SELECT count(*) FROM govbudget.ai_model_prices")),
            f"{name} names the table ai_model_prices",
        )
        for name in LOADERS
    },
    **{
        f"{name} does a {how}": (wrap(name, end(how)), f"{name} did a {how}")
        for name in LOADERS
        for how in ("commit", "rollback")
    },
    **{f"{name} raises": (wrap(name, fail), f"{name} raised LookupError") for name in LOADERS},
    **{
        f"{name} refuses the operator": (
            refuse_operator(name),
            f"{name} for the caller None raised LookupError",
        )
        for name in LOADERS[1:]
    },
    **{
        f"{name} hides the object from the operator": (
            wrap(
                name,
                lambda _, connection, ids, result: (result[0], ids[0] and result[1]),
            ),
            f"{name} for the caller None gave None, expected",
        )
        for name in LOADERS[1:]
    },
    **{
        f"{name} makes the operator an owner": (
            change_subject(
                name, lambda _, ids, subject: OPERATING if subject.id is None else subject
            ),
            f"{name} for the caller None reported owner in site",
        )
        for name in LOADERS[1:]
    },
    **{
        f"{name} gives another subject": (
            change_subject(name, lambda broken, ids, subject: replace(subject, id="somebody")),
            f"{name} gave no Subject with the id",
        )
        for name in LOADERS
    },
    **{
        f"{name} gives no subject for who is not there": (
            change_subject(name, lambda _, ids, subject: subject if subject.assignments else None),
            f"{name} gave no Subject with the id",
        )
        for name in LOADERS
    },
    **{
        f"{name} leaves everything out": (
            change_subject(name, lambda _, ids, subject: replace(subject, assignments=())),
            f"{name} left out owner in site",
        )
        for name in LOADERS
    },
    **{
        f"{name} makes everyone an owner": (
            change_subject(name, hold(lambda _: Assignment("owner", SITE))),
            f"{name} reported owner in site",
        )
        for name in LOADERS
    },
    **{
        f"{name} forgets where a role is held": (
            change_subject(name, hold(in_organization("org-admin", "organization"))),
            f"{name} reported org-admin in organization:",
        )
        for name in LOADERS
    },
    "there is no list of people": (
        type("Unlisted", (Broken,), {"list_subjects": property()}),
        "list_subjects is not there",
    ),
    "the list leaves somebody out": (
        change_list(lambda broken, _, them: (s for s in them if s.id != broken.facts.site_holder)),
        "list_subjects left out owner in site",
    ),
    "the list leaves the members of a group out": (
        change_list(
            lambda _, __, them: (
                replace(s, assignments=[a for a in s.assignments if a.role != "group-member"])
                for s in them
            )
        ),
        "list_subjects left out group-member in group:",
    ),
    "the list makes everyone an owner": (
        change_list(lambda _, __, them: (give_all(s, Assignment("owner", SITE)) for s in them)),
        "list_subjects reported owner in site",
    ),
    "the list has somebody twice": (
        change_list(lambda _, __, them: 2 * list(them)),
        "list_subjects gave somebody more than once",
    ),
    "the list does a commit": (change_list(commit), "list_subjects did a commit"),
    "the list names the prices": (
        change_list(name_prices),
        "list_subjects names the table ai_model_prices",
    ),
    "load_group reports the other groups of the caller": (
        change_subject("load_group", hold(in_group("group"))),
        "load_group reported group-member in group:",
    ),
    "load_organization reports groups of another organization": (
        change_subject("load_organization", hold(in_group("other_group"))),
        "load_organization reported group-member in group:",
    ),
    "load_group stores membership as a role of the organization": (
        change_subject(
            "load_group",
            lambda broken, ids, subject: replace(
                subject,
                assignments=tuple(
                    Assignment(a.role, Domain(Scope.ORGANIZATION, broken.facts.organization))
                    if a.domain.scope is Scope.GROUP
                    else a
                    for a in subject.assignments
                ),
            ),
        ),
        "load_group left out group-member in group:",
    ),
    "load_group puts every group into one organization": (
        wrap(
            "load_group",
            lambda broken, _, ids, result: (result[0], Group(ids[1], broken.facts.organization)),
        ),
        "load_group gave",
    ),
    "load_group gives another group": (
        wrap(
            "load_group",
            lambda broken, _, ids, result: (
                result[0],
                result[1] and Group(broken.facts.group, result[1].organization_id),
            ),
        ),
        "load_group gave",
    ),
    "load_group finds no group": (
        wrap("load_group", lambda broken, _, ids, result: (result[0], None)),
        "load_group gave None",
    ),
    "load_group finds a group where there is none": (
        wrap(
            "load_group",
            lambda broken, _, ids, result: (
                result[0],
                result[1] or Group(ids[1], broken.facts.organization),
            ),
        ),
        "load_group gave Group(",
    ),
    "load_organization finds no organization": (
        wrap("load_organization", lambda broken, _, ids, result: (result[0], None)),
        "load_organization gave None",
    ),
    "load_organization finds one where there is none": (
        wrap(
            "load_organization",
            lambda broken, _, ids, result: (result[0], Organization(ids[1])),
        ),
        "load_organization gave Organization(",
    ),
    "load_member reports roles in a group": (
        change_subject("load_member", hold(in_group("group"))),
        "load_member reported group-member in group:",
    ),
    "load_member finds no member": (
        wrap("load_member", lambda broken, _, ids, result: (result[0], None)),
        "load_member gave None",
    ),
    "load_member finds who is no member": (
        wrap("load_member", lambda broken, _, ids, result: (result[0], Member(*ids[1:]))),
        "load_member gave Member(",
    ),
    "load_member gives somebody else": (
        wrap("load_member", lambda broken, _, ids, result: (result[0], Member(ids[1], ids[0]))),
        "load_member gave Member",
    ),
    **{
        f"{name} is empty": (
            type(
                "Empty",
                (Broken,),
                {
                    name: property(
                        lambda b, n=name: (
                            sa.select(getattr(b.inner, n)).where(sa.false()).subquery()
                        )
                    )
                },
            ),
            f"{name} does not show",
        )
        for name in ("group_members", "organization_members")
    },
    "group_members shows everybody in every group": (
        type(
            "Crossed",
            (Broken,),
            {
                "group_members": property(
                    lambda b: (
                        sa.select(
                            b.inner.groups.c.id.label("group_id"), b.inner.group_members.c.user_id
                        )
                        .join_from(b.inner.groups, b.inner.group_members, sa.true())
                        .subquery()
                    )
                )
            },
        ),
        "group_members does not show",
    ),
    "groups has other columns": (
        type("Unlabelled", (Broken,), {"groups": sa.table("groups", sa.column("id"))}),
        "groups needs the columns",
    ),
    "groups is empty": (
        type(
            "Empty",
            (Broken,),
            {"groups": property(lambda b: sa.select(b.inner.groups).where(sa.false()).subquery())},
        ),
        "groups does not show",
    ),
}


@pytest.mark.parametrize(("broken", "said"), BREAKAGES.values(), ids=BREAKAGES)
def test_each_way_of_being_wrong_is_found(world, connection, facts, broken, said):
    found = check_directory(broken(world.directory, facts), connection, facts)
    assert any(sentence.startswith(said) for sentence in found), found


def test_an_everyone_group_that_holds_nobody_or_anybody_is_found(world, connection, facts):
    groups = world.directory.groups
    strict = SqlDirectory(
        groups=sa.select(groups.c.id, groups.c.organization_id).subquery(),
        group_members=world.tables.group_members,
        organization_members=world.tables.organization_members,
        role_assignments=world.tables.role_assignments,
    )
    found = check_directory(strict, connection, facts)
    assert f"load_group left out group-member in group:{world.a}" in found
    anybody = change_subject("load_group", hold(in_group("everyone")))
    found = check_directory(anybody(world.directory, facts), connection, facts)
    assert any(sentence.startswith("load_group reported group-member") for sentence in found)


def test_nothing_is_asked_after_a_directory_that_raised(world, connection, facts):
    found = check_directory(
        SimpleNamespace(groups=world.directory.groups, load_group=fail), connection, facts
    )
    assert found == ["load_group raised LookupError: the host's own mistake"]


def test_it_leaves_the_database_as_it_was_and_the_transaction_open(world, engine, facts):
    with engine.connect() as connection:
        transaction = connection.begin()
        check_directory(world.directory, connection, facts)
        assert connection.get_transaction() is transaction
        assert transaction.is_active
