"""db, directory and token: what they do, what they print, and their statuses."""

from __future__ import annotations

import json
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from tests.support import TABLES, WAITING

from govbudget.authz.files import packaged_policy_dir
from govbudget.db.connection import normalize_url

pytestmark = pytest.mark.slow


def count(engine, table):
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(getattr(TABLES, table)))


# -- db --


def test_upgrade_makes_the_schema_and_check_goes_from_1_to_0(run, empty_url):
    before = run("db", "check", database_url=empty_url)
    assert (before.status, before.err) == (1, "")
    assert "is at nothing" in before.out
    assert "run `govbudget db upgrade`" in before.out

    upgraded = run("db", "upgrade", database_url=empty_url)
    assert (upgraded.status, upgraded.err) == (0, "")
    assert upgraded.out.startswith("schema `govbudget`: from nothing to ")

    again = run("db", "upgrade", database_url=empty_url)
    assert again.status == 0
    assert again.out.endswith(" already\n")

    after = run("db", "check", database_url=empty_url)
    assert (after.status, after.err) == (0, "")
    assert "as it should be" in after.out


def test_check_names_what_differs_with_status_1(run, empty_url):
    run("db", "upgrade", database_url=empty_url)
    engine = sa.create_engine(normalize_url(empty_url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE govbudget.users DROP COLUMN name")
    result = run("db", "check", database_url=empty_url)
    assert (result.status, result.err) == (1, "")
    assert "users" in result.out
    assert "name" in result.out


def test_a_groups_table_that_is_not_there_is_named(run, empty_url):
    result = run("db", "upgrade", database_url=empty_url, groups="public.crew.id")
    assert result.status == 2
    assert result.sentence.startswith(
        "GOVBUDGET_GROUPS is `public.crew.id`, which can't be referred to ("
    )


def test_a_timeout_that_postgresql_does_not_take_is_wrong_usage(run, empty_url):
    result = run("db", "upgrade", "--lock-timeout", 2_147_484, database_url=empty_url)
    assert result.status == 2
    assert "--lock-timeout" in result.sentence
    most = run("db", "upgrade", "--lock-timeout", 2_147_483, database_url=empty_url)
    assert most.status == 0


def test_the_commands_use_the_schema_that_the_settings_name(run, empty_url):
    run("db", "upgrade", database_url=empty_url, schema="money")
    assert run("db", "check", database_url=empty_url, schema="money").status == 0
    assert run("db", "check", database_url=empty_url).status == 1


# -- directory --


@pytest.fixture
def acme():
    """A small organization as a file for `directory load`."""
    organization, group, person = (str(uuid4()) for _ in range(3))
    return {
        "organizations": [{"id": organization, "name": "Acme"}],
        "users": [{"id": person, "name": "Ada"}],
        "groups": [{"id": group, "organization_id": organization, "name": "Lab"}],
        "organization_members": [{"organization_id": organization, "user_id": person}],
        "group_members": [{"group_id": group, "user_id": person}],
        "roles": [{"user_id": person, "role": "org-admin", "organization_id": organization}],
    }


def test_a_directory_is_loaded_from_a_file_and_says_what_it_added(here, acme, tmp_path):
    path = tmp_path / "acme.json"
    path.write_text(json.dumps(acme))
    result = here("directory", "load", path)
    assert (result.status, result.err) == (0, "")
    *changes, summary = result.out.splitlines()
    assert summary == "7 added, 0 changed, 0 removed"  # the Everyone group is one of them
    assert len(changes) == 7
    assert all(change.startswith("added ") for change in changes)
    assert "`Lab`" in result.out

    again = here("directory", "load", path)
    assert again.out == "0 added, 0 changed, 0 removed\n"


def test_an_id_is_found_by_a_part_of_the_name_in_any_case(here, acme):
    """A percent sign is a character like another; where a group is stands beside it."""
    tag = uuid4().hex
    for entry, name in (("users", f"Ada {tag}"), ("groups", f"LAB {tag}")):
        acme[entry][0]["name"] = name
    here("directory", "load", "-", stdin=json.dumps(acme).encode())
    (organization,), (user,), (group,) = (acme[n] for n in ("organizations", "users", "groups"))
    found = here("directory", "find", tag[4:].upper())
    assert found.out.splitlines() == [
        f"group id={group['id']} organization_id={organization['id']} `LAB {tag}`",
        f"user id={user['id']} `Ada {tag}`",
    ]
    (only,) = json.loads(here("directory", "find", f"lab {tag}", "--format", "json").out)
    assert only == {"kind": "group", **group}
    assert (
        here("directory", "find", user["id"].upper()).out == f"user id={user['id']} `Ada {tag}`\n"
    )
    nothing = here("directory", "find", f"%{tag}")
    assert (nothing.status, nothing.out) == (1, "")
    assert "no user, group or organization" in nothing.sentence


def test_a_dry_run_says_the_same_and_changes_nothing(here, acme, engine):
    content = json.dumps(acme).encode()
    before = count(engine, "users"), count(engine, "groups")
    dry = here("directory", "load", "-", "--dry-run", stdin=content)
    assert dry.status == 0
    assert dry.out.endswith("7 added, 0 changed, 0 removed (dry run: nothing was changed)\n")
    assert (count(engine, "users"), count(engine, "groups")) == before
    wet = here("directory", "load", "-", stdin=content)
    assert wet.out.splitlines()[:-1] == dry.out.splitlines()[:-1]


def test_what_is_absent_from_the_file_is_taken_away(here, acme):
    here("directory", "load", "-", stdin=json.dumps(acme).encode())
    acme["roles"], acme["group_members"] = [], []
    result = here("directory", "load", "-", stdin=json.dumps(acme).encode())
    assert result.out.splitlines()[-1] == "0 added, 0 changed, 2 removed"


def test_every_wrong_entry_is_named_and_nothing_is_loaded(here, acme, engine):
    acme["roles"][0]["role"] = "org-admn"
    acme["group_members"][0]["user_id"] = str(uuid4())
    before = count(engine, "users")
    result = here("directory", "load", "-", stdin=json.dumps(acme).encode())
    assert (result.status, result.out) == (2, "")
    first, *entries = result.err.splitlines()
    assert first == "govbudget: 2 entries are wrong; nothing was loaded"
    assert [entry.split(":")[0] for entry in entries] == [
        "  /group_members/0/user_id",
        "  /roles/0/role",
    ]
    assert "did you mean `org-admin`" in entries[1]
    assert count(engine, "users") == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", ["the JSON has 1 error", "  /: must be an object"]),
        (b"9" * 5000, ["not accepted: an integer has 5000 digits, which no value here has"]),
        (
            b'{"users": [7, {"id": 5, "name": "a\\n"}]}',
            [
                "the JSON has 3 errors",
                "  /users/0: must be an object",
                "  /users/1/id: expected an id of the type `uuid`, got `5`",
                "  /users/1/name: must be text without control characters, and not empty",
            ],
        ),
        (
            b'{"users": [{"id": "5", "name": "a"}]}',
            ["the JSON has 1 error", "  /users/0/id: `5` is not an id; expected a UUID such as"],
        ),
        (
            b'{"users":{},"people":[],"groups":[{"name":7}],"organizations":[{"is_default":1}]}',
            [
                "the JSON has 8 errors",
                "  /organizations/0/id: is missing; add it",
                "  /organizations/0/name: is missing; add it",
                "  /organizations/0/is_default: must be true or false",
                "  /users: must be an array",
                "  /groups/0/id: is missing; add it",
                "  /groups/0/organization_id: is missing; add it",
                "  /groups/0/name: must be text in quotes",
                "  /people: is not known here; correct or remove it",
            ],
        ),
    ],
    ids=["list", "long", "entries", "id", "fields"],
)
def test_what_is_wrong_with_a_file_is_said_in_plain_words(here, content, said):
    result = here("directory", "load", "-", stdin=content)
    assert (result.status, result.out) == (2, "")
    lines = result.err.removeprefix("govbudget: ").splitlines()
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True)), lines


