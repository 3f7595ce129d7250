"""The directory's file: the whole truth for the organizations it names, or nothing is loaded."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from tests.budgets.support import get_budget, set_budget, watch
from tests.support import TABLES, packaged_policy

from govbudget import InvalidInput
from govbudget.server.directory_file import load_directory

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def load_url(make_database, template):
    """Give a migrated database of its own: the file speaks about all site roles there are."""
    return make_database(template=template)


@pytest.fixture
def connection(load_url):
    engine = sa.create_engine(load_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


class Names(dict):
    """Gives each name an id of its own, as text."""

    def __missing__(self, name):
        self[name] = str(uuid4())
        return self[name]


@pytest.fixture
def ids():
    return Names()


@pytest.fixture
def file(ids):
    """Give a small organization with everything in it."""
    return {
        "organizations": [{"id": ids["acme"], "name": "Acme", "is_default": True}],
        "users": [{"id": ids[name], "name": name} for name in ("ann", "bob", "eve")],
        "groups": [
            {"id": ids[name], "organization_id": ids["acme"], "name": name}
            for name in ("red", "blue")
        ],
        "organization_members": [
            {"organization_id": ids["acme"], "user_id": ids[name]} for name in ("ann", "bob")
        ],
        "group_members": [{"group_id": ids["red"], "user_id": ids["ann"]}],
        "roles": [
            {"user_id": ids["eve"], "role": "owner", "organization_id": None},
            {"user_id": ids["bob"], "role": "org-admin", "organization_id": ids["acme"]},
        ],
    }


def other_organization(ids):
    """Give a file of another organization; it names no role on the site."""
    return {
        "organizations": [{"id": ids["corp"], "name": "Corp"}],
        "users": [{"id": ids["zoe"], "name": "zoe"}],
        "groups": [{"id": ids["green"], "organization_id": ids["corp"], "name": "green"}],
        "organization_members": [{"organization_id": ids["corp"], "user_id": ids["zoe"]}],
        "group_members": [{"group_id": ids["green"], "user_id": ids["zoe"]}],
        "roles": [{"user_id": ids["zoe"], "role": "user-admin", "organization_id": ids["corp"]}],
    }


def load(connection, file):
    content = json.dumps(file).encode()
    changes = load_directory(connection, TABLES, content, packaged_policy().table.scopes)
    return [str(change) for change in changes]


def count(changes):
    """Count the changes by what was done to which kind of thing."""
    counts = {}
    for change in changes:
        verb, noun = change.split("=")[0].rsplit(" ", 1)[0].split(" ", 1)
        counts[verb, noun] = counts.get((verb, noun), 0) + 1
    return counts


def errors(connection, file):
    """Load a file that is wrong; give where, after making sure that nothing was loaded."""
    before = dump(connection)
    with pytest.raises(InvalidInput, match="nothing was loaded") as caught:
        load(connection, file)
    assert dump(connection) == before
    return [error.pointer for error in caught.value.errors]


def dump(connection):
    """Read all that the directory holds, times and made-up ids aside."""
    left_out = {"joined_at"}
    result = {}
    for table in (
        TABLES.organizations,
        TABLES.users,
        TABLES.groups,
        TABLES.organization_members,
        TABLES.group_members,
        TABLES.role_assignments,
    ):
        made_up = left_out | ({"id"} if table is TABLES.role_assignments else set())
        columns = [column for column in table.c if column.name not in made_up]
        result[table.name] = {
            tuple(map(str, row)) for row in connection.execute(sa.select(*columns))
        }
    return result


def test_a_file_is_loaded_into_empty_tables(connection, ids, file):
    """All that it lists, and the Everyone group that exists by itself."""
    assert count(load(connection, file)) == {
        ("added", "organization"): 1,
        ("added", "user"): 3,
        ("added", "group"): 3,
        ("added", "organization member"): 2,
        ("added", "group member"): 1,
        ("added", "role assignment"): 2,
    }
    acme = ids["acme"]
    assert dump(connection) == {
        "organizations": {(acme, "Acme", "True", "False")},
        "users": {(ids[name], name) for name in ("ann", "bob", "eve")},
        "groups": {
            (acme, acme, "Everyone"),
            (ids["red"], acme, "red"),
            (ids["blue"], acme, "blue"),
        },
        "organization_members": {(acme, ids["ann"]), (acme, ids["bob"])},
        "group_members": {(ids["red"], ids["ann"], acme)},
        "role_assignments": {
            (ids["eve"], "owner", "None"),
            (ids["bob"], "org-admin", acme),
        },
    }


def test_the_same_file_again_changes_nothing(connection, ids, file):
    """In any order of its entries; and the time of joining stays."""
    load(connection, file)
    members = TABLES.organization_members
    joined = connection.execute(sa.select(members)).all()
    for entries in file.values():
        entries.reverse()
    assert load(connection, file) == []
    assert connection.execute(sa.select(members)).all() == joined


def test_what_is_absent_is_taken_away_and_users_stay(connection, ids, file):
    """Groups with their budgets, memberships, roles in the organization and on the site."""
    load(connection, file)
    eve, red = UUID(ids["eve"]), UUID(ids["red"])
    set_budget(connection, eve, red, 7)
    less = {"organizations": file["organizations"]}
    assert count(load(connection, less)) == {
        ("removed", "role assignment"): 2,
        ("removed", "group member"): 1,
        ("removed", "organization member"): 2,
        ("removed", "group"): 2,
    }
    held = dump(connection)
    assert held["groups"] == {(ids["acme"], ids["acme"], "Everyone")}
    assert held["users"] == {(ids[name], name) for name in ("ann", "bob", "eve")}
    for table in ("organization_members", "group_members", "role_assignments"):
        assert held[table] == set()
    assert connection.execute(sa.select(TABLES.group_ai_budgets)).all() == []


def test_a_budget_outlives_a_load_that_keeps_its_group(connection, ids, file):
    load(connection, file)
    eve, red = UUID(ids["eve"]), UUID(ids["red"])
    budget = set_budget(connection, eve, red, 7)
    file["groups"][0]["name"] = "crimson"
    file["organizations"][0]["name"] = "Acme Ltd"
    file["group_members"] = []
    load(connection, file)
    assert get_budget(connection, eve, red) == budget


def test_one_membership_and_one_role_are_taken_away_alone(connection, ids, file):
    load(connection, file)
    file["group_members"] = [{"group_id": ids["blue"], "user_id": ids["bob"]}]
    file["organization_members"].append({"organization_id": ids["acme"], "user_id": ids["eve"]})
    file["roles"][1]["role"] = "user-admin"
    assert count(load(connection, file)) == {
        ("removed", "group member"): 1,
        ("added", "group member"): 1,
        ("added", "organization member"): 1,
        ("removed", "role assignment"): 1,
        ("added", "role assignment"): 1,
    }
    held = dump(connection)
    assert held["group_members"] == {(ids["blue"], ids["bob"], ids["acme"])}
    assert held["role_assignments"] == {
        (ids["eve"], "owner", "None"),
        (ids["bob"], "user-admin", ids["acme"]),
    }


def test_other_organizations_are_left_alone_and_site_roles_are_not(connection, ids, file):
    """The file is the whole truth about the site whatever organizations it names."""
    load(connection, file)
    before = dump(connection)
    load(connection, other_organization(ids))
    held = dump(connection)
    site = (ids["eve"], "owner", "None")
    for table, rows in before.items():
        assert rows - held[table] == ({site} if table == "role_assignments" else set())
    assert {row[1] for row in held["groups"] - before["groups"]} == {ids["corp"]}


def test_a_file_that_names_nothing_takes_only_the_site_roles_away(connection, ids, file):
    load(connection, file)
    before = dump(connection)
    assert count(load(connection, {})) == {("removed", "role assignment"): 1}
    assert before["groups"] == dump(connection)["groups"]


def test_a_user_may_be_referred_to_who_is_there_already(connection, ids, file):
    load(connection, file)
    file["users"] = []
    assert load(connection, file) == []


def test_renames_are_changes(connection, ids, file):
    """Of an organization, a user, a group; an Everyone group gets its name back."""
    load(connection, file)
    everyone = sa.update(TABLES.groups).where(TABLES.groups.c.id == UUID(ids["acme"]))
    connection.execute(everyone.values(name="some"))
    file["organizations"][0]["name"] = "Acme Ltd"
    file["users"][0]["name"] = "Ann"
    file["groups"][1]["name"] = "azure"
    assert count(load(connection, file)) == {
        ("changed", "organization"): 1,
        ("changed", "user"): 1,
        ("changed", "group"): 2,
    }
    held = dump(connection)
    assert (ids["ann"], "Ann") in held["users"]
    assert {row[2] for row in held["groups"]} == {"Everyone", "red", "azure"}


def test_the_default_is_what_the_file_says(connection, ids, file):
    """It may go, come, and pass to another organization that the same file names."""
    corp = other_organization(ids)["organizations"][0]
    file["organizations"].append(corp)
    load(connection, file)

    def defaults():
        organizations = TABLES.organizations.c
        return {
            str(i)
            for i in connection.scalars(sa.select(organizations.id).where(organizations.is_default))
        }

    assert defaults() == {ids["acme"]}
    del file["organizations"][0]["is_default"]
    corp["is_default"] = True
    load(connection, file)
    assert defaults() == {ids["corp"]}
    corp["is_default"] = False
    load(connection, file)
    assert defaults() == set()


def test_an_organization_that_was_deleted_is_there_again_when_it_is_listed(connection, ids, file):
    load(connection, file)
    connection.execute(sa.update(TABLES.organizations).values(deleted=True))
    assert count(load(connection, file)) == {("changed", "organization"): 1}
    assert dump(connection)["organizations"] == {(ids["acme"], "Acme", "True", "False")}


def test_a_group_that_was_taken_away_may_come_back_elsewhere(connection, ids, file):
    """It is another group then: it went with its budget and its members."""
    load(connection, file)
    red = file["groups"].pop(0)
    file["group_members"] = []
    load(connection, file)
    corp = other_organization(ids)
    corp["groups"].append({**red, "organization_id": ids["corp"]})
    load(connection, corp)
    assert (ids["red"], ids["corp"], "red") in dump(connection)["groups"]


def test_changes_are_told_with_what_a_reader_knows(connection, ids, file):
    changes = load(connection, file)
    assert f"added organization id={ids['acme']} `Acme`" in changes
    assert f"added user id={ids['ann']} `ann`" in changes
    assert f"added role assignment user_id={ids['eve']} role=owner organization_id=site" in changes


# -- wrong entries: each is named, and nothing is loaded --


def entry(table, **values):
    """Make a change of a file that appends an entry; `@name` stands for the id of that name."""

    def change(file, ids):
        file[table].append(
            {
                key: ids[value[1:]] if str(value).startswith("@") else value
                for key, value in values.items()
            }
        )

    return change


WRONG = {
    "a member who is nobody": (
        entry("organization_members", organization_id="@acme", user_id="@nobody"),
        ["/organization_members/2/user_id"],
    ),
    "a member of no organization here": (
        entry("organization_members", organization_id="@nowhere", user_id="@ann"),
        ["/organization_members/2/organization_id"],
    ),
    "a member of an organization that another file names": (
        entry("organization_members", organization_id="@corp", user_id="@ann"),
        ["/organization_members/2/organization_id"],
    ),
    "a group of no organization here": (
        entry("groups", id="@new", organization_id="@nowhere", name="new"),
        ["/groups/2/organization_id"],
    ),
    "a group member who is nobody": (
        entry("group_members", group_id="@red", user_id="@nobody"),
        ["/group_members/1/user_id"],
    ),
    "a member of no group here": (
        entry("group_members", group_id="@nothing", user_id="@ann"),
        ["/group_members/1/group_id"],
    ),
    "a member of a group that another file names": (
        entry("group_members", group_id="@green", user_id="@ann"),
        ["/group_members/1/group_id"],
    ),
    "a group member who is not in the organization": (
        entry("group_members", group_id="@red", user_id="@eve"),
        ["/group_members/1/user_id"],
    ),
    "a role of nobody": (
        entry("roles", user_id="@nobody", role="owner", organization_id=None),
        ["/roles/2/user_id"],
    ),
    "a role in no organization here": (
        entry("roles", user_id="@ann", role="org-admin", organization_id="@corp"),
        ["/roles/2/organization_id"],
    ),
    "a role that the policy does not declare": (
        entry("roles", user_id="@ann", role="org-amdin", organization_id="@acme"),
        ["/roles/2/role"],
    ),
    "a role of the site in an organization": (
        entry("roles", user_id="@ann", role="owner", organization_id="@acme"),
        ["/roles/2/role"],
    ),
    "a role of an organization on the site": (
        entry("roles", user_id="@ann", role="org-admin", organization_id=None),
        ["/roles/2/role"],
    ),
    "a role of a group in an organization": (
        entry("roles", user_id="@ann", role="group-member", organization_id="@acme"),
        ["/roles/2/role"],
    ),
    "a role of a group on the site": (
        entry("roles", user_id="@ann", role="group-member", organization_id=None),
        ["/roles/2/role"],
    ),
    "a group that would change its organization": (
        entry("groups", id="@green", organization_id="@acme", name="green"),
        ["/groups/2/organization_id"],
    ),
    "Everyone as a group": (
        entry("groups", id="@acme", organization_id="@acme", name="Everyone"),
        ["/groups/2/id"],
    ),
    "another organization's Everyone as a group": (
        entry("groups", id="@corp", organization_id="@acme", name="Everyone"),
        ["/groups/2/id"],
    ),
    "a member of Everyone": (
        entry("group_members", group_id="@acme", user_id="@ann"),
        ["/group_members/1/group_id"],
    ),
    "an organization with the id of a group elsewhere": (
        entry("organizations", id="@green", name="green"),
        ["/organizations/1/id"],
    ),
    "a second default": (
        entry("organizations", id="@new", name="new", is_default=True),
        ["/organizations/1/is_default"],
    ),
    "an organization twice": (
        entry("organizations", id="@acme", name="Acme again"),
        ["/organizations/0", "/organizations/1"],
    ),
    "a user twice": (entry("users", id="@ann", name="Ann"), ["/users/0", "/users/3"]),
    "a group twice": (
        entry("groups", id="@red", organization_id="@acme", name="rouge"),
        ["/groups/0", "/groups/2"],
    ),
    "a member twice": (
        entry("organization_members", organization_id="@acme", user_id="@ann"),
        ["/organization_members/0", "/organization_members/2"],
    ),
    "a group member twice": (
        entry("group_members", group_id="@red", user_id="@ann"),
        ["/group_members/0", "/group_members/1"],
    ),
    "a role twice": (
        entry("roles", user_id="@eve", role="owner", organization_id=None),
        ["/roles/0", "/roles/2"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("loaded", [False, True], ids=["first load", "later load"])
def test_a_wrong_entry_is_named_and_nothing_is_loaded(connection, ids, file, what, loaded):
    """Beside an organization that another file named, and whether or not the rest is there."""
    load(connection, other_organization(ids))
    if loaded:
        load(connection, {**file, "roles": []})
    change, pointers = WRONG[what]
    change(file, ids)
    assert errors(connection, file) == pointers


def test_a_second_default_is_found_in_what_another_file_named(connection, ids, file):
    """It may pass on in one file that names both."""
    load(connection, file)
    corp = other_organization(ids)
    corp["organizations"][0]["is_default"] = True
    assert errors(connection, corp) == ["/organizations/0/is_default"]
    connection.execute(sa.update(TABLES.organizations).values(deleted=True))
    load(connection, corp)


def test_every_wrong_entry_is_named_at_once(connection, ids, file):
    load(connection, other_organization(ids))
    places = []
    for what in (
        "a group that would change its organization",
        "a member who is nobody",
        "a group member who is not in the organization",
        "a role that the policy does not declare",
        "a user twice",
    ):
        change, pointers = WRONG[what]
        change(file, ids)
        places += pointers
    assert sorted(errors(connection, file)) == sorted(places)


def test_a_role_that_is_misspelt_is_answered_with_the_one_that_was_meant(connection, ids, file):
    WRONG["a role that the policy does not declare"][0](file, ids)
    with pytest.raises(InvalidInput) as caught:
        load(connection, file)
    (error,) = caught.value.errors
    assert "`org-amdin`" in error.detail
    assert "did you mean `org-admin`?" in error.detail


@pytest.mark.parametrize(
    ("table", "values", "pointer"),
    [
        ("users", {"id": "ann", "name": "x"}, "/users/3/id"),
        ("users", {"id": 7, "name": "x"}, "/users/3/id"),
        ("users", {"id": "{" + str(UUID(int=1))[1:], "name": "x"}, "/users/3/id"),
        ("users", {"id": str(UUID(int=1)), "name": ""}, "/users/3/name"),
        ("users", {"id": str(UUID(int=1)), "name": "x\ny"}, "/users/3/name"),
        ("users", {"id": str(UUID(int=1)), "name": "x\0"}, "/users/3/name"),
        ("users", {"id": str(UUID(int=1)), "name": "\ud800"}, "/users/3/name"),
        ("users", {"id": str(UUID(int=1))}, "/users/3/name"),
        ("users", {"id": str(UUID(int=1)), "name": "x", "role": "owner"}, "/users/3/role"),
        ("organizations", {"id": str(UUID(int=1)), "name": "x", "is_default": 1}, None),
        ("organizations", {"id": str(UUID(int=1)), "name": "x", "deleted": True}, None),
        ("roles", {"user_id": str(UUID(int=1)), "role": "owner"}, "/roles/2/organization_id"),
    ],
)
def test_an_entry_of_another_shape_is_named(connection, file, table, values, pointer):
    file[table].append(values)
    before = dump(connection)
    with pytest.raises(InvalidInput) as caught:
        load(connection, file)
    (error,) = caught.value.errors
    key = next((key for key in ("is_default", "deleted") if key in values), None)
    assert error.pointer == (pointer or f"/{table}/1/{key}")
    assert dump(connection) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{", b'{"people": []}', b'{"users": {}}', b'{"users": [], "users": []}'],
)
def test_what_is_no_such_file_is_refused(connection, content):
    with pytest.raises(InvalidInput):
        load_directory(connection, TABLES, content, packaged_policy().table.scopes)


def test_the_transaction_is_the_callers(connection, ids, file):
    with watch(connection.engine) as seen:
        load(connection, file)
        with pytest.raises(InvalidInput):
            load(connection, {**file, "users": [{"id": ids["x"], "name": "x"}] * 2})
    assert seen == []
    connection.rollback()
    assert all(rows == set() for rows in dump(connection).values())


def test_the_roles_of_a_custom_policy_can_be_loaded(connection, ids, file):
    """What a role is comes from the policy that the caller hands over, never from code."""
    file["roles"].append(
        {"user_id": ids["ann"], "role": "budget-viewer", "organization_id": ids["acme"]}
    )
    assert errors(connection, file) == ["/roles/2/role"]
    scopes = {**packaged_policy().table.scopes}
    scopes["budget-viewer"] = scopes["org-admin"]
    load_directory(connection, TABLES, json.dumps(file).encode(), scopes)
    assert (ids["ann"], "budget-viewer", ids["acme"]) in dump(connection)["role_assignments"]


@pytest.mark.parametrize("where", ["acme", None])
def test_a_role_that_everyone_holds_toward_themselves_is_given_to_nobody(
    connection, ids, file, where
):
    organization = ids[where] if where else None
    file["roles"].append({"user_id": ids["ann"], "role": "self", "organization_id": organization})
    with pytest.raises(InvalidInput) as caught:
        load(connection, file)
    (error,) = caught.value.errors
    assert error.pointer == "/roles/2/role"
    assert error.detail == "everyone holds `self` toward themselves; remove the entry"
