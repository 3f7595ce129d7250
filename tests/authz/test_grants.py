"""Grants at the stores, over real connections: a store that refuses one has sent no statement."""

from __future__ import annotations

import copy

import pytest
import sqlalchemy as sa
from tests.support import count_statements

from govbudget import (
    BudgetStore,
    Grant,
    GrantRefused,
    Group,
    ListGrant,
    NotFound,
    ObjectType,
    Organization,
    PriceBook,
    PriceStore,
    Subject,
)
from govbudget.audit.store import AuditStore
from govbudget.prices.gap import list_gaps
from govbudget.prices.price import Price
from govbudget.prices.store import PriceSource
from govbudget.spend.overrides import OverrideStore
from govbudget.spend.reports import SpendReports

BOOK = PriceBook()
PRICE = Price(
    provider="p",
    model="m",
    input_price=1,
    output_price=None,
    cache_read_price=None,
    cache_write_price=None,
)

ACTIONS = {"get": "read", "set": "update", "delete": "update"}


class Bench:
    """The stores of a world, one connection, and grants of the owner for group a1."""

    def __init__(self, world, policy, connection):
        self.world, self.policy, self.connection = world, policy, connection
        self.budgets = BudgetStore(world.tables, world.directory.groups, ObjectType.GROUP)
        self.prices = PriceStore(world.tables)

    def load(self, on=None):
        return self.world.directory.load_group(
            on or self.connection, self.world.owner, self.world.a1
        )

    def authorize(self, name, on=None):
        """A grant for one call, and the group it is for."""
        subject, group = self.load(on)
        return self.policy.authorize(subject, ACTIONS[name], group), group

    def authorize_list(self, action="read"):
        subject, organization = self.world.directory.load_organization(
            self.connection, self.world.owner, self.world.a
        )
        return self.policy.authorize_list(subject, action, organization), organization

    def authorize_prices(self, action):
        subject = self.world.directory.load_subject(self.connection, self.world.owner)
        return self.policy.authorize(subject, action, BOOK)

    def call(self, name, grant, target=None, *, on=None):
        connection, prices = on or self.connection, self.prices
        book = (connection, grant, BOOK)
        calls = {
            "get": lambda: self.budgets.get(connection, grant, target),
            "set": lambda: self.budgets.set(connection, grant, target, 1_000_000),
            "delete": lambda: self.budgets.delete(connection, grant, target),
            "list": lambda: self.budgets.list(connection, grant, target, limit=10),
            "price": lambda: prices.get(*book, "p", "m"),
            "upsert": lambda: prices.upsert(*book, [PRICE]),
            "compare": lambda: prices.compare(*book, [PRICE], source=PriceSource.BOOK),
            "remove": lambda: prices.remove(*book, "p", "m"),
            "gaps": lambda: list_gaps(connection, self.world.tables, grant, BOOK),
        }
        return calls[name]()

    def refuse(self, name, grant, target=None, *, on=None):
        """Make sure that the call is refused and sends nothing; give the reason."""
        with count_statements(self.world.engine) as sent, pytest.raises(GrantRefused) as caught:
            self.call(name, grant, target, on=on)
        assert sent == []
        return caught.value.detail


@pytest.fixture
def bench(world, policy):
    with world.engine.connect() as connection:
        yield Bench(world, policy, connection)


@pytest.mark.parametrize("name", ACTIONS)
def test_a_call_with_its_grant_sends_one_statement(bench, name):
    grant, group = bench.authorize(name)
    if name != "set":
        bench.call("set", bench.authorize("set")[0], group)
    with count_statements(bench.world.engine) as sent:
        assert bench.call(name, grant, group).group_id == bench.world.a1
    assert len(sent) == 1


def test_list_and_prices_with_their_grants_send_one_statement(bench):
    listing, organization = bench.authorize_list()
    update, read = bench.authorize_prices("update"), bench.authorize_prices("read")
    with count_statements(bench.world.engine) as sent:
        bench.call("list", listing, organization)
        bench.call("upsert", update, None)
        bench.call("price", read, None)
    assert len(sent) == 3


@pytest.mark.parametrize("name", ACTIONS)
def test_another_group_organization_or_object_type_is_refused(bench, name):
    grant, group = bench.authorize(name)
    for other in (
        Group(bench.world.a2, bench.world.a),
        Group(bench.world.b1, bench.world.b),
        Group(bench.world.a1, bench.world.b),
        Group(str(bench.world.a1), bench.world.a),
    ):
        assert "not for" in bench.refuse(name, grant, other)
    prices = bench.authorize_prices(ACTIONS[name])
    assert "for a `ai_model_price`" in bench.refuse(name, prices, group)


@pytest.mark.parametrize("kind", [BudgetStore, OverrideStore, SpendReports, AuditStore])
def test_no_store_is_made_without_saying_what_budgets_are_judged_as(bench, kind):
    """Else a host with the policy `dedicated` could forget it, and ask about the group."""
    tables, directory = bench.world.tables, bench.world.directory
    needed = {
        BudgetStore: (tables, directory.groups),
        OverrideStore: (tables, directory),
        SpendReports: (tables, directory),
        AuditStore: (tables,),
    }[kind]
    with pytest.raises(TypeError, match="budget_object"):
        kind(*needed)
    assert kind(*needed, ObjectType.GROUP_AI_BUDGET)