def test_roles_are_those_of_the_policy_in_force(here, acme, tmp_path):
    shutil.copy(packaged_policy_dir() / "model.conf", tmp_path)
    (tmp_path / "policy.csv").write_text("p, boss, organization, group, update, allow\n")
    matrix = "role,object,action,decision,scope\nboss,group,update,allow,organization\n"
    (tmp_path / "matrix.csv").write_text(matrix)
    acme["roles"][0]["role"] = "boss"
    content = json.dumps(acme).encode()
    assert "no role `boss`" in here("directory", "load", "-", stdin=content).err
    loaded = here("directory", "load", "-", stdin=content, policy_dir=tmp_path)
    assert loaded.status == 0
    assert "role=boss" in loaded.out


def test_no_command_works_under_another_policy_than_the_demanded_one(here, acme, engine):
    demanded, content = f"sha256:{'0' * 64}", json.dumps(acme).encode()
    before = count(engine, "users")
    result = here("directory", "load", "-", stdin=content, policy_digest=demanded)
    assert (result.status, result.out) == (2, "")
    assert "digest-differs" in result.err
    assert demanded in here("prices", "show", "a", "b", policy_digest=demanded).err
    assert count(engine, "users") == before


@pytest.mark.parametrize(
    "variables", [{"id_type": "text"}, {"id_type": "bigint"}, {"groups": "none"}], ids=str
)
def test_what_works_on_own_tables_with_uuids_alone_says_so(here, run, acme, variables):
    content = json.dumps(acme).encode()
    for result in (
        here("directory", "load", "-", stdin=content, **variables),
        here("token", "create", uuid4(), **variables),
        here("token", "list", **variables),
        here("token", "revoke", uuid4(), **variables),
        here("serve", **variables),
    ):
        assert result.status == 2
        assert "GOVBUDGET_GROUPS is `" in result.sentence
        assert "GOVBUDGET_ID_TYPE is `" in result.sentence


