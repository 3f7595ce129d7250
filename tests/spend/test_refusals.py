"""Refused calls are noted: one row a member, day and reason, and never at the cost of an answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.spend.test_hold_life import NOON
from tests.spend.test_limits import override
from tests.spend.test_store import ONE, Spender
from tests.support import TABLES, authorize, count_statements, make_gov

from govbudget.budgets.budget import LimitSource
from govbudget.errors import GovBudgetError, InvalidInput
from govbudget.spend.errors import BudgetExceeded, NotAMember, UnpricedModel
from govbudget.spend.refusals import Refused, list_refusals
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens

DAY = date(2026, 1, 31)
DOLLAR = 10**12
REFUSALS = TABLES.ai_refusals


@pytest.fixture
def spender(world, clock):
    spender = Spender(world, clock=clock)
    spender.limit(world.a1, 1)
    return spender


def listed(spender, person=None):
    """Give what is listed of a member, as the owner of all reads it."""
    world = spender.world
    with spender.gov.unit(world.owner) as unit:
        return list_refusals(unit.authorize("read", member=(world.a, person or world.member)))


def refuse(spender, *, tokens=2, model=None, kind=BudgetExceeded):
    call = spender.call if model is None else replace(spender.call, model=model)
    with pytest.raises(kind):
        spender("hold", call, Tokens(input=tokens))


def test_a_call_over_the_limit_is_noted_with_what_it_did_not_fit_under(spender, world):
    refuse(spender)
    acme = ("acme", spender.model, 2 * DOLLAR, 1_000_000, LimitSource.GROUP, world.a1)
    assert listed(spender) == [Refused(DAY, "budget-exceeded", 1, NOON, *acme)]


def test_a_model_without_a_price_is_noted_beside_it(spender):
    refuse(spender)
    refuse(spender, model="unknown", kind=UnpricedModel)
    unpriced = listed(spender)[1]
    assert (unpriced.code, unpriced.provider, unpriced.model) == (
        *("unpriced-model", "acme"),
        "unknown",
    )
    nothing = (unpriced.cost_picos, unpriced.limit_micros, unpriced.limit_source, unpriced.group_id)
    assert nothing == (None,) * 4


def test_however_often_and_for_however_many_models_it_is_one_row_with_the_last_call(spender, clock):
    for number in range(30):
        clock.pass_by(1)
        refuse(spender, model=f"unknown {number}", kind=UnpricedModel)
    (row,) = listed(spender)
    assert (row.calls, row.model, row.last_at) == (30, "unknown 29", clock.now)
    clock.pass_by(86_400)  # another month
    refuse(spender, tokens=3)
    assert [(row.day, row.calls) for row in listed(spender)] == [(date(2026, 2, 1), 1)]
    assert len(spender.read("ai_refusals", "day")) == 2


def test_a_name_of_any_length_takes_a_bounded_row(spender):
    refuse(spender, model="n" * 100_000, kind=UnpricedModel)
    assert listed(spender)[0].model == "n" * 256


def test_an_override_is_named_as_what_set_the_limit(spender, world):
    override(world, world.a1, 0)
    refuse(spender)
    (row,) = listed(spender)
    assert (row.limit_micros, row.limit_source, row.group_id) == (0, "user_override", world.a1)


def test_a_hold_that_can_not_be_extended_is_noted_too(spender, clock):
    hold = spender("hold", spender.call, ONE, ttl_seconds=10)
    clock.pass_by(20)
    spender("hold", spender.call, ONE)
    with pytest.raises(BudgetExceeded):
        spender("extend", hold.id, ttl_seconds=10)
    (row,) = listed(spender)
    assert (row.code, row.model, row.cost_picos) == ("budget-exceeded", spender.model, DOLLAR)


def test_a_hold_of_the_callers_own_id_is_noted_too(spender):
    with pytest.raises(BudgetExceeded):
        spender("hold", spender.call, Tokens(input=2), hold_id=uuid4())
    assert [row.calls for row in listed(spender)] == [1]


def test_who_is_not_a_member_and_what_costs_too_much_is_not_noted(spender, world):
    with pytest.raises(NotAMember):
        spender("hold", replace(spender.call, user_id=world.outsider), ONE)
    refuse(spender, tokens=10**12, kind=InvalidInput)
    assert spender.read("ai_refusals", "code") == []


def test_an_admitted_call_is_one_statement_and_a_refused_one_two(spender, world):
    for tokens, expected in ((1, 1), (5, 2)):
        with spender.gov.unit(world.nobody) as unit:
            grant = unit.authorize("create", ledger=True)
            with count_statements(world.engine) as sent:
                try:
                    Spend.hold(grant, spender.call, Tokens(input=tokens))
                except BudgetExceeded:
                    assert "ai_refusals" in sent[-1]
            assert len(sent) == expected
    assert "ai_refusals" not in sent[0]


def test_the_day_is_that_of_the_zone(world, clock):
    clock.now = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    spender = Spender(world, clock=clock, time_zone="Europe/Berlin")
    spender.limit(world.a1, 1)
    refuse(spender)
    assert [row.day for row in listed(spender)] == [date(2026, 2, 1)]
    clock.now = datetime(2026, 2, 28, 22, 30, tzinfo=UTC)  # 23:30 of the same month
    assert len(listed(spender)) == 1
    clock.now = datetime(2026, 2, 28, 23, 30, tzinfo=UTC)
    assert listed(spender) == []


def test_nothing_is_written_in_a_hosts_transaction(spender, world):
    """Its rollback and its locks are the host's."""
    with world.engine.begin() as connection:
        grant = authorize(connection, world.nobody, "create", gov=spender.gov, ledger=True)
        with count_statements(world.engine) as sent, pytest.raises(BudgetExceeded):
            Spend.hold(grant, spender.call, Tokens(input=2))
        assert len(sent) == 1
    assert spender.read("ai_refusals", "code") == []


