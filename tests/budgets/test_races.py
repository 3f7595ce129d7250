"""Budgets under threads: of several writers with one revision one wins, and a group may go."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from tests.budgets.support import (
    attempt,
    delete_budget,
    get_budget,
    list_budgets,
    read_row,
    run_together,
    running,
    set_budget,
)
from tests.support import TABLES, authorize

from govbudget import Budget, GroupChanged, NotFound, PreconditionFailed
from govbudget.budgets.budget import UNCONDITIONAL, Condition
from govbudget.budgets.store import Budgets

WRITERS = 8
ROUNDS = 3
CREATE = Condition(must_not_exist=True)


def writer(world, limit, condition):
    """Authorize, wait for the others, set."""

    def work(connection):
        grant = authorize(connection, world.owner, "update", group=world.a1)
        yield
        return Budgets.set(grant, limit, condition)

    return work


def deleter(world, condition):
    def work(connection):
        grant = authorize(connection, world.owner, "update", group=world.a1)
        yield
        return Budgets.delete(grant, condition)

    return work


def stored(engine, group):
    with engine.connect() as connection:
        return read_row(connection, group)


def kinds(results):
    return sorted(type(result).__name__ for result in results)


ONE_WINS = ["Budget", *["PreconditionFailed"] * (WRITERS - 1)]


def test_of_eight_writers_with_one_revision_one_wins(engine, world):
    """The others are told so, and the row is the winner's."""
    with engine.begin() as connection:
        revision = set_budget(connection, world.owner, world.a1, 1).revision
    for _ in range(ROUNDS):
        condition = Condition(must_be=(revision,))
        results = run_together(engine, [writer(world, n, condition) for n in range(WRITERS)])
        assert kinds(results) == ONE_WINS
        winner = next(result for result in results if type(result) is Budget)
        row = stored(engine, world.a1)
        assert (row.spend_limit_micros, row.revision) == (
            winner.spend_limit_micros,
            winner.revision,
        )
        revision = winner.revision


def test_of_eight_creators_one_wins(engine, world):
    for _ in range(ROUNDS):
        results = run_together(engine, [writer(world, n, CREATE) for n in range(WRITERS)])
        assert kinds(results) == ONE_WINS
        winner = next(result for result in results if type(result) is Budget)
        assert stored(engine, world.a1).revision == winner.revision
        with engine.begin() as connection:
            delete_budget(connection, world.owner, world.a1)


def test_eight_writers_without_a_condition_all_write_and_one_is_the_last(engine, world):
    results = run_together(engine, [writer(world, n, UNCONDITIONAL) for n in range(WRITERS)])
    assert kinds(results) == ["Budget"] * WRITERS
    assert len({budget.revision for budget in results}) == WRITERS
    assert len({budget.created_at for budget in results}) == 1
    last = max(results, key=lambda budget: budget.updated_at)
    assert stored(engine, world.a1).revision == last.revision