# -- token --


def test_create_prints_the_token_and_nothing_else(here, world, engine):
    from govbudget.server.tokens import BearerTokens

    result = here("token", "create", world.member)
    assert (result.status, result.err) == (0, "")
    token = result.out.removesuffix("\n")
    assert token.split() == [token]
    with engine.connect() as connection:
        assert BearerTokens(TABLES).find_user(connection, token) == world.member


def test_a_token_lives_for_the_days_that_are_asked_for(here, world):
    here("token", "create", world.member, "--days", "3")
    (line,) = lines_of(here("token", "list"), world.member)
    assert (datetime.now(UTC) + timedelta(days=3)).date().isoformat() in line
    assert " active " in line


def test_list_shows_no_secret(here, world):
    token = here("token", "create", world.member).out.strip()
    result = here("token", "list")
    assert (result.status, result.err) == (0, "")
    assert token not in result.out
    assert len(lines_of(result, world.member)) == 1


def test_a_token_is_revoked_once(here, world):
    here("token", "create", world.member)
    (line,) = lines_of(here("token", "list"), world.member)
    token_id = line.split()[0]
    first = here("token", "revoke", token_id)
    assert (first.status, first.out, first.err) == (0, f"revoked {token_id}\n", "")
    assert " revoked " in lines_of(here("token", "list"), world.member)[0]
    second = here("token", "revoke", token_id)
    assert second.status == 1
    assert token_id in second.sentence


def test_a_token_for_nobody_is_refused_and_says_what_to_do(here):
    result = here("token", "create", uuid4())
    assert result.status == 2
    assert "govbudget directory load" in result.sentence


def lines_of(result, user):
    return [line for line in result.out.splitlines() if str(user) in line]


# -- when the database says: try again --


def test_a_command_tries_again_where_its_transaction_is_told_to(here, run, world, engine, url):
    """A serialization failure: the row that it waited for was changed meanwhile."""
    here("token", "create", world.member)
    (line,) = lines_of(here("token", "list"), world.member)
    token_id = line.split()[0]
    isolated = f"{url}{'&' if '?' in url else '?'}options=-c%20default_transaction_isolation%3D"
    held, waited = threading.Event(), []

    def change():
        tokens = TABLES.api_tokens
        with engine.connect() as connection, connection.begin():
            later = tokens.c.expires_at + timedelta(days=1)
            connection.execute(
                sa.update(tokens).where(tokens.c.id == UUID(token_id)).values(expires_at=later)
            )
            held.set()
            asked = sa.text(WAITING)
            deadline = time.monotonic() + 10
            while not waited and time.monotonic() < deadline:
                if connection.scalar(asked):
                    waited.append(True)
                time.sleep(0.02)

    other = threading.Thread(target=change)
    other.start()
    held.wait(10)
    result = run("token", "revoke", token_id, database_url=f"{isolated}repeatable%5C%20read")
    other.join()
    assert waited
    assert (result.status, result.err) == (0, "")
