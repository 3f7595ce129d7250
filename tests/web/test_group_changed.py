"""A group that moves or goes between the decision and the budget's own statement."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from tests.support import (
    TABLES,
    Client,
    budget_path,
    find_directory,
    list_path,
    make_app,
    wait_for_waiters,
)
from tests.web.helpers import MeddlingDirectory, outcome, put_limit, read_row

CHANGED = (409, "group-changed")
GONE = (404, "group-not-found")


@pytest.fixture(scope="module")
def meddled(engine, policy):
    """Sends requests between whose look-up and statement `change` is committed."""
    changes = []

    def meddle(group):
        with engine.begin() as connection:
            changes[-1](connection, group)

    directory = MeddlingDirectory(find_directory(TABLES.layout), meddle)
    send = Client(make_app(engine, policy=policy, directory=directory))

    def client(change):
        changes.append(change)
        return send

    return client


def move_to(world, organization):
    groups = world.tables.groups
    return lambda connection, group: connection.execute(
        sa.update(groups).where(groups.c.id == group).values(organization_id=organization)
    )


def drop(world):
    groups = world.tables.groups
    return lambda connection, group: connection.execute(groups.delete().where(groups.c.id == group))


def mark_deleted(world):
    organizations = world.tables.organizations
    return lambda connection, _: connection.execute(
        sa.update(organizations).where(organizations.c.id == world.a).values(deleted=True)
    )


@pytest.mark.parametrize("person", ["owner", "org_admin"])
@pytest.mark.parametrize("had_budget", [False, True])
def test_a_group_that_moved_is_409_for_writes_and_404_for_reads(  # noqa: PLR0917 - a case
    engine, send, world, meddled, person, had_budget
):
    """Even the owner, who may write on both sides, is told: the decision was about the one."""
    who = getattr(world, person)
    before = 11 if had_budget else None
    if had_budget:
        put_limit(send, world.a2, who, before)
    moving = meddled(move_to(world, world.b))
    home = move_to(world, world.a)
    for method, expected in (("PUT", CHANGED), ("DELETE", CHANGED), ("GET", GONE)):
        options = {"json": {"spend_limit_micros": 99}} if method == "PUT" else {}
        assert outcome(moving(method, budget_path(world.a2), who, **options)) == expected
        assert read_row(engine, world.a2) == before
        with engine.begin() as connection:
            home(connection, world.a2)


@pytest.mark.parametrize(
    "headers", [{"If-Match": "*"}, {"If-Match": '"x"'}, {"If-None-Match": "*"}]
)
def test_a_group_that_moved_is_409_under_every_condition(engine, send, world, meddled, headers):
    """The tag of a budget that is now another organization's is not compared, so not told."""
    put_limit(send, world.a2, world.owner, 11)
    moving = meddled(move_to(world, world.b))
    assert outcome(put_limit(moving, world.a2, world.owner, 12, headers=headers)) == CHANGED
    assert read_row(engine, world.a2) == 11


@pytest.mark.parametrize("how", [drop, mark_deleted])
def test_a_group_or_organization_that_went_is_409_for_writes_and_404_for_reads(
    engine, world, meddled, how
):
    losing = meddled(how(world))
    assert outcome(put_limit(losing, world.a2, world.owner)) == CHANGED
    for group in (world.a1, world.a2):
        assert read_row(engine, group) is None


def test_a_read_of_a_group_that_went_is_404_with_the_bytes_of_any_unknown_group(
    engine, send, world, meddled
):
    known = send("GET", budget_path(world.b1), world.nobody)
    put_limit(send, world.a2, world.owner)
    gone = meddled(drop(world))("GET", budget_path(world.a2), world.owner)
    assert outcome(gone) == GONE
    assert gone.data == known.data


def test_a_group_that_is_deleted_while_its_first_budget_is_written_is_409(engine, send, world):
    """The delete is not yet committed when the PUT begins; the PUT waits for it, then says so."""
    groups = world.tables.groups
    answers = []
    with engine.connect() as connection:
        connection.execute(groups.delete().where(groups.c.id == world.a2))
        writer = threading.Thread(
            target=lambda: answers.append(put_limit(send, world.a2, world.owner))
        )
        writer.start()
        wait_for_waiters(engine)
        connection.commit()
        writer.join(10)
    assert outcome(answers[0]) == CHANGED
    assert read_row(engine, world.a2) is None


def test_a_move_that_is_not_yet_committed_counts_as_later(engine, send, world):
    put_limit(send, world.a2, world.owner, 1)
    with engine.connect() as connection:
        move_to(world, world.b)(connection, world.a2)
        assert put_limit(send, world.a2, world.org_admin, 2).status_code == 200
        assert send("GET", budget_path(world.a2), world.org_admin).status_code == 200
        connection.commit()
    assert read_row(engine, world.a2) == 2
    assert outcome(put_limit(send, world.a2, world.org_admin, 3)) == GONE


def test_a_deleted_organization_is_not_found_and_its_groups_neither(engine, send, world):
    put_limit(send, world.a1, world.owner)
    with engine.begin() as connection:
        mark_deleted(world)(connection, None)
    for person in (world.owner, world.org_admin, world.member):
        assert outcome(send("GET", budget_path(world.a1), person)) == GONE
        listed = send("GET", list_path(world.a), person)
        assert outcome(listed) == (404, "organization-not-found")
