"""policy who, policy diff --people and directory check inside a host with tables of its own."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from flask.cli import FlaskGroup
from tests.review.helpers import FOLDERS, append, copy_policy
from tests.support import count_statements, make_app, names_budget_table

from govbudget import Assignment, Domain, Layout, Scope, SqlDirectory, Subject
from govbudget.migrations import upgrade

pytestmark = pytest.mark.slow

HOST = """
    CREATE TABLE teams (id integer PRIMARY KEY, organization_id integer, is_everyone boolean);
    CREATE TABLE seats (group_id integer, user_id integer);
    CREATE TABLE staff (organization_id integer, user_id integer);
    CREATE TABLE duties (user_id integer, role text, organization_id integer);
    INSERT INTO teams VALUES (10, 1, true), (11, 1, false), (12, 1, false), (20, 2, false);
    INSERT INTO staff VALUES (1, 101), (1, 102), (2, 201);
    INSERT INTO seats VALUES (11, 101), (11, NULL), (20, 201);
    INSERT INTO duties VALUES (102, 'boss', 1), (300, 'root', NULL), (101, 'cook', 1);
"""
ROLES = {"boss": "org-admin", "root": "owner"}


class Host:
    """A host, its directory and its command."""

    def __init__(self, engine):
        self.engine = engine
        column = sa.column
        teams = sa.table("teams", *map(column, ("id", "organization_id", "is_everyone")))
        seats = sa.table("seats", *map(column, ("group_id", "user_id")))
        staff = sa.table("staff", *map(column, ("organization_id", "user_id")))
        duties = sa.table("duties", *map(column, ("user_id", "role", "organization_id")))
        self.directory = SqlDirectory(
            groups=teams,
            group_members=seats,
            organization_members=staff,
            role_assignments=duties,
            roles=ROLES,
        )

    def run(self, *arguments, directory=None, policy=None):
        config = {"GOVBUDGET_ID_TYPE": "bigint", "GOVBUDGET_GROUPS": "public.teams.id"}
        app = make_app(
            self.engine,
            config,
            directory=directory or self.directory,
            **({"policy": policy} if policy else {}),
        )
        group = FlaskGroup(create_app=lambda: app, load_dotenv=False, set_debug_flag=False)
        ran = app.test_cli_runner().invoke(group, ["govbudget", *map(str, arguments)])
        assert ran.exception is None or isinstance(ran.exception, SystemExit)
        return SimpleNamespace(status=ran.exit_code, out=ran.stdout.splitlines(), err=ran.stderr)

    def execute(self, text):
        with self.engine.begin() as connection:
            connection.exec_driver_sql(text)


@pytest.fixture(scope="module")
def installed(make_database):
    engine = sa.create_engine(make_database(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(HOST)
        upgrade(connection, Layout("bigint", groups="public.teams.id"))
    yield Host(engine)
    engine.dispose()


@pytest.fixture
def host(installed):
    """The host, whose rows are as they were afterwards."""
    yield installed
    tables = "teams, seats, staff, duties, govbudget.member_ai_overrides"
    installed.execute(f"TRUNCATE {tables} CASCADE; {HOST[HOST.index('INSERT') :]}")


def without_lines(out):
    return [re.sub(r" \(\w*( ?)policy.csv:\d+\)", "", line) for line in out]


# -- who --


def test_the_hosts_people_are_listed_by_the_roles_that_the_policy_has(host):
    """A seat that nobody has is nobody's; a role that is not mapped is not listed."""
    ran = host.run("policy", "who", "read", "group", "--organization", 1)
    assert (ran.status, ran.err) == (0, "")
    assert without_lines(ran.out[1:]) == [
        "101: group:10 of organization:1: group-member in group:10",
        "101: group:11 of organization:1: group-member in group:11",
        "102: organization:1: org-admin in organization:1, group-member in group:10",
        "300: organization:1: owner in site",
        "people who may read `group`: 3",
    ]


def test_who_is_in_an_organization_and_in_no_group_reads_what_they_spend(host):
    """The organization has no group of everyone, so nothing else says that they are there."""
    host.execute("INSERT INTO staff VALUES (2, 202)")
    ran = host.run("policy", "who", "read", "ai_member_spend", "--organization", 2)
    assert without_lines(ran.out[1:]) == [
        "201: user:201 of organization:2: self in user:201",
        "300: organization:2: owner in site",
        "202: user:202 of organization:2: self in user:202",
        "people who may read `ai_member_spend`: 3",
    ]


