"""policy who: everybody who may, where, by which roles held where, and by which lines."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from tests.review.helpers import FOLDERS, append, copy_policy
from tests.support import World

from govbudget import Policy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def town(make_database, template):
    """A world that no other test adds to; `two` is in both organizations."""
    engine = sa.create_engine(make_database(template=template), poolclass=sa.NullPool)
    town = World(engine)
    town.url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    town.people["two"] = uuid4()
    with engine.begin() as connection:
        connection.execute(sa.insert(town.tables.users), [{"id": town.two, "name": "two"}])
        town.join(connection, town.a, "two")
        town.join(connection, town.b, "two")
    town.names = {str(one): name for name, one in vars(town).items() if isinstance(one, UUID)}
    town.names |= {str(one): name for name, one in town.people.items()}
    yield town
    engine.dispose()


@pytest.fixture
def ask(run, town):
    """Ask as text, with names in place of ids; the first line is about the policy."""

    def ask(*arguments, status=0, **options):
        ids = {name: str(one) for one, name in town.names.items()}
        given = [ids.get(argument, argument) for argument in arguments]
        result = run(*given, database_url=town.url, **options)
        assert (result.status, result.err.startswith("govbudget")) == (status, status == 2)
        return [write(town, line) for line in result.out.splitlines()]

    return ask


def write(town, text):
    for one, name in town.names.items():
        text = text.replace(one, name)
    return text


# -- who --

LINES = (FOLDERS["shipped"] / "policy.csv").read_text().splitlines()


def line(text):
    return f"(policy.csv:{LINES.index(text) + 1})"


UPDATES = {
    role: line(f"p, {role}, {scope}, group, update, allow")
    for role, scope in {
        "owner": "site",
        "org-admin": "organization",
        "user-admin": "organization",
    }.items()
}


def test_everybody_who_may_set_a_groups_budget_with_role_place_and_line(ask):
    which, *people, count = ask("policy", "who", "update", "group", "--group", "a1")
    assert which.startswith("policy: /")
    place = "group:a1 of organization:a"
    assert sorted(people) == [
        f"org_admin: {place}: org-admin in organization:a {UPDATES['org-admin']}",
        f"owner: {place}: owner in site {UPDATES['owner']}",
        f"user_admin: {place}: user-admin in organization:a {UPDATES['user-admin']}",
    ]
    assert count == "people who may update `group`: 3"


def test_in_an_organization_a_line_says_the_widest_place_and_all_roles_that_count(ask):
    _, *people, _ = ask("policy", "who", "read", "group", "--organization", "b")
    read = line("p, group-member, group, group, read, allow")
    admin = line("p, org-admin, organization, group, read, allow")
    owner = line("p, owner, site, group, read, allow")
    everyone = f"group-member in group:b {read}"
    assert sorted(people) == [
        f"b_admin: organization:b: org-admin in organization:b {admin}, {everyone}",
        f"outsider: group:b of organization:b: {everyone}",
        f"outsider: group:b1 of organization:b: group-member in group:b1 {read}",
        f"owner: organization:b: owner in site {owner}",
        f"two: group:b of organization:b: {everyone}",
    ]


def test_on_the_whole_site_without_a_place(ask):
    _, *people, count = ask("policy", "who", "update", "group")
    assert [one.split(": ")[:2] for one in sorted(people)] == [
        ["b_admin", "organization:b"],
        ["org_admin", "organization:a"],
        ["owner", "site"],
        ["user_admin", "organization:a"],
    ]
    assert count == "people who may update `group`: 4"


def test_what_is_of_the_site(ask):
    _, *people, count = ask("policy", "who", "create", "ai_usage")
    booked = line("p, gateway, site, ai_usage, create, allow")
    assert (people, count) == (
        [f"gateway: site: gateway in site {booked}"],
        "people who may create `ai_usage`: 1",
    )


def test_everyone_reads_what_they_spend_themselves_and_admins_what_their_members_do(ask):
    """In an organization, of a member; who is in no organization spends nothing that is there."""
    own = f"self in user:two {line('p, self, user, ai_member_spend, read, allow')}"
    _, *people, _ = ask("policy", "who", "read", "ai_member_spend")
    assert f"two: user:two of organization:a: {own}" in people
    assert f"two: user:two of organization:b: {own}" in people
    assert not [one for one in people if one.startswith(("nobody", "gateway"))]
    (admin,) = (one for one in people if one.startswith("b_admin"))
    assert admin.startswith("b_admin: organization:b: org-admin in organization:b (policy.csv:")
    asked = ("--user", "two", "--organization", "b")  # in any order
    _, *people, _ = ask("policy", "who", "read", "ai_member_spend", *asked)
    assert sorted(one.split(": ")[0] for one in people) == ["b_admin", "owner", "two"]
    assert f"two: user:two of organization:b: {own}" in people


def test_exceptions_are_named(ask, tmp_path):
    """Whoever is denied in a group of an organization they administer."""
    folder = copy_policy(FOLDERS["shipped"], tmp_path / "policy")
    append(folder / "policy.csv", "p, group-member, group, group, update, deny\n")
    (folder / "matrix.csv").unlink()
    _, *people, _ = ask("policy", "who", "update", "group", folder, "--organization", "a")
    (admin,) = (one for one in people if one.startswith("org_admin"))
    assert admin == (
        "org_admin: organization:a, except group:a of organization:a: "
        f"org-admin in organization:a {UPDATES['org-admin']}"
    )


def test_a_budget_is_asked_about_as_the_policy_decides_it(ask):
    """By whichever name: the answer says which."""
    *_, count = ask("policy", "who", "update", "group_ai_budget")
    assert count == "people who may update `group`: 4"
    *_, count = ask("policy", "who", "update", "group", FOLDERS["dedicated"])
    assert count == "people who may update `group_ai_budget`: 1"


def test_nobody_is_said(ask, tmp_path):
    folder = copy_policy(FOLDERS["shipped"], tmp_path / "policy")
    (folder / "matrix.csv").unlink()
    (folder / "policy.csv").write_text("p, auditor, site, group, read, allow\n")
    assert ask("policy", "who", "read", "group", folder)[1:] == ["people who may read `group`: 0"]


def test_as_json_it_is_one_object_with_a_row_a_place(run, town, tmp_path):
    folder = copy_policy(FOLDERS["shipped"], tmp_path / "policy")
    asked = ("policy", "who", "update", "group", "--organization", town.a, "--format", "json")
    value = json.loads(run(*asked, database_url=town.url).out)
    rows = value.pop("people")
    assert value == {
        "policy_dir": str(FOLDERS["shipped"]),
        "policy_digest": Policy.load().digest,
        "action": "update",
        "object": "group",
    }
    place = f"organization:{town.a}"
    assert {
        "user_id": str(town.org_admin),
        "where": ["site", place],
        "except": [],
        "roles": [
            {
                "role": "org-admin",
                "domain": place,
                "lines": [UPDATES["org-admin"].strip("()")],
            }
        ],
    } in rows
    missing = ("policy", "who", "read", "group", "--format", "json")
    lines = "p, auditor, site, group, read, allow\n"
    (folder / "policy.csv").write_text(lines)
    (folder / "matrix.csv").unlink()
    assert json.loads(run(*missing, folder, database_url=town.url).out)["people"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("update", "group", "--user", "member"),
        ("update", "group", "--group", "a1", "--organization", "a"),
        ("read", "ai_member_spend", "--user", "member"),
        ("read", "ai_member_spend", "--group", "a1"),
        ("update", "ai_model_price", "--organization", "a"),
        ("upd", "group"),
        ("create", "group"),  # nothing asks for it
        ("update", "ai_member_spend", "--organization", "a"),
        ("update", "grup"),
        ("update", "group", "--group", "nobody"),
        ("update", "group", "--organization", "a1"),
        ("update", "group", "--group", "no-id"),
        ("read", "ai_member_spend", "--organization", "a", "--user", "outsider"),
    ],
)
def test_what_can_not_be_asked_is_status_2(ask, arguments):
    assert ask("policy", "who", *arguments, status=2) == []