def test_of_a_delete_and_a_conditional_put_one_wins(engine, world):
    """Eight of them, half and half, with the same revision."""
    for _ in range(ROUNDS):
        with engine.begin() as connection:
            condition = Condition(
                must_be=(set_budget(connection, world.owner, world.a1, 1).revision,)
            )
        works = [writer(world, 2, condition), deleter(world, condition)] * (WRITERS // 2)
        results = run_together(engine, works)
        winners = [index for index, result in enumerate(results) if type(result) is Budget]
        assert len(winners) == 1
        row = stored(engine, world.a1)
        assert (row is None) == (works[winners[0]] is works[1])
        losers = {type(result) for result in results if type(result) is not Budget}
        # A delete that came after the row was gone says that there is none.
        assert losers <= {PreconditionFailed, NotFound}


@pytest.mark.parametrize("first_commits", [True, False])
@pytest.mark.parametrize("first", ["set", "delete"])
def test_a_conditional_put_waits_for_an_open_change_and_then_knows(
    engine, world, first, first_commits
):
    """It wins where the other was rolled back, and fails where it was committed."""
    with engine.begin() as connection:
        before = set_budget(connection, world.owner, world.a1, 1)
    condition = Condition(must_be=(before.revision,))
    with engine.connect() as other:
        if first == "set":
            set_budget(other, world.owner, world.a1, 2)
        else:
            delete_budget(other, world.owner, world.a1)
        with running(
            engine, lambda connection: set_budget(connection, world.owner, world.a1, 3, condition)
        ) as future:
            assert not future.done()
            if first_commits:
                other.commit()
            else:
                other.rollback()
            result = future.result()
    row = stored(engine, world.a1)
    if first_commits:
        assert type(result) is PreconditionFailed
        assert (row and row.spend_limit_micros) == (2 if first == "set" else None)
    else:
        assert row.revision == result.revision
        assert row.created_at == before.created_at


@pytest.mark.parametrize("first_commits", [True, False])
def test_a_creator_waits_for_an_open_creation_and_then_knows(engine, world, first_commits):
    with engine.connect() as other:
        set_budget(other, world.owner, world.a1, 2, CREATE)
        with running(
            engine, lambda connection: set_budget(connection, world.owner, world.a1, 3, CREATE)
        ) as future:
            assert not future.done()
            if first_commits:
                other.commit()
            else:
                other.rollback()
            result = future.result()
    assert type(result) is (PreconditionFailed if first_commits else Budget)
    assert stored(engine, world.a1).spend_limit_micros == (2 if first_commits else 3)


def test_an_unconditional_put_after_an_open_delete_creates_anew(engine, world):
    with engine.begin() as connection:
        before = set_budget(connection, world.owner, world.a1, 1)
    with engine.connect() as other:
        delete_budget(other, world.owner, world.a1)
        with running(
            engine, lambda connection: set_budget(connection, world.owner, world.a1, 3)
        ) as future:
            other.commit()
            after = future.result()
    assert after.created_at > before.created_at
    assert stored(engine, world.a1).revision == after.revision


# -- the group moves or goes between the decision and the store's statement --


def move_group(connection, world):
    groups = TABLES.groups
    connection.execute(
        sa.update(groups).where(groups.c.id == world.a2).values(organization_id=world.b)
    )


def delete_group(connection, world):
    connection.execute(sa.delete(TABLES.groups).where(TABLES.groups.c.id == world.a2))


def mark_organization_deleted(connection, world):
    organizations = TABLES.organizations
    connection.execute(
        sa.update(organizations).where(organizations.c.id == world.a).values(deleted=True)
    )


LEAVE = pytest.mark.parametrize("leave", [move_group, delete_group, mark_organization_deleted])


@LEAVE
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    "condition", [UNCONDITIONAL, Condition(must_exist=True), CREATE], ids=["any", "must", "new"]
)
def test_a_group_that_left_meanwhile_is_not_written(engine, world, leave, existing, condition):
    """A commit between the decision and the statement: GroupChanged, and nothing was written."""
    with engine.begin() as connection:
        if existing:
            set_budget(connection, world.owner, world.a2, 1)
    with engine.connect() as connection, engine.begin() as other:
        grant = authorize(connection, world.owner, "update", group=world.a2)
        leave(other, world)
        other.commit()
        before = read_row(connection, world.a2)
        for change in (
            lambda: Budgets.set(grant, 2, condition),
            lambda: Budgets.delete(grant, condition),
        ):
            assert type(attempt(change)) is GroupChanged
        assert read_row(connection, world.a2) == before
        connection.commit()
    assert stored(engine, world.a2) == before
    assert (before is not None) == (existing and leave is not delete_group)


