"""Each change of a budget leaves exactly one entry; nothing else leaves one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from tests.audit.support import limit, read_entries, read_story
from tests.budgets.support import attempt, set_budget
from tests.support import TABLES, authorize, budget_path, make_gov
from tests.web.helpers import put_limit, read_problem

from govbudget.budgets.budget import Condition
from govbudget.budgets.store import Budgets
from govbudget.errors import PreconditionFailed


def test_a_change_leaves_who_roles_what_object_before_after_lines_digest_request_and_when(
    engine, send, town, group, policy
):
    put_limit(send, group, town.owner, 5)
    response = put_limit(send, group, town.org_admin, 7, headers={"X-Request-Id": "deploy/2024:7"})
    assert response.status_code == 200
    entry = read_entries(engine, group)[1]._mapping
    assert UUID(str(entry["id"]))
    assert abs(entry["at"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert entry["organization_id"] == town.a
    assert (entry["object_type"], entry["object_id"]) == ("group_ai_budget", str(group))
    assert (entry["before"], entry["after"]) == (limit(5), limit(7))
    receipt = dict(entry["receipt"])
    assert UUID(receipt.pop("id"))
    assert receipt == {
        "organization_id": str(town.a),
        "actor": str(town.org_admin),
        "roles": ["org-admin"],
        "lines": list(policy.decide({"org-admin"}, "group", "update").lines),
        "policy_digest": policy.digest,
        "request_id": "deploy/2024:7",
        "cause": "request",
    }


def test_the_first_budget_has_no_before_and_that_is_null_in_the_database(engine, send, town, group):
    put_limit(send, group, town.owner, 0)
    log = TABLES.audit_log
    query = sa.select(log.c.before.is_(None), log.c.after).where(log.c.object_id == str(group))
    with engine.connect() as connection:
        assert connection.execute(query).all() == [(True, limit(0))]


def test_set_change_delete_and_set_again_are_four_entries_in_a_chain(engine, send, town, group):
    put_limit(send, group, town.owner, 1)
    put_limit(send, group, town.owner, 0)
    assert send("DELETE", budget_path(group), town.user_admin).status_code == 204
    put_limit(send, group, town.owner, 3)
    assert read_story(engine, group) == [
        (None, 1, "request"),
        (1, 0, "request"),
        (0, None, "request"),
        (None, 3, "request"),
    ]
    deleted = read_entries(engine, group)[2]
    assert deleted.receipt["actor"] == str(town.user_admin)
    assert deleted.receipt["roles"] == ["user-admin"]
    assert deleted.organization_id == town.a


def test_the_same_limit_again_is_a_change_and_leaves_an_entry(engine, send, town, group):
    """It moves `updated_at` and the entity tag, so others can see that somebody did it."""
    put_limit(send, group, town.owner, 4)
    put_limit(send, group, town.org_admin, 4)
    assert read_story(engine, group) == [(None, 4, "request"), (4, 4, "request")]


@pytest.mark.parametrize(
    ("method", "headers", "there", "status"),
    [
        ("PUT", {"If-Match": '"0123456789abcdef0123456789abcdef"'}, True, 412),
        ("PUT", {"If-Match": "*"}, False, 412),
        ("PUT", {"If-None-Match": "*"}, True, 412),
        ("DELETE", {"If-Match": '"0123456789abcdef0123456789abcdef"'}, True, 412),
        ("DELETE", {"If-Match": "*"}, False, 404),
        ("DELETE", {}, False, 404),
    ],
)
def test_a_condition_that_fails_leaves_no_entry(  # noqa: PLR0917 - a case
    engine, send, town, group, method, headers, there, status
):
    if there:
        put_limit(send, group, town.owner, 5)
    before = read_story(engine, group)
    body = {"json": {"spend_limit_micros": 6}} if method == "PUT" else {}
    response = send(method, budget_path(group), town.owner, headers=headers, **body)
    assert response.status_code == status
    assert read_story(engine, group) == before


def test_a_condition_that_holds_leaves_one_entry(engine, send, town, group):
    created = put_limit(send, group, town.owner, 1, headers={"If-None-Match": "*"})
    tag = {"If-Match": created.headers["ETag"]}
    changed = put_limit(send, group, town.owner, 2, headers=tag)
    tag = {"If-Match": changed.headers["ETag"]}
    assert send("DELETE", budget_path(group), town.owner, headers=tag).status_code == 204
    assert [(b, a) for b, a, _ in read_story(engine, group)] == [(None, 1), (1, 2), (2, None)]


@pytest.mark.parametrize("person", ["member", "outsider", "b_admin", "joined", "nobody"])
def test_a_refused_change_leaves_no_entry(engine, send, world, person):
    for method in ("PUT", "DELETE"):
        body = {"json": {"spend_limit_micros": 6}} if method == "PUT" else {}
        read_problem(send(method, budget_path(world.a1), getattr(world, person), **body))
    assert read_entries(engine, world.a1) == []


def test_an_invalid_body_leaves_no_entry(engine, send, town, group):
    assert put_limit(send, group, town.owner, -1).status_code == 400
    assert read_entries(engine, group) == []


# -- in the host's transaction --


def test_the_entry_is_rolled_back_with_the_hosts_transaction(engine, town, group):
    with engine.connect() as connection:
        grant = authorize(connection, town.owner, "update", group=group)
        Budgets.set(grant, 5)
        Budgets.set(grant, 6)
        Budgets.delete(grant)
        connection.rollback()
    assert read_entries(engine, group) == []


def test_the_entry_is_rolled_back_with_a_savepoint(engine, town, group):
    with engine.begin() as connection:
        grant = authorize(connection, town.owner, "update", group=group)
        Budgets.set(grant, 5)
        savepoint = connection.begin_nested()
        Budgets.set(grant, 6)
        savepoint.rollback()
        Budgets.set(grant, 7)
    assert read_story(engine, group) == [(None, 5, "call"), (5, 7, "call")]


def test_a_call_of_the_library_says_so_and_may_name_a_request(engine, town, group):
    with engine.begin() as connection:
        set_budget(connection, town.owner, group, 1)
        gov, request_id = make_gov(), "of the host"
        with gov.unit(town.owner, connection=connection, request_id=request_id) as unit:
            grant = unit.authorize("update", group=group)
            Budgets.set(grant, 2)
            Budgets.delete(grant)
    assert [
        (entry.receipt["actor"], entry.receipt["cause"], entry.receipt["request_id"])
        for entry in read_entries(engine, group)
    ] == [
        (str(town.owner), "call", None),
        (str(town.owner), "request", "of the host"),
        (str(town.owner), "request", "of the host"),
    ]


def test_many_changes_under_one_grant_are_told_apart(engine, town, group):
    """Each has a receipt of its own: none is taken for a change behind govbudget's back."""
    with engine.begin() as connection:
        grant = authorize(connection, town.owner, "update", group=group)
        for micros in range(5):
            Budgets.set(grant, micros)
    entries = read_entries(engine, group)
    assert [entry.receipt["cause"] for entry in entries] == ["call"] * 5
    assert len({entry.receipt["id"] for entry in entries}) == 5