def test_nothing_is_written_in_the_transaction_of_a_hosts_tests(spender, world):
    """Where the engine is a connection of theirs: each unit is a savepoint."""
    with world.engine.connect() as connection, connection.begin():
        gov = make_gov(engine=connection)
        with gov.unit(world.nobody) as unit:
            grant = unit.authorize("create", ledger=True)
            with count_statements(world.engine) as sent, pytest.raises(BudgetExceeded):
                Spend.hold(grant, spender.call, Tokens(input=2))
        assert len(sent) == 1


def test_nothing_is_written_on_a_hosts_connection_that_commits_itself(spender, world):
    with world.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        with spender.gov.unit(world.nobody, connection=connection) as unit:
            grant = unit.authorize("create", ledger=True)
            with pytest.raises(BudgetExceeded):
                Spend.hold(grant, spender.call, Tokens(input=2))
    assert spender.read("ai_refusals", "code") == []


@pytest.mark.parametrize("atomic", [False, True], ids=["each", "atomic"])
def test_a_refusal_is_answered_whether_or_not_it_could_be_noted(world, spender, caplog, atomic):
    """Its table is locked, and the unit goes on."""
    url = world.engine.url
    engine = sa.create_engine(url, connect_args={"options": "-c lock_timeout=20"})
    gov = make_gov(engine=engine)
    with world.engine.begin() as other, gov.unit(world.nobody, atomic=atomic) as unit:
        other.exec_driver_sql("LOCK govbudget.ai_refusals IN ACCESS EXCLUSIVE MODE")
        grant = unit.authorize("create", ledger=True)
        with pytest.raises(BudgetExceeded):
            Spend.hold(grant, spender.call, Tokens(input=2))
        assert Spend.hold(grant, spender.call, ONE).cost_picos == DOLLAR
    engine.dispose()
    assert spender.read("ai_refusals", "code") == []
    assert spender.read("ai_holds", "cost_picos") == [(DOLLAR,)]
    (record,) = caplog.records
    assert record.getMessage().startswith("a refused call was not noted: ")
    assert "\n" not in record.getMessage()


@pytest.mark.slow
def test_refused_at_once_each_call_is_counted(spender):
    def ask(number):
        with pytest.raises(GovBudgetError) as refused:
            spender("hold", replace(spender.call, model=f"unknown {number}"), ONE)
        return refused.value.code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(160))) == {"unpriced-model"}
    assert [row.calls for row in listed(spender)] == [160]
