"""GET /organizations/{organization}/ai/audit: newest first, in pages, as far as the policy goes."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from tests.audit.support import NOBODY, limit
from tests.support import (
    TABLES,
    Client,
    World,
    budget_path,
    count_statements,
    make_app,
    names_budget_table,
)
from tests.web.helpers import outcome, put_limit

from govbudget import Layout
from govbudget.authz.files import packaged_policy_dir
from govbudget.db.tables import Tables
from govbudget.directory.sql import SqlDirectory
from govbudget.ids import IdType
from govbudget.migrations import upgrade

KEYS = {
    "id", "at", "object_type", "object_id", "before", "after",
    "actor", "roles", "lines", "policy_digest", "request_id", "cause",
}  # fmt: skip


def audit_path(organization):
    return f"/organizations/{organization}/ai/audit"


def read_limits(response):
    """Give what each listed entry of a budget set, in the order of the answer."""
    assert response.status_code == 200, response.json
    return [
        entry["after"] and entry["after"]["spend_limit_micros"]
        for entry in response.json["entries"]
    ]


def walk(send, organization, person, size, between=lambda: None):
    """Read every page; give all entries."""
    entries, query = [], {"page_size": size}
    while True:
        response = send("GET", audit_path(organization), person, query_string=query)
        assert response.status_code == 200
        assert len(response.json["entries"]) <= size
        entries += response.json["entries"]
        token = response.json["next_page_token"]
        assert (token is None) == ("Link" not in response.headers)
        if token is None:
            return entries
        query["page_token"] = token
        between()


@pytest.fixture(scope="module")
def estate(engine, send):
    """A world in which seven changes were made in organization a, and some in b."""
    world = World(engine)
    for micros in range(4):
        put_limit(send, world.a1, world.owner, micros)
    put_limit(send, world.b1, world.owner, 100)
    put_limit(send, world.a2, world.org_admin, 4, headers={"X-Request-Id": "req-4"})
    send("DELETE", budget_path(world.a1), world.user_admin)
    put_limit(send, world.a1, world.owner, 6)
    put_limit(send, world.b1, world.owner, 101)
    return world


# -- what is listed --


def test_an_entry_says_all_that_an_auditor_asks_for(send, estate, policy):
    response = send("GET", audit_path(estate.a), estate.org_admin)
    assert set(response.json) == {"entries", "next_page_token"}
    entries = response.json["entries"]
    assert all(set(entry) == KEYS for entry in entries)
    (entry,) = [entry for entry in entries if entry["request_id"] == "req-4"]
    assert UUID(entry.pop("id"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["at"])
    assert abs((datetime.now(UTC) - datetime.fromisoformat(entry.pop("at"))).days) < 1
    assert entry == {
        "object_type": "group_ai_budget",
        "object_id": str(estate.a2),
        "before": None,
        "after": limit(4),
        "actor": str(estate.org_admin),
        "roles": ["org-admin"],
        "lines": list(policy.decide({"org-admin"}, "group", "update").lines),
        "policy_digest": policy.digest,
        "request_id": "req-4",
        "cause": "request",
    }


def test_the_newest_entry_comes_first(send, estate):
    response = send("GET", audit_path(estate.a), estate.owner)
    assert read_limits(response) == [6, None, 4, 3, 2, 1, 0]


def test_nothing_of_another_organization_ever_shows(send, estate):
    """Not to the site's owner either, who may read both: each is asked about by itself."""
    assert read_limits(send("GET", audit_path(estate.b), estate.owner)) == [101, 100]
    assert read_limits(send("GET", audit_path(estate.b), estate.b_admin)) == [101, 100]
    for person in (estate.owner, estate.org_admin, estate.user_admin):
        text = send("GET", audit_path(estate.a), person).get_data(as_text=True)
        assert str(estate.b1) not in text


def test_prices_tokens_and_roles_on_the_site_are_of_no_organization(send, estate):
    price = {"provider": "acme", "model": uuid4().hex, "input_price": 1, "output_price": None}
    price |= {"cache_read_price": None, "cache_write_price": None}
    send("PUT", "/ai/prices", estate.owner, json=[price])
    for organization in (estate.a, estate.b):
        text = send("GET", audit_path(organization), estate.owner).get_data(as_text=True)
        assert price["model"] not in text


def test_a_cascade_is_listed_with_null_for_all_that_nobody_decided(engine, send, world):
    put_limit(send, world.a1, world.owner, 9)
    with engine.begin() as connection:
        connection.execute(sa.delete(TABLES.groups).where(TABLES.groups.c.id == world.a1))
    newest = send("GET", audit_path(world.a), world.org_admin).json["entries"][0]
    assert (newest["cause"], newest["before"], newest["after"]) == ("cascade", limit(9), None)
    assert newest["object_id"] == str(world.a1)
    for key in ("actor", "roles", "lines", "policy_digest", "request_id"):
        assert newest[key] is None


# -- who may --