def test_a_condition_that_fails_in_the_hosts_transaction_leaves_what_came_before(
    engine, town, group
):
    with engine.begin() as connection:
        grant = authorize(connection, town.owner, "update", group=group)
        Budgets.set(grant, 5)
        stale = Condition(must_be=(uuid4(),))
        error = attempt(Budgets.delete, grant, stale)
        assert isinstance(error, PreconditionFailed)
    assert read_story(engine, group) == [(None, 5, "call")]


# -- a budget that goes with its group --


def test_a_budget_that_goes_with_its_group_leaves_an_entry_without_actor(engine, send, town, group):
    put_limit(send, group, town.owner, 5)
    with engine.begin() as connection:
        connection.execute(sa.delete(TABLES.groups).where(TABLES.groups.c.id == group))
    gone = read_entries(engine, group)[1]
    assert (gone.before, gone.after, gone.organization_id) == (limit(5), None, town.a)
    assert gone.receipt == {"actor": None, "cause": "cascade", "organization_id": str(town.a)}


def test_an_organization_that_goes_takes_its_budgets_along_with_an_entry_each(engine, send, world):
    for group in (world.a1, world.a2):
        put_limit(send, group, world.owner, 8)
    with engine.begin() as connection:
        gone = TABLES.organizations.c.id == world.a
        connection.execute(sa.delete(TABLES.organizations).where(gone))
    for group in (world.a1, world.a2):
        assert read_story(engine, group) == [(None, 8, "request"), (8, None, "cascade")]


def test_a_group_without_a_budget_goes_without_an_entry(engine, town, group):
    with engine.begin() as connection:
        connection.execute(sa.delete(TABLES.groups).where(TABLES.groups.c.id == group))
    assert read_entries(engine, group) == []


def test_a_budget_deleted_and_then_its_group_in_one_transaction_leaves_one_entry_for_it(
    engine, town, group
):
    with engine.begin() as connection:
        grant = authorize(connection, town.owner, "update", group=group)
        Budgets.set(grant, 5)
        Budgets.delete(grant)
        connection.execute(sa.delete(TABLES.groups).where(TABLES.groups.c.id == group))
    assert read_story(engine, group) == [(None, 5, "call"), (5, None, "call")]
