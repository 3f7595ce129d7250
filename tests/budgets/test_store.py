"""The budget store alone with the database: what it stores, on what conditions, and how quietly."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.budgets.support import (
    attempt,
    delete_budget,
    get_budget,
    list_budgets,
    read_row,
    set_budget,
    watch,
)
from tests.support import TABLES, authorize, count_statements, names_budget_table

from govbudget import GroupChanged, NotFound, PreconditionFailed
from govbudget.budgets.budget import UNCONDITIONAL, Condition
from govbudget.budgets.store import Budgets

MAX = 10**12


@pytest.fixture
def connection(engine, world):
    """Give a transaction on the shared database; it is rolled back."""
    with engine.connect() as connection:
        yield connection


def test_a_group_without_a_row_has_no_budget(connection, world):
    with pytest.raises(NotFound) as caught:
        get_budget(connection, world.owner, world.a1)
    assert caught.value.code == "budget-not-set"


def test_what_was_set_is_got_and_listed_and_given_back_when_deleted(connection, world):
    budget = set_budget(connection, world.org_admin, world.a1, 7)
    assert (budget.group_id, budget.spend_limit_micros) == (world.a1, 7)
    assert get_budget(connection, world.member, world.a1) == budget
    assert list_budgets(connection, world.member, world.a) == [budget]
    assert delete_budget(connection, world.user_admin, world.a1) == budget
    assert read_row(connection, world.a1) is None
    with pytest.raises(NotFound) as caught:
        delete_budget(connection, world.user_admin, world.a1)
    assert caught.value.code == "budget-not-set"


def test_a_budget_of_one_group_is_none_of_another(connection, world):
    budget = set_budget(connection, world.owner, world.a1, 7)
    other = set_budget(connection, world.owner, world.b1, 8)
    delete_budget(connection, world.owner, world.b1)
    assert get_budget(connection, world.owner, world.a1) == budget
    assert read_row(connection, other.group_id) is None


def test_created_at_stays_and_updated_at_always_moves(connection, world):
    """Within one transaction too, and where the limit is the same as before."""
    budgets = [set_budget(connection, world.owner, world.a1, limit) for limit in (5, 6, 6, 6)]
    assert len({budget.created_at for budget in budgets}) == 1
    times = [budget.updated_at for budget in budgets]
    assert times == sorted(set(times))
    assert budgets[0].created_at <= budgets[0].updated_at


def test_updated_at_moves_where_the_clock_went_back(connection, world):
    set_budget(connection, world.owner, world.a1, 5)
    table = TABLES.group_ai_budgets
    later = sa.func.now() + timedelta(days=1)
    connection.execute(
        sa.update(table).where(table.c.group_id == world.a1).values(updated_at=later)
    )
    before = get_budget(connection, world.owner, world.a1)
    after = set_budget(connection, world.owner, world.a1, 5)
    assert after.updated_at > before.updated_at


def test_the_revision_is_new_with_every_change(connection, world):
    """The same limit again, and a delete and re-create, give another ETag each."""
    seen = []
    for _ in range(3):
        seen += [set_budget(connection, world.owner, world.a1, limit) for limit in (5, 5)]
        assert delete_budget(connection, world.owner, world.a1).etag == seen[-1].etag
    assert len({budget.etag for budget in seen}) == len({b.revision for b in seen}) == 6


def test_reading_changes_nothing(connection, world):
    set_budget(connection, world.owner, world.a1, 5)
    row = read_row(connection, world.a1)
    get_budget(connection, world.owner, world.a1)
    list_budgets(connection, world.owner, world.a)
    assert read_row(connection, world.a1) == row


@pytest.mark.parametrize("limit", [0, 1, MAX - 1, MAX])
def test_limits_from_nothing_to_a_million_dollars_are_stored(connection, world, limit):
    assert set_budget(connection, world.owner, world.a1, limit).spend_limit_micros == limit
    assert get_budget(connection, world.owner, world.a1).spend_limit_micros == limit


@pytest.mark.parametrize(
    "limit", [-1, MAX + 1, 2**63, -(10**30), True, False, 5.0, float("nan"), "5", b"5", None]
)
def test_any_other_limit_is_refused_without_a_statement(connection, engine, world, limit):
    grant = authorize(connection, world.owner, "update", group=world.a1)
    with count_statements(engine) as sent, pytest.raises(ValueError, match="limit_micros"):
        Budgets.set(grant, limit)
    assert sent == []


CONDITIONS = [
    pytest.param(UNCONDITIONAL, id="unconditional"),
    pytest.param(Condition(must_exist=True), id="must exist"),
    pytest.param(Condition(must_be=(uuid4(),)), id="must be"),
    pytest.param(Condition(must_not_exist=True), id="must not exist"),
    pytest.param(Condition(must_not_be=(uuid4(),)), id="must not be"),
]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("existing", [False, True])
def test_a_change_is_one_statement(connection, engine, world, condition, existing):
    """Whatever the condition and the outcome; and it names the groups and the budgets."""
    if existing:
        set_budget(connection, world.owner, world.a1, 1)
    grant = authorize(connection, world.owner, "update", group=world.a1)
    for change in (
        lambda: Budgets.set(grant, 5, condition),
        lambda: Budgets.delete(grant, condition),
    ):
        with count_statements(engine) as sent:
            attempt(change)
        assert len(sent) == 1
        assert names_budget_table(sent[0])
        assert "govbudget.groups" in sent[0]


def test_a_read_is_one_statement(connection, engine, world):
    grant = authorize(connection, world.owner, "read", group=world.a1)
    with count_statements(engine) as sent:
        attempt(Budgets.get, grant)
    assert len(sent) == 1
    grant = authorize(connection, world.owner, "read", organization=world.a)
    for after in (None, world.a1):
        with count_statements(engine) as sent:
            Budgets.list(grant, limit=3, after=after)
        assert len(sent) == 1
        assert "govbudget.groups" in sent[0]


def conditions(current, other):
    """Every combination of what a condition can demand, beside the stored and another revision."""
    for exists, be, absent, not_be in product(
        (False, True),
        (None, (), (current,), (other,), (other, current)),
        (False, True),
        ((), (current,), (other,), (other, current)),
    ):
        yield Condition(must_exist=exists, must_be=be, must_not_exist=absent, must_not_be=not_be)


def holds(condition, stored):
    """Say by the book whether a condition holds; `stored` is the revision in the row, or None."""
    if stored is None:
        return not condition.must_exist and condition.must_be is None
    return (
        not condition.must_not_exist
        and (condition.must_be is None or stored in condition.must_be)
        and stored not in condition.must_not_be
    )


@pytest.mark.slow
@pytest.mark.parametrize("existing", [False, True])
def test_a_change_is_made_exactly_where_its_condition_holds(connection, world, existing):
    """Every combination of demands; where it does not hold, the row is as it was."""
    current = set_budget(connection, world.owner, world.a1, 1).revision
    if not existing:
        delete_budget(connection, world.owner, world.a1)
    before = read_row(connection, world.a1)
    grant = authorize(connection, world.owner, "update", group=world.a1)
    outcomes = set()
    for condition in conditions(current, uuid4()):
        expected = holds(condition, current if existing else None)
        savepoint = connection.begin_nested()
        result = attempt(Budgets.set, grant, 2, condition)
        if expected:
            assert result.spend_limit_micros == 2, condition
            assert get_budget(connection, world.owner, world.a1) == result, condition
            assert result.revision != current
        else:
            assert type(result) is PreconditionFailed, condition
            assert read_row(connection, world.a1) == before, condition
        savepoint.rollback()
        savepoint = connection.begin_nested()
        result = attempt(Budgets.delete, grant, condition)
        if not existing:
            assert (type(result), result.code) == (NotFound, "budget-not-set"), condition
        elif expected:
            assert result.revision == current, condition
            assert read_row(connection, world.a1) is None, condition
        else:
            assert type(result) is PreconditionFailed, condition
            assert read_row(connection, world.a1) == before, condition
        savepoint.rollback()
        outcomes.add(expected)
    assert outcomes == {False, True}


def test_the_transaction_is_the_callers(connection, engine, world):
    """Nothing commits, rolls back, sets a savepoint, closes or SETs, whatever the outcome."""
    move = (
        sa.update(TABLES.groups)
        .where(TABLES.groups.c.id == world.a2)
        .values(organization_id=world.b)
    )
    write = authorize(connection, world.owner, "update", group=world.a1)
    read = authorize(connection, world.owner, "read", group=world.a1)
    moved = authorize(connection, world.owner, "update", group=world.a2)
    listing = authorize(connection, world.owner, "read", organization=world.a)
    connection.execute(move)
    unit = connection.get_transaction()
    with watch(engine) as seen:
        results = [
            attempt(Budgets.get, read),
            attempt(Budgets.delete, write),
            attempt(Budgets.set, write, 1),
            attempt(Budgets.set, write, 1, Condition(must_not_exist=True)),
            attempt(Budgets.set, moved, 1),
            attempt(Budgets.get, read),
            attempt(Budgets.list, listing, limit=9),
            attempt(Budgets.set, write, "1"),
            attempt(Budgets.delete, write, Condition(must_not_exist=True)),
            attempt(Budgets.delete, write),
        ]
    assert seen == []
    assert connection.get_transaction() is unit
    assert unit.is_active
    assert [type(result).__name__ for result in results] == [
        *("NotFound", "NotFound", "Budget", "PreconditionFailed", "GroupChanged"),
        *("Budget", "list", "ValueError", "PreconditionFailed", "Budget"),
    ]


def test_a_change_goes_with_the_callers_savepoint_and_transaction(connection, engine, world):
    set_budget(connection, world.owner, world.a1, 1)
    savepoint = connection.begin_nested()
    set_budget(connection, world.owner, world.a1, 2)
    set_budget(connection, world.owner, world.a2, 2)
    savepoint.rollback()
    assert get_budget(connection, world.owner, world.a1).spend_limit_micros == 1
    assert read_row(connection, world.a2) is None
    with engine.connect() as other:
        assert read_row(other, world.a1) is None
    connection.rollback()
    assert read_row(connection, world.a1) is None
    set_budget(connection, world.owner, world.a1, 3)
    connection.commit()
    savepoint = connection.begin_nested()
    delete_budget(connection, world.owner, world.a1)
    savepoint.rollback()
    assert get_budget(connection, world.owner, world.a1).spend_limit_micros == 3


def test_a_grant_works_inside_the_callers_savepoint(connection, world):
    """A savepoint is part of the unit of work that the standing was loaded in."""
    grant = authorize(connection, world.owner, "update", group=world.a1)
    with connection.begin_nested():
        Budgets.set(grant, 4)
    assert read_row(connection, world.a1).spend_limit_micros == 4


def test_a_group_that_is_gone_is_changed_for_a_write_and_not_found_for_a_read(connection, world):
    write = authorize(connection, world.owner, "update", group=world.a2)
    read = authorize(connection, world.owner, "read", group=world.a2)
    connection.execute(sa.delete(TABLES.groups).where(TABLES.groups.c.id == world.a2))
    for change in (
        lambda: Budgets.set(write, 1),
        lambda: Budgets.delete(write),
    ):
        assert type(attempt(change)) is GroupChanged
    missing = attempt(Budgets.get, read)
    assert (type(missing), missing.code) == (NotFound, "group-not-found")