@pytest.mark.parametrize(
    ("person", "expected"),
    [
        ("owner", (200, None)),
        ("org_admin", (200, None)),
        ("user_admin", (200, None)),
        ("member", (403, "forbidden")),
        ("outsider", (404, "organization-not-found")),
        ("b_admin", (404, "organization-not-found")),
        ("nobody", (404, "organization-not-found")),
        ("stranger", (404, "organization-not-found")),
    ],
)
def test_whoever_may_update_groups_of_the_organization_reads_its_log(
    engine, send, estate, person, expected
):
    with count_statements(engine) as sent:
        response = send("GET", audit_path(estate.a), getattr(estate, person))
    assert outcome(response) == expected
    assert len(sent) == (2 if expected[0] == 200 else 1)
    assert not any(names_budget_table(statement) for statement in sent)
    assert "audit_log" not in sent[0]


def test_an_organization_that_is_not_there_gets_the_bytes_of_a_foreign_one(send, estate):
    foreign = send("GET", audit_path(estate.b), estate.org_admin)
    missing = send("GET", audit_path(uuid4()), estate.org_admin)
    assert foreign.get_data() == missing.get_data()
    assert outcome(foreign) == (404, "organization-not-found")


def write_policy(folder, *lines):
    """Copy the packaged policy with more lines; there is no reviewed matrix then."""
    folder.mkdir()
    shutil.copy(packaged_policy_dir() / "model.conf", folder)
    text = (packaged_policy_dir() / "policy.csv").read_text()
    (folder / "policy.csv").write_text(text + "".join(f"{line}\n" for line in lines))
    return folder


def join_and_leave(engine, world):
    """Enter membership changes of a1 and a2 and a role of organization a, as the command does."""
    from govbudget.server.audit import CommandChange, record_command

    changes = [
        CommandChange(world.a, "group_member", str(world.joined), None, {"group_id": str(g)})
        for g in (world.a1, world.a2)
    ]
    changes.append(
        CommandChange(world.a, "group_member", str(world.joined), {"group_id": str(world.a1)}, None)
    )
    held = {"role": "org-admin", "organization_id": str(world.a)}
    changes.append(CommandChange(world.a, "role_assignment", str(world.joined), None, held))
    # A user who happens to have the id of a group: no organization of uuids has one.
    changes.append(CommandChange(world.a, "role_assignment", str(world.a1), None, held))
    with engine.begin() as connection:
        record_command(connection, TABLES, changes)


def describe(response):
    """Say what each entry is about, briefly."""
    assert response.status_code == 200, response.json
    return sorted(
        (entry["object_type"], ((entry["after"] or entry["before"]).get("group_id")))
        if entry["object_type"] != "group_ai_budget"
        else (entry["object_type"], entry["object_id"])
        for entry in response.json["entries"]
    )


@pytest.fixture
def mixed(engine, send, world):
    """A world with entries of every kind in organization a."""
    put_limit(send, world.a1, world.owner, 1)
    put_limit(send, world.a2, world.owner, 2)
    join_and_leave(engine, world)
    return world


def test_a_role_that_may_update_certain_groups_sees_the_entries_of_those_alone(
    engine, mixed, tmp_path
):
    """Here every member of a group may; `member` is in a1. Entries about people are of no group."""
    folder = write_policy(tmp_path / "p", "p, group-member, group, group, update, allow")
    send = Client(make_app(engine, policy=folder))
    seen = describe(send("GET", audit_path(mixed.a), mixed.member))
    a1 = str(mixed.a1)
    assert seen == [("group_ai_budget", a1), ("group_member", a1), ("group_member", a1)]
    assert outcome(send("GET", audit_path(mixed.b), mixed.member))[0] == 404


def test_a_role_that_is_denied_certain_groups_sees_all_but_their_entries(engine, mixed, tmp_path):
    """Here members are denied what an org-admin may, in their own group."""
    folder = write_policy(tmp_path / "p", "p, group-member, group, group, update, deny")
    send = Client(make_app(engine, policy=folder))
    with engine.begin() as connection:
        mixed.join_group(connection, mixed.a, mixed.a2, "org_admin")
    seen = describe(send("GET", audit_path(mixed.a), mixed.org_admin))
    a1 = str(mixed.a1)
    assert [entry for entry in seen if entry[1]] == [
        ("group_ai_budget", a1), ("group_member", a1), ("group_member", a1),
    ]  # fmt: skip
    assert [entry[0] for entry in seen if not entry[1]] == ["role_assignment"] * 2


