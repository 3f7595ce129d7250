"""No store function runs SQL on a grant that does not cover the very row it is about to touch."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
from tests.budgets.support import (
    DIRECTORY,
    STORE,
    authorize,
    authorize_list,
    packaged_policy,
)
from tests.support import TABLES, count_statements

from govbudget import (
    Action,
    Grant,
    GrantRefused,
    Group,
    ListGrant,
    Organization,
    PriceBook,
    PriceStore,
    Subject,
)

PRICES = PriceStore(TABLES)
BOOK = PriceBook()


@pytest.fixture
def connection(engine, world):
    with engine.connect() as connection:
        yield connection


def calls(connection, grant, group):
    """Every function of the budget store that takes a grant for a group."""
    return {
        "get": lambda: STORE.get(connection, grant, group),
        "set": lambda: STORE.set(connection, grant, group, 1),
        "delete": lambda: STORE.delete(connection, grant, group),
    }


def assert_refused(engine, call, reason):
    with count_statements(engine) as sent, pytest.raises(GrantRefused, match=reason):
        call()
    assert sent == []


FUNCTIONS = pytest.mark.parametrize(
    ("function", "action"),
    [("get", Action.READ), ("set", Action.UPDATE), ("delete", Action.UPDATE)],
)


@FUNCTIONS
def test_a_grant_for_another_group_is_refused(connection, engine, world, function, action):
    grant, _ = authorize(connection, world.owner, world.a1, action)
    _, other = authorize(connection, world.owner, world.a2, action)
    assert_refused(engine, calls(connection, grant, other)[function], "the grant is for")


@FUNCTIONS
def test_a_grant_for_the_group_in_another_organization_is_refused(
    connection, engine, world, function, action
):
    grant, group = authorize(connection, world.owner, world.a1, action)
    moved = replace(group, organization_id=world.b)
    assert_refused(engine, calls(connection, grant, moved)[function], "the grant is for")


@FUNCTIONS
def test_a_grant_for_another_action_is_refused(connection, engine, world, function, action):
    other = Action.UPDATE if action is Action.READ else Action.READ
    grant, group = authorize(connection, world.owner, world.a1, other)
    assert_refused(engine, calls(connection, grant, group)[function], "the grant is for the action")


@FUNCTIONS
def test_a_grant_for_another_type_of_object_is_refused(connection, engine, world, function, action):
    subject = DIRECTORY.load_subject(connection, world.owner)
    grant = packaged_policy().authorize(subject, action, BOOK)
    group = Group(world.a1, world.a)
    assert_refused(engine, calls(connection, grant, group)[function], "the grant is for")


@FUNCTIONS
def test_a_grant_of_another_connection_is_refused(connection, engine, world, function, action):
    with engine.connect() as other:
        grant, group = authorize(other, world.owner, world.a1, action)
        assert_refused(engine, calls(connection, grant, group)[function], "another connection")


@FUNCTIONS
def test_a_grant_of_a_transaction_that_ended_is_refused(
    connection, engine, world, function, action
):
    grant, group = authorize(connection, world.owner, world.a1, action)
    connection.rollback()
    assert_refused(engine, calls(connection, grant, group)[function], "another connection")
    authorize(connection, world.owner, world.a1, action)
    assert_refused(engine, calls(connection, grant, group)[function], "another connection")


@FUNCTIONS
def test_a_grant_for_a_subject_made_by_hand_is_refused(connection, engine, world, function, action):
    """Decided it can be, but its standing was not read from the database."""
    loaded, group = DIRECTORY.load_group(connection, world.owner, world.a1)
    by_hand = Subject(loaded.id, loaded.assignments)
    grant = packaged_policy().authorize(by_hand, action, group)
    assert_refused(engine, calls(connection, grant, group)[function], "another connection")


@FUNCTIONS
def test_what_is_no_grant_is_refused(connection, engine, world, function, action):
    group = Group(world.a1, world.a)
    for imitation in (None, True, "grant", object()):
        assert_refused(engine, calls(connection, imitation, group)[function], "expected a Grant")


@FUNCTIONS
def test_a_grant_made_around_its_constructor_is_refused(
    connection, engine, world, function, action
):
    group = Group(world.a1, world.a)
    assert_refused(
        engine, calls(connection, object.__new__(Grant), group)[function], "made by hand"
    )


@FUNCTIONS
def test_a_list_grant_opens_no_single_budget(connection, engine, world, function, action):
    grant, _ = authorize_list(connection, world.owner, world.a)
    group = Group(world.a1, world.a)
    assert_refused(engine, calls(connection, grant, group)[function], "expected a Grant")


def test_a_list_grant_holds_for_its_organization_and_transaction_alone(connection, engine, world):
    grant, organization = authorize_list(connection, world.owner, world.a)
    other = Organization(world.b)
    single, _ = authorize(connection, world.owner, world.a1, Action.READ)

    def listing(grant, organization):
        return lambda: STORE.list(connection, grant, organization, limit=1)

    assert_refused(engine, listing(grant, other), "the grant is for")
    assert_refused(engine, listing(single, organization), "expected a ListGrant")
    assert_refused(engine, listing(object.__new__(ListGrant), organization), "made by hand")
    connection.rollback()
    assert_refused(engine, listing(grant, organization), "another connection")


def test_a_list_grant_to_update_lists_nothing(connection, engine, world):
    subject, organization = DIRECTORY.load_organization(connection, world.owner, world.a)
    grant = packaged_policy().authorize_list(subject, Action.UPDATE, organization)
    assert_refused(
        engine,
        lambda: STORE.list(connection, grant, organization, limit=1),
        "the grant is for the action",
    )


def test_prices_take_a_grant_for_the_price_book_and_the_action(connection, engine, world):
    subject = DIRECTORY.load_subject(connection, world.owner)
    read = packaged_policy().authorize(subject, Action.READ, BOOK)
    update = packaged_policy().authorize(subject, Action.UPDATE, BOOK)
    of_group, _ = authorize(connection, world.owner, world.a1, Action.READ)
    assert_refused(engine, lambda: PRICES.get(connection, update, BOOK, "p", "m"), "the action")
    assert_refused(engine, lambda: PRICES.upsert(connection, read, BOOK, []), "the action")
    assert_refused(engine, lambda: PRICES.get(connection, of_group, BOOK, "p", "m"), "is for a")
    connection.rollback()
    assert_refused(engine, lambda: PRICES.upsert(connection, update, BOOK, []), "another conn")


@pytest.mark.parametrize("kind", [Grant, ListGrant])
def test_a_grant_is_not_made_by_hand(kind):
    with pytest.raises(TypeError, match="never by hand"):
        kind()


def test_a_grant_is_not_copied_pickled_or_changed(connection, world):
    grant, group = authorize(connection, world.owner, world.a1, Action.READ)
    listing, _ = authorize_list(connection, world.owner, world.a)
    for receipt in (grant, listing):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="copied or pickled"):
                duplicate(receipt)
        with pytest.raises(AttributeError, match=r"cannot (assign|delete)"):
            receipt.action = Action.UPDATE
    assert grant.object == group