def test_a_few_statements_ask_about_everybody_and_none_names_what_is_spent(host, changed):
    host.execute("INSERT INTO seats SELECT 12, n FROM generate_series(1000, 1999) n")
    for arguments in (
        ("policy", "who", "read", "group"),
        ("policy", "diff", FOLDERS["shipped"], changed, "--people"),
    ):
        with count_statements(host.engine) as sent:
            assert len(host.run(*arguments).out) > 1000
        assert len(sent) <= 3
        assert not any(map(names_budget_table, sent))


class Plain:
    """A directory from before there was a list of people."""

    def __init__(self, inner):
        for name in ("groups", "group_members", "organization_members"):
            setattr(self, name, getattr(inner, name))
        for name in ("load_subject", "load_group", "load_organization", "load_member"):
            setattr(self, name, getattr(inner, name))


class Listing(Plain):
    """The same with the method that its owner was asked to write."""

    def __init__(self, inner):
        super().__init__(inner)
        self.inner = inner

    def list_subjects(self, connection):
        return self.inner.list_subjects(connection)


def test_a_directory_that_can_not_list_people_says_what_to_write(host):
    folder = FOLDERS["shipped"]
    for arguments in (
        ("policy", "who", "read", "group"),
        ("policy", "diff", folder, FOLDERS["dedicated"], "--people"),
        ("directory", "check"),
    ):
        ran = host.run(*arguments, directory=Plain(host.directory))
        assert (ran.status, ran.out) == (2, [])
        (sentence,) = (line for line in ran.err.splitlines() if line.startswith("govbudget: "))
        assert sentence == (
            "govbudget: the directory, a `Plain`, can't list people: it has no method "
            "`list_subjects(connection)`; write one that yields a `Subject` for each person who "
            "holds a role anywhere, with all roles of theirs (see docs/how-to/your-own-tables.md)"
        )
        assert host.run(*arguments, directory=Listing(host.directory)).status < 2


# -- diff --people --


@pytest.fixture
def changed(tmp_path):
    """A change: members set their group's budget, admins no longer do, one of them is denied."""
    folder = copy_policy(FOLDERS["shipped"], tmp_path / "new")
    (folder / "matrix.csv").unlink()
    lines = (folder / "policy.csv").read_text()
    lines = lines.replace("p, org-admin, organization, group, update, allow\n", "")
    (folder / "policy.csv").write_text(lines + "p, group-member, group, group, update, allow\n")
    return folder


def test_who_of_them_gains_and_loses_where(host, changed):
    ran = host.run("policy", "diff", FOLDERS["shipped"], changed, "--people")
    assert ran.status == 1
    people = without_lines(line for line in ran.out if line[0].isdigit())
    but = "organization:1, except group:10 of organization:1"
    assert people == [
        "1 gained, 1 lost",
        "101 gains group update: group:10 of organization:1: group-member in group:10",
        "101 gains group update: group:11 of organization:1: group-member in group:11",
        f"102 loses group update: {but}: org-admin in organization:1",
        "201 gains group update: group:20 of organization:2: group-member in group:20",
    ]


def test_as_json_people_are_a_list_of_the_answer(host, changed):
    asked = ("policy", "diff", FOLDERS["shipped"], changed, "--format", "json")
    value = json.loads("\n".join(host.run(*asked, "--people").out))
    lines = (changed / "policy.csv").read_text().splitlines()
    assert value["people"][0] == {
        "kind": "gain",
        "object": "group",
        "action": "update",
        "user_id": 101,
        "where": ["site", "organization:1", "group:10"],
        "except": [],
        "roles": [
            {"role": "group-member", "domain": "group:10", "lines": [f"policy.csv:{len(lines)}"]}
        ],
    }
    assert [row["kind"] for row in value.pop("people")] == ["gain", "gain", "loss", "gain"]
    assert value == json.loads("\n".join(host.run(*asked).out))


def test_a_change_that_concerns_nobody_who_is_there(host, tmp_path):
    folder = copy_policy(FOLDERS["shipped"], tmp_path / "new")
    (folder / "matrix.csv").unlink()
    append(folder / "policy.csv", "p, auditor, site, group, read, allow\n")
    ran = host.run("policy", "diff", FOLDERS["shipped"], folder, "--people")
    assert (ran.status, ran.out[-1]) == (1, "people who gain or lose: 0")
    ran = host.run("policy", "diff", folder, folder, "--people")
    assert (ran.status, ran.out[-1]) == (0, "people who gain or lose: 0")