@pytest.mark.parametrize("name", ACTIONS)
def test_a_store_of_budgets_as_their_own_resource_refuses_a_grant_for_the_group(bench, name):
    bench.budgets = BudgetStore(
        bench.world.tables, bench.world.directory.groups, ObjectType.GROUP_AI_BUDGET
    )
    grant, group = bench.authorize(name)
    assert "not for a `group_ai_budget`" in bench.refuse(name, grant, group)


@pytest.mark.parametrize(("name", "granted"), [("get", "set"), ("set", "get"), ("delete", "get")])
def test_a_grant_for_another_action_is_refused(bench, name, granted):
    grant, group = bench.authorize(granted)
    detail = bench.refuse(name, grant, group)
    assert f"not for `{ACTIONS[name]}`" in detail


@pytest.mark.parametrize("name", ACTIONS)
def test_another_connection_is_refused(bench, name):
    grant, group = bench.authorize(name)
    with bench.world.engine.connect() as other:
        assert "another connection" in bench.refuse(name, grant, group, on=other)
        other.execute(sa.text("SELECT 1"))
        assert "another connection" in bench.refuse(name, grant, group, on=other)
    bench.call("set", bench.authorize("set")[0], group)
    bench.call(name, grant, group)


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("name", ACTIONS)
def test_the_next_transaction_on_the_same_connection_is_refused(bench, name, end):
    grant, group = bench.authorize(name)
    getattr(bench.connection, end)()
    assert "transaction" in bench.refuse(name, grant, group)
    bench.connection.execute(sa.text("SELECT 1"))
    assert "transaction" in bench.refuse(name, grant, group)


def test_a_savepoint_is_the_same_unit_of_work(bench):
    grant, group = bench.authorize("set")
    with bench.connection.begin_nested():
        assert bench.call("set", grant, group).group_id == bench.world.a1


def test_in_autocommit_a_grant_lasts_as_long_as_the_connection_is_held(bench):
    with bench.world.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        grant, group = bench.authorize("set", connection)
        bench.call("set", grant, group, on=connection)
    with bench.world.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        bench.authorize("get", connection)
        bench.refuse("set", grant, group, on=connection)


@pytest.mark.parametrize("name", ACTIONS)
def test_a_subject_made_by_hand_touches_no_row(bench, name):
    _, group = bench.authorize(name)
    loaded, _ = bench.load()
    by_hand = Subject(loaded.id, loaded.assignments)
    grant = bench.policy.authorize(by_hand, ACTIONS[name], group)
    assert "load the subject" in bench.refuse(name, grant, group)
    bench.connection.rollback()
    assert "load the subject" in bench.refuse(name, grant, group)
    listing = bench.policy.authorize_list(by_hand, "read", Organization(bench.world.a))
    bench.refuse("list", listing, Organization(bench.world.a))


@pytest.mark.parametrize("name", ACTIONS)
def test_what_is_no_grant_is_refused(bench, name):
    _, group = bench.authorize(name)
    listing, _ = bench.authorize_list(ACTIONS[name])
    for forged in (None, listing, object.__new__(Grant), object.__new__(ListGrant)):
        bench.refuse(name, forged, group)


def test_a_grant_that_can_be_used_cannot_be_copied(bench):
    for grant, _ in (bench.authorize("set"), bench.authorize_list()):
        with pytest.raises(TypeError, match="can't be copied"):
            copy.copy(grant)


def test_a_list_takes_a_list_grant_for_reading_this_organization_here_and_now(bench):
    grant, organization = bench.authorize_list()
    changing, _ = bench.authorize_list("update")
    single, _ = bench.authorize("get")
    other = Organization(bench.world.b)
    assert "not for" in bench.refuse("list", grant, other)
    assert "for the action `update`" in bench.refuse("list", changing, organization)
    assert "expected a ListGrant" in bench.refuse("list", single, organization)
    for forged in (None, object.__new__(ListGrant)):
        bench.refuse("list", forged, organization)
    with bench.world.engine.connect() as elsewhere:
        elsewhere.execute(sa.text("SELECT 1"))
        assert "another connection" in bench.refuse("list", grant, organization, on=elsewhere)
    bench.connection.commit()
    assert "transaction" in bench.refuse("list", grant, organization)


@pytest.mark.parametrize(
    ("name", "action"),
    [("price", "read"), *((name, "update") for name in ("upsert", "compare", "remove", "gaps"))],
)
def test_prices_take_a_grant_for_the_price_book_here_and_now(bench, name, action):
    grant = bench.authorize_prices(action)
    wrong = {"read": "update", "update": "read"}[action]
    assert f"not for `{action}`" in bench.refuse(name, bench.authorize_prices(wrong))
    of_group, _ = bench.authorize({"read": "get", "update": "set"}[action])
    assert "for a `group`" in bench.refuse(name, of_group)
    bench.refuse(name, bench.authorize_list(action)[0])
    bench.refuse(name, None)
    with bench.world.engine.connect() as elsewhere:
        elsewhere.execute(sa.text("SELECT 1"))
        assert "another connection" in bench.refuse(name, grant, on=elsewhere)
    bench.connection.rollback()
    assert "transaction" in bench.refuse(name, grant)


def test_a_refused_grant_writes_nothing(bench):
    grant, group = bench.authorize("get")
    bench.refuse("set", grant, group)
    with pytest.raises(NotFound) as caught:
        bench.call("get", grant, group)
    assert caught.value.code == "budget-not-set"