def test_an_id_of_a_user_is_never_taken_for_the_same_id_of_a_group(make_database, tmp_path):
    """Whole numbers meet easily: user 5, who got a role, is not group 5."""
    engine = sa.create_engine(make_database(), poolclass=sa.NullPool)
    layout = Layout(id_type=IdType.BIGINT, groups="none")
    with engine.begin() as connection:
        upgrade(connection, layout)
        row = {"organization_id": 1, "object_id": "5", "receipt": NOBODY}
        connection.execute(
            sa.insert(Tables(layout).audit_log),
            [
                {**row, "object_type": "role_assignment", "after": {"role": "org-admin"}},
                {**row, "object_type": "group_ai_budget", "after": limit(3)},
            ],
        )

    big, text = sa.BigInteger, sa.Text
    directory = SqlDirectory(
        groups=sa.values(sa.column("id", big), sa.column("organization_id", big), name="g")
        .data([(5, 1), (6, 1)]),
        group_members=sa.values(sa.column("group_id", big), sa.column("user_id", big), name="m")
        .data([(5, 8)]),
        organization_members=sa.values(
            sa.column("organization_id", big), sa.column("user_id", big), name="o"
        ).data([(1, 8)]),
        role_assignments=sa.values(
            sa.column("user_id", big),
            sa.column("role", text),
            sa.column("organization_id", big),
            name="r",
        ).data([(9, "org-admin", 1)]),
        member_role="keeper",
    )  # fmt: skip
    folder = write_policy(tmp_path / "p", "p, keeper, group, group, update, allow")
    app = make_app(
        engine,
        {"GOVBUDGET_ID_TYPE": "bigint", "GOVBUDGET_GROUPS": "none"},
        policy=folder,
        directory=directory,
    )
    send = Client(app)
    seen = send("GET", audit_path(1), 8).json["entries"]
    assert [entry["object_type"] for entry in seen] == ["group_ai_budget"]
    assert len(send("GET", audit_path(1), 9).json["entries"]) == 2


# -- pages --


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 500])
def test_pages_of_any_size_hold_every_entry_once_in_order(send, estate, size):
    whole = send("GET", audit_path(estate.a), estate.org_admin).json["entries"]
    assert walk(send, estate.a, estate.org_admin, size) == whole
    assert len(whole) == 7


def test_new_entries_do_not_move_the_pages_that_follow(send, world):
    for micros in range(6):
        put_limit(send, world.a1, world.owner, micros)
    whole = send("GET", audit_path(world.a), world.owner).json["entries"]
    entries = walk(
        send, world.a, world.owner, 2, between=lambda: put_limit(send, world.a2, world.owner, 50)
    )
    assert entries == whole


def test_the_link_to_the_next_page_is_the_page_of_the_token(send, estate):
    first = send("GET", audit_path(estate.a), estate.owner, query_string={"page_size": 2})
    target = re.fullmatch(r'<(/[^>]*)>; rel="next"', first.headers["Link"])[1]
    linked = send.client.get(target, headers={"X-User": str(estate.owner)})
    token = first.json["next_page_token"]
    query = {"page_size": 2, "page_token": token}
    assert linked.json == send("GET", audit_path(estate.a), estate.owner, query_string=query).json


def test_a_token_is_of_one_organization_and_one_kind_of_list(send, estate):
    def ask(path, token):
        return outcome(send("GET", path, estate.owner, query_string={"page_token": token}))

    def token_of(path):
        query = {"page_size": 1}
        return send("GET", path, estate.owner, query_string=query).json["next_page_token"]

    budgets = f"/organizations/{estate.a}/ai/budgets"
    of_budgets, of_audit = token_of(budgets), token_of(audit_path(estate.a))
    assert ask(audit_path(estate.a), of_audit) == (200, None)
    assert ask(audit_path(estate.b), of_audit) == (400, "invalid-query")
    assert ask(budgets, of_audit) == (400, "invalid-query")
    assert ask(audit_path(estate.a), of_budgets) == (400, "invalid-query")


@pytest.mark.parametrize(
    "query",
    ["page_size=0", "page_size=501", "page_size=x", "page_token=x", "page_token=", "before=1"],
)
def test_a_query_that_can_not_be_meant_is_refused(send, estate, query):
    response = send("GET", f"{audit_path(estate.a)}?{query}", estate.owner)
    assert outcome(response) == (400, "invalid-query")


def test_an_organization_without_entries_has_an_empty_log(send, world):
    response = send("GET", audit_path(world.a), world.org_admin)
    assert response.json == {"entries": [], "next_page_token": None}


def test_a_long_log_is_read_by_its_index(engine, estate):
    """A page costs the same however long the log is: the index has its order, nothing is sorted."""
    query = (
        sa.select(TABLES.audit_log.c.id)
        .where(TABLES.audit_log.c.organization_id == estate.a)
        .order_by(TABLES.audit_log.c.at.desc(), TABLES.audit_log.c.id.desc())
        .limit(5)
    )
    with engine.connect() as connection:
        for other in ("enable_seqscan", "enable_bitmapscan"):
            connection.exec_driver_sql(f"SET LOCAL {other} = off")
        compiled = query.compile(engine, compile_kwargs={"render_postcompile": True})
        plan = connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params).scalars().all()
    assert "audit_log_organization_id_at_id_idx" in "\n".join(plan)
    assert "Sort" not in "\n".join(plan)