# -- directory check --


def check(host, **options):
    ran = host.run("directory", "check", **options)
    value = json.loads("\n".join(host.run("directory", "check", "--format", "json", **options).out))
    assert value["policy_digest"].startswith("sha256:")
    assert len(value["findings"]) == len(ran.out) or ran.status == 0
    return ran.status, ran.out, value["findings"]


def test_where_everything_counts_there_is_nothing_to_say(host):
    assert check(host) == (0, ["no findings: every stored assignment counts"], [])


def test_every_assignment_that_counts_for_nothing_is_named_and_why(host):
    host.execute("""
        INSERT INTO duties VALUES (102, 'boss', NULL), (102, 'root', 1), (102, 'boss', 3);
        INSERT INTO seats VALUES (20, 101), (13, 101), (12, 101);
        INSERT INTO govbudget.member_ai_overrides
          (organization_id, user_id, group_id, spend_limit_micros, revision)
          VALUES (1, 101, 11, 5, gen_random_uuid()), (1, 102, 10, 5, gen_random_uuid()),
                 (2, 201, 20, 5, gen_random_uuid());
        DELETE FROM seats WHERE group_id = 20 AND user_id = 201""")
    status, out, findings = check(host)
    assert status == 1
    wrong = "the role's scope is `{}`, and it is held in `{}`".format
    assert out == [
        "membership of 101 in group:13: the directory has no such group",
        "membership of 101 in group:20: the user is not in organization:2",
        f"role `owner` of 102 in organization:1: {wrong('site', 'organization')}",
        "role `org-admin` of 102 in organization:3: the directory has no such organization",
        f"role `org-admin` of 102 in site: {wrong('organization', 'site')}",
        "override of 201 in group:20: the user is not in the group",
    ]
    assert findings[0] == {
        "user_id": 101,
        "what": "membership",
        "domain": "group:13",
        "why": "the directory has no such group",
    }


def test_a_role_that_the_policy_does_not_know(host):
    """Without a mapping the host's names are the policy's."""
    inner = host.directory
    directory = SqlDirectory(
        groups=inner.groups,
        group_members=inner.group_members,
        organization_members=inner.organization_members,
        role_assignments=sa.table(
            "duties", *map(sa.column, ("user_id", "role", "organization_id"))
        ),
    )
    status, out, _ = check(host, directory=directory)
    assert (status, out) == (
        1,
        [
            f"role `{role}` of {person} in {domain}: the policy declares no such role"
            for person, role, domain in (
                (101, "cook", "organization:1"),
                (102, "boss", "organization:1"),
                (300, "root", "site"),
            )
        ],
    )


class Odd(Listing):
    """A directory that stores what nobody can hold, and has a group twice."""

    def __init__(self, inner):
        super().__init__(inner)
        twice = sa.union_all(sa.select(inner.groups), sa.select(inner.groups))
        self.groups = twice.subquery("twice")

    def list_subjects(self, connection):
        toward = Assignment("self", Domain(Scope.USER, 101))
        lead = Assignment("group-lead", Domain(Scope.GROUP, 11))
        yield Subject(101, (toward, lead, Assignment("group-member", Domain(Scope.GROUP, 11))))


def test_what_a_directory_of_the_hosts_own_says_is_looked_at_like_any_other(host):
    host.execute("INSERT INTO staff VALUES (2, 101)")
    assert check(host, directory=Odd(host.directory))[:2] == (
        1,
        [
            "role `self` of 101 in user:101: everyone holds it toward themselves, by no assignment",
            "role `group-lead` of 101 in group:11: the policy declares no such role",
        ],
    )


def test_membership_counts_where_the_policy_gives_members_no_right(host, tmp_path):
    """Their limits count all the same."""
    folder = copy_policy(FOLDERS["shipped"], tmp_path / "policy")
    (folder / "matrix.csv").unlink()
    lines = (folder / "policy.csv").read_text()
    (folder / "policy.csv").write_text(lines.replace("p, group-member", "# p, group-member"))
    assert check(host, policy=folder)[0] == 0