@LEAVE
@pytest.mark.parametrize("existing", [False, True])
def test_a_group_that_left_meanwhile_is_not_read(engine, world, leave, existing):
    """Not its budget, and not whether it had one: `group-not-found` either way."""
    with engine.begin() as connection:
        if existing:
            set_budget(connection, world.owner, world.a2, 1)
    with engine.connect() as connection, engine.begin() as other:
        grant = authorize(connection, world.owner, "read", group=world.a2)
        listing = authorize(connection, world.owner, "read", organization=world.a)
        leave(other, world)
        other.commit()
        missing = attempt(Budgets.get, grant)
        assert (type(missing), missing.code) == (NotFound, "group-not-found")
        assert Budgets.list(listing, limit=9) == []


def test_a_group_that_a_member_was_listed_for_is_not_listed_once_it_moved(engine, world):
    """The list holds on to the organization, not only to the ids that were decided about."""
    with engine.begin() as connection:
        set_budget(connection, world.owner, world.b1, 1)
    with engine.connect() as connection, engine.begin() as other:
        grant = authorize(connection, world.outsider, "read", organization=world.b)
        assert len(Budgets.list(grant, limit=9)) == 1
        members = TABLES.group_members
        other.execute(sa.delete(members).where(members.c.group_id == world.b1))
        other.execute(
            sa.update(TABLES.groups)
            .where(TABLES.groups.c.id == world.b1)
            .values(organization_id=world.a)
        )
        other.commit()
        assert Budgets.list(grant, limit=9) == []
    with engine.connect() as connection:
        assert len(list_budgets(connection, world.org_admin, world.a)) == 1


@pytest.mark.parametrize("existing", [False, True])
def test_a_move_that_is_not_yet_committed_counts_as_later(engine, world, existing):
    """Reads and writes go on as if it had not begun, and none is lost when it is committed."""
    if existing:
        with engine.begin() as connection:
            set_budget(connection, world.owner, world.a2, 1)
    with engine.connect() as other:
        move_group(other, world)
        with engine.connect() as connection:
            got = attempt(get_budget, connection, world.owner, world.a2)
            assert type(got) is (Budget if existing else NotFound)
        with running(
            engine, lambda connection: set_budget(connection, world.owner, world.a2, 5)
        ) as future:
            other.commit()
            budget = future.result()
    assert type(budget) is Budget
    assert stored(engine, world.a2).revision == budget.revision
    with engine.connect() as connection:
        assert list_budgets(connection, world.b_admin, world.b) == [budget]


@pytest.mark.parametrize("condition", [UNCONDITIONAL, CREATE], ids=["any", "new"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_group_that_is_deleted_while_its_budget_is_written_has_changed(
    engine, world, existing, condition
):
    """The write waits for the delete; the foreign key then refuses it."""
    if existing:
        with engine.begin() as connection:
            set_budget(connection, world.owner, world.a2, 1)
    with engine.connect() as other:
        delete_group(other, world)
        with running(
            engine, lambda connection: set_budget(connection, world.owner, world.a2, 5, condition)
        ) as future:
            assert not future.done()
            other.commit()
            result = future.result()
    assert type(result) is GroupChanged
    assert stored(engine, world.a2) is None


def test_a_group_whose_deletion_is_rolled_back_is_written(engine, world):
    with engine.connect() as other:
        delete_group(other, world)
        with running(
            engine, lambda connection: set_budget(connection, world.owner, world.a2, 5)
        ) as future:
            assert not future.done()
            other.rollback()
            result = future.result()
    assert stored(engine, world.a2).revision == result.revision


def test_the_caller_of_a_write_that_lost_its_group_can_go_on_from_a_savepoint(engine, world):
    """The foreign key fails the caller's statement; rolling back stays the caller's."""

    def work(connection):
        set_budget(connection, world.owner, world.a1, 7)
        savepoint = connection.begin_nested()
        result = attempt(set_budget, connection, world.owner, world.a2, 5)
        assert savepoint.is_active
        savepoint.rollback()
        return result

    with engine.connect() as other:
        delete_group(other, world)
        with running(engine, work) as future:
            other.commit()
            assert type(future.result()) is GroupChanged
    assert stored(engine, world.a1).spend_limit_micros == 7
