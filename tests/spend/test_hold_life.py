"""A hold can be asked for again, looked up and extended, whatever became of the first answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.spend.test_store import ONE, Spender
from tests.support import TABLES, authorize, wait_for_waiters

from govbudget.errors import InvalidInput, NotFound
from govbudget.spend.errors import (
    BudgetExceeded,
    EventConflict,
    HoldClosed,
    HoldConflict,
    NotAMember,
    UnpricedModel,
)
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens
from govbudget.spend.verify import verify_spend

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
DOLLAR, CENT = 10**12, 10**10


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def spender(world, clock):
    return Spender(world, clock=clock)


def held(spender):
    return spender.read("ai_spend_counters", "spent_picos", "held_picos")


# -- an id of the caller's own --


def test_a_hold_that_is_asked_for_again_is_the_stored_one(spender, clock):
    """However late, whatever the limit is by then, and whatever became of it."""
    spender.limit(spender.world.a1, 1)
    own = uuid4()
    first = spender("hold", spender.call, ONE, hold_id=own)
    assert (first.id, first.was_known, first.state) == (own, False, "open")
    clock.pass_by(1)
    again = spender("hold", spender.call, Tokens(input=1, output=0), hold_id=own)
    assert again == replace(first, was_known=True)
    assert held(spender) == [(0, DOLLAR)]
    clock.pass_by(600)
    assert spender("hold", spender.call, ONE, hold_id=own).state == "expired"
    spender("settle", own, "e1", ONE)
    assert spender("hold", spender.call, ONE, hold_id=own).state == "settled"
    assert held(spender) == [(DOLLAR, 0)]


@pytest.mark.parametrize(
    "other",
    [{"tokens": Tokens(input=2)}, {"ttl_seconds": 60}, {"model": "other"}, {"user_id": "joined"}],
    ids=str,
)
def test_another_request_under_its_id_is_a_conflict(spender, other):
    own = uuid4()
    spender("hold", spender.call, ONE, hold_id=own)
    call = spender.call
    if "model" in other:
        call = replace(call, model=other["model"])
    if "user_id" in other:
        call = replace(call, user_id=spender.world.joined)
    options = {key: other[key] for key in ("ttl_seconds",) if key in other}
    before = held(spender)
    with pytest.raises(HoldConflict):
        spender("hold", call, other.get("tokens", ONE), hold_id=own, **options)
    assert held(spender) == before


def test_the_id_that_was_given_to_a_hold_is_taken(spender):
    given = spender("hold", spender.call, ONE)
    with pytest.raises(HoldConflict):
        spender("hold", spender.call, ONE, hold_id=given.id)


def test_what_was_refused_is_asked_for_anew(spender):
    """Nothing is stored of it."""
    spender.limit(spender.world.a1, 1)
    first, own = spender("hold", spender.call, ONE), uuid4()
    with pytest.raises(BudgetExceeded):
        spender("hold", spender.call, ONE, hold_id=own)
    spender("release", first.id)
    assert not spender("hold", spender.call, ONE, hold_id=own).was_known


def test_of_two_at_once_one_is_held_and_the_other_reads_it(spender):
    own, counter = uuid4(), TABLES.ai_spend_counters
    spender("release", spender("hold", spender.call, ONE).id)
    with ThreadPoolExecutor(8) as pool, spender.world.engine.begin() as connection:
        is_theirs = counter.c.user_id == spender.call.user_id
        connection.execute(sa.select(counter).where(is_theirs).with_for_update())
        all_of_them = [pool.submit(spender, "hold", spender.call, ONE, hold_id=own) for _ in "four"]
        wait_for_waiters(spender.world.engine, 4)
        connection.rollback()
        found = [one.result() for one in all_of_them]
    assert sorted(hold.was_known for hold in found) == [False, True, True, True]
    assert {hold.id for hold in found} == {own}
    assert held(spender) == [(0, DOLLAR)]


def test_in_a_hosts_transaction_too_what_is_known_is_read(spender):
    """The statement that failed takes nothing else of the transaction with it."""
    own = uuid4()
    with spender.world.engine.connect() as connection:
        grant = authorize(connection, spender.world.nobody, "create", ledger=True)
        Spend.hold(grant, spender.call, ONE)
        for _ in range(2):
            hold = Spend.hold(grant, spender.call, ONE, hold_id=own)
        assert hold.was_known
        connection.commit()
    assert held(spender) == [(0, 2 * DOLLAR)]


# -- looked up --


def test_a_hold_is_open_expired_settled_or_released(spender, clock):
    def find(hold):
        return spender("find_hold", hold.id)

    first, second, third, fourth = (spender("hold", spender.call, ONE) for _ in range(4))
    assert find(first) == first
    spender("settle", first.id, "e1", ONE)
    spender("release", second.id)
    spender("release", first.id)
    clock.pass_by(600)
    assert [find(one).state for one in (first, second, third)] == ["settled", "released", "expired"]
    spender("hold", spender.call, ONE)  # takes what expired out of the counter
    assert find(third).state == "expired"
    spender("release", third.id)
    spender("settle", fourth.id, "e4", ONE)
    assert [find(one).state for one in (third, fourth)] == ["released", "settled"]
    spender("settle", third.id, "e3", ONE)
    assert find(third).state == "settled"
    assert held(spender) == [(3 * DOLLAR, DOLLAR)]
    with pytest.raises(NotFound):
        spender("find_hold", uuid4())


# -- extended --


def test_an_open_hold_lives_on_and_never_shorter(spender, clock):
    spender.limit(spender.world.a1, 1)
    hold = spender("hold", spender.call, ONE)
    clock.pass_by(300)
    longer = spender("extend", hold.id, ttl_seconds=600)
    assert longer == replace(hold, expires_at=clock.now + timedelta(seconds=600))
    assert spender("extend", hold.id, ttl_seconds=1) == longer
    clock.pass_by(599)
    with pytest.raises(BudgetExceeded):
        spender("hold", spender.call, ONE)
    assert held(spender) == [(0, DOLLAR)]


@pytest.mark.parametrize("is_swept", [False, True])
def test_an_expired_hold_is_admitted_anew_where_it_fits(spender, clock, is_swept):
    """Whether or not its money was taken out of the counter."""
    spender.limit(spender.world.a1, 2)
    hold = spender("hold", spender.call, ONE)
    clock.pass_by(600)
    if is_swept:
        spender("release", spender("hold", spender.call, ONE).id)
    other = spender("hold", spender.call, Tokens(input=2))
    with pytest.raises(BudgetExceeded) as refused:
        spender("extend", hold.id, ttl_seconds=60)
    figures = refused.value
    assert (figures.limit_micros, figures.group_id) == (2 * 10**6, spender.world.a1)
    assert (figures.spent_picos, figures.held_picos) == (0, 2 * DOLLAR)
    assert figures.cost_picos == DOLLAR
    assert spender("find_hold", hold.id).state == "expired"
    spender("release", other.id)
    assert spender("extend", hold.id, ttl_seconds=60).expires_at == clock.now + timedelta(minutes=1)
    assert held(spender) == [(0, DOLLAR)]
    spender("settle", hold.id, "e1", ONE)
    assert held(spender) == [(DOLLAR, 0)]


def test_a_hold_whose_own_money_is_still_counted_fits_in_its_place(spender, clock):
    spender.limit(spender.world.a1, 1)
    hold = spender("hold", spender.call, ONE)
    clock.pass_by(600)
    assert spender("extend", hold.id, ttl_seconds=60).state == "open"
    assert held(spender) == [(0, DOLLAR)]


def test_eight_holds_of_the_whole_limit_that_expired_are_not_all_extended(spender, clock):
    """They were settled for eight times the limit."""
    spender.limit(spender.world.a1, 1)
    holds = []
    for _ in range(8):
        holds.append(spender("hold", spender.call, ONE, ttl_seconds=1))
        clock.pass_by(1)
    extended = 0
    for hold in holds:
        try:
            spender("extend", hold.id, ttl_seconds=60)
        except BudgetExceeded:
            continue
        extended += 1
    assert extended == 1
    assert held(spender) == [(0, DOLLAR)]


def test_a_hold_is_extended_in_its_own_period_and_group(spender, clock):
    """Against the limit that holds now, which another group may have set."""
    world = spender.world
    spender.limit(world.a1, 1)
    hold = spender("hold", spender.call, ONE)
    clock.pass_by(13 * 3600)  # it is February
    spender.limit(world.a, 3)
    spender("hold", spender.call, Tokens(input=3))
    extended = spender("extend", hold.id, ttl_seconds=60)
    assert extended.group_id == hold.group_id == world.a1
    assert sorted(held(spender)) == [(0, DOLLAR), (0, 3 * DOLLAR)]
    clock.pass_by(60)
    with world.engine.begin() as connection:
        connection.execute(sa.update(TABLES.group_ai_budgets).values(spend_limit_micros=0))
    with pytest.raises(BudgetExceeded) as refused:
        spender("extend", hold.id, ttl_seconds=60)
    assert refused.value.period_end == datetime(2026, 2, 1, tzinfo=UTC)


def test_a_hold_that_ended_is_not_extended(spender, clock):
    first, second, third = (spender("hold", spender.call, ONE) for _ in range(3))
    spender("settle", first.id, "e1", ONE)
    spender("release", second.id)
    clock.pass_by(600)
    spender("hold", spender.call, ONE)
    spender("settle", third.id, "e3", ONE)
    before = held(spender)
    for hold, state in ((first, "settled"), (second, "released"), (third, "settled")):
        with pytest.raises(HoldClosed, match=state):
            spender("extend", hold.id, ttl_seconds=60)
    with pytest.raises(NotFound):
        spender("extend", uuid4(), ttl_seconds=60)
    assert held(spender) == before


def test_a_hold_of_a_member_who_has_left_is_not_extended(spender):
    hold, members = spender("hold", spender.call, ONE), TABLES.organization_members
    with spender.world.engine.begin() as connection:
        connection.execute(sa.delete(members).where(members.c.user_id == spender.call.user_id))
    with pytest.raises(NotAMember):
        spender("extend", hold.id, ttl_seconds=60)


def test_an_unpriced_hold_that_expired_is_not_extended_under_a_limit(spender, clock):
    """No limit held when it was made."""
    hold = spender("hold", spender.call, Tokens(input=1, output=1))
    spender.limit(spender.world.a1, 5)
    assert spender("extend", hold.id, ttl_seconds=600).state == "open"
    clock.pass_by(600)
    with pytest.raises(UnpricedModel, match="output"):
        spender("extend", hold.id, ttl_seconds=60)


@pytest.mark.parametrize("act", ["settle", "release"])
def test_extended_and_ended_at_once_a_hold_ends_and_frees_its_money_once(spender, clock, act):
    """Whichever comes first, swept out of the counter or not: each has seen it expired."""
    counter = TABLES.ai_spend_counters
    is_theirs = counter.c.user_id == spender.call.user_id
    for number in range(4):
        hold = spender("hold", spender.call, ONE)
        clock.pass_by(600)
        if number >= 2:
            spender("release", spender("hold", spender.call, ONE).id)
        with ThreadPoolExecutor(2) as pool, spender.world.engine.begin() as connection:
            connection.execute(sa.select(counter).where(is_theirs).with_for_update())
            end = {"settle": (hold.id, f"e{number}", ONE), "release": (hold.id,)}[act]
            acts = [("extend", (hold.id,), {"ttl_seconds": 60}), (act, end, {})]
            if number % 2:
                acts.reverse()
            running = []
            for waiting, (name, arguments, options) in enumerate(acts, 1):
                running.append(pool.submit(spender, name, *arguments, **options))
                wait_for_waiters(spender.world.engine, waiting)
            connection.rollback()
            for one in running:
                assert isinstance(one.exception(), HoldClosed | None)
        assert spender("find_hold", hold.id).state == f"{act}d"
        assert held(spender)[0][1] == 0


def test_exactly_as_many_expired_holds_are_extended_at_once_as_fit(spender, clock):
    spender.limit(spender.world.a1, 10)
    holds = []
    for _ in range(4):
        holds += [spender("hold", spender.call, ONE) for _ in range(5)]
        clock.pass_by(600)

    def extend(hold):
        try:
            spender("extend", hold.id, ttl_seconds=60)
        except BudgetExceeded:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(extend, holds)) == 10
    assert held(spender) == [(0, 10 * DOLLAR)]


# -- settled by another model --


def set_price(spender, cents, **more):
    """Set the price of an input token of a model."""
    row = {"provider": "acme", "model": uuid4().hex, "input_price": cents * 10**10, **more}
    with spender.world.engine.begin() as connection:
        connection.execute(sa.insert(TABLES.ai_model_prices), row)
    return row["model"]


def verify(spender):
    with spender.gov.unit(spender.world.nobody) as unit:
        return verify_spend(unit.authorize("create", ledger=True), spender.world.a).findings


def test_a_fallback_costs_what_it_costs_and_not_what_the_held_model_does(spender):
    other = set_price(spender, 3)
    hold = spender("hold", spender.call, Tokens(input=5))
    usage = spender("settle", hold.id, "e1", ONE, model=other)
    assert (usage.model, usage.cost_picos) == (other, 3 * CENT)
    assert spender("settle", hold.id, "e1", ONE, provider="acme", model=other) == usage
    for conflict in ({}, {"model": "third"}, {"provider": "nobody", "model": other}):
        with pytest.raises(EventConflict):
            spender("settle", hold.id, "e1", ONE, **conflict)
    assert held(spender) == [(3 * CENT, 0)]
    assert verify(spender) == []


def test_a_fallback_has_the_price_of_the_day_of_the_hold(spender, clock):
    """As the table has it at settlement: also a price that was set after the hold was made."""
    hold = spender("hold", spender.call, ONE)
    other = set_price(spender, 3, effective_from=NOON.date())
    tomorrow = {"effective_from": (NOON + timedelta(days=1)).date()}
    set_price(spender, 7, model=other, **tomorrow)
    clock.pass_by(86_400)
    assert spender("settle", hold.id, "e1", ONE, model=other).cost_picos == 3 * CENT


def test_the_held_model_by_name_has_the_price_of_its_hold(spender):
    hold = spender("hold", spender.call, ONE)
    with spender.world.engine.begin() as connection:
        connection.execute(sa.update(TABLES.ai_model_prices).values(input_price=7))
    usage = spender("settle", hold.id, "e1", ONE, provider="acme", model=spender.model)
    assert usage.cost_picos == DOLLAR
    assert spender("settle", hold.id, "e1", ONE) == usage


def test_a_fallback_that_nobody_knows_costs_what_was_held(spender):
    """Unpriced, and not free."""
    hold = spender("hold", spender.call, Tokens(input=2))
    usage = spender("settle", hold.id, "e1", ONE, model="unknown")
    assert (usage.cost_picos, usage.unpriced) == (2 * DOLLAR, ("input",))
    assert verify(spender) == []


# -- recorded of whoever has left --


def leave(spender):
    members = TABLES.organization_members
    with spender.world.engine.begin() as connection:
        connection.execute(sa.delete(members).where(members.c.user_id == spender.call.user_id))


def test_usage_of_whoever_has_left_is_recorded_where_they_are_known(spender):
    """It is Everyone's, and whoever was never there is not known."""
    spender.limit(spender.world.a1, 5)
    spender("record", "e1", spender.call, ONE)
    leave(spender)
    usage, is_new = spender("record", "e2", spender.call, ONE, occurred_at=NOON)
    assert (is_new, usage.group_id, usage.cost_picos) == (True, spender.world.a, DOLLAR)
    assert spender("record", "e2", spender.call, ONE, occurred_at=NOON) == (usage, False)
    assert held(spender) == [(2 * DOLLAR, 0)]
    assert verify(spender) == []
    stranger = replace(spender.call, user_id=spender.world.outsider)
    with pytest.raises(NotAMember):
        spender("record", "e3", stranger, ONE)
    with pytest.raises(InvalidInput):
        spender("record", "e4", spender.call, Tokens(input=10**7))
    with pytest.raises(NotAMember):
        spender("hold", spender.call, ONE)


def test_usage_in_an_organization_that_is_gone_is_nobodys(spender):
    spender("record", "e1", spender.call, ONE)
    with spender.world.engine.begin() as connection:
        gone = TABLES.organizations.c.id == spender.world.a
        connection.execute(sa.delete(TABLES.organizations).where(gone))
    assert spender("record", "e2", spender.call, ONE)[0].group_id is None
