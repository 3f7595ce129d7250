"""A correction says what a recorded call should have said; nothing is rewritten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from tests.spend.test_hold_life import CENT, DOLLAR, NOON, set_price
from tests.spend.test_store import ONE, Spender
from tests.support import TABLES, wait_for_waiters

from govbudget.errors import Forbidden, InvalidInput, NotFound
from govbudget.spend.errors import EventConflict, EventCorrected
from govbudget.spend.price_gaps import list_gaps
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import Call
from govbudget.spend.verify import verify_spend

WHY = "the gateway counted the prompt twice"


class Corrector(Spender):
    """A gateway that makes calls, and the owner who corrects them."""

    def correct(self, event, corrects, tokens, reason=WHY, *, by=None, organization=None):
        with self.gov.unit(by or self.world.owner) as unit:
            grant = unit.authorize("update", ledger=True)
            place = organization or self.world.a
            return Spend.correct(grant, event, place, corrects, tokens, reason=reason)

    def verify(self):
        with self.gov.unit(self.world.nobody) as unit:
            return verify_spend(unit.authorize("create", ledger=True), self.world.a)

    def sums(self):
        """What the counters have spent, and the rollups: the cost, calls, unpriced calls."""
        spent = self.read("ai_spend_counters", "period", "spent_picos", "held_picos")
        rolled = self.read("ai_spend_rollups", "grain", "cost_picos", "calls", "unpriced_calls")
        return spent, sorted(map(tuple, rolled))


@pytest.fixture
def spender(world, clock):
    return Corrector(world, clock=clock)


def test_a_correction_adds_the_difference_in_the_originals_period_and_group(spender, clock):
    """At the price that the original had."""
    spender.limit(spender.world.a1, 50)
    spender("settle", spender("hold", spender.call, Tokens(input=9)).id, "e1", Tokens(input=7))
    clock.now = datetime(2026, 3, 5, tzinfo=UTC)
    with spender.world.engine.begin() as connection:
        connection.execute(sa.update(TABLES.ai_model_prices).values(input_price=3))
    correction, is_new = spender.correct("c1", "e1", Tokens(input=2))
    assert (is_new, correction.group_id, correction.model) == (
        True,
        spender.world.a1,
        spender.model,
    )
    assert (correction.cost_picos, correction.difference_picos) == (2 * DOLLAR, -5 * DOLLAR)
    january = NOON.date().replace(day=1)
    sums = [(january, 2 * DOLLAR, 0)], [(grain, 2 * DOLLAR, 1, 0) for grain in ("day", "month")]
    assert spender.sums() == sums
    usage = spender.read("ai_usage", "event_id", "input_tokens", "cost_picos", "corrects", "reason")
    assert sorted(usage) == [
        ("c1", 2, -5 * DOLLAR, "e1", WHY),
        ("e1", 7, 7 * DOLLAR, None, None),
    ]
    assert spender.verify().findings == []
    assert spender.verify().calls == 1
    assert spender.correct("c1", "e1", Tokens(input=2)) == (correction, False)
    assert spender.sums() == sums


def test_an_event_is_corrected_once_and_its_correction_again(spender):
    spender("record", "e1", spender.call, Tokens(input=5))
    spender.correct("c1", "e1", ONE)
    with pytest.raises(EventCorrected) as refused:
        spender.correct("c2", "e1", Tokens(input=3))
    assert refused.value.event_id == "c1"
    second, _ = spender.correct("c2", "c1", Tokens(input=8))
    assert (second.cost_picos, second.difference_picos) == (8 * DOLLAR, 7 * DOLLAR)
    assert spender.sums()[0][0][1] == 8 * DOLLAR
    assert spender.verify().findings == []


def test_another_body_or_use_of_its_event_is_a_conflict(spender):
    for event in ("e1", "e2"):
        spender("record", event, spender.call, Tokens(input=5))
    spender.correct("c1", "e1", ONE)
    before = spender.sums()
    for event, corrects, tokens, reason in (
        ("c1", "e1", Tokens(input=2), WHY),
        ("c1", "e1", Tokens(input=1, web_searches=1), WHY),
        ("c1", "e1", ONE, "another"),
        ("c1", "e2", ONE, WHY),
        ("e2", "e2", ONE, WHY),
    ):
        with pytest.raises(EventConflict):
            spender.correct(event, corrects, tokens, reason)
    with pytest.raises(EventConflict):
        spender("record", "c1", spender.call, ONE)
    with pytest.raises(EventConflict):
        spender("settle", spender("hold", spender.call, ONE).id, "c1", ONE)
    assert spender.sums()[1] == before[1]


def test_what_is_not_there_or_costs_too_much_is_not_corrected(spender):
    spender("record", "e1", spender.call, ONE)
    before = spender.sums()
    with pytest.raises(NotFound, match="event"):
        spender.correct("c1", "unknown", ONE)
    with pytest.raises(NotFound, match="event"):
        spender.correct("c1", "e1", ONE, organization=spender.world.b)
    with pytest.raises(InvalidInput):
        spender.correct("c1", "e1", Tokens(input=10**7))
    for reason in ("", "x" * 1001, "a\nb"):
        with pytest.raises(ValueError, match="a reason is"):
            spender.correct("c1", "e1", ONE, reason)
    with pytest.raises(Forbidden):
        spender.correct("c1", "e1", ONE, by=spender.world.nobody)  # a gateway
    assert spender.sums() == before


def test_a_price_that_came_later_is_that_of_a_correction(spender):
    """It heals what was recorded without one, and the list of gaps has it no more."""
    call = Call(spender.world.a, spender.world.member, "acme", "later " + spender.model)
    spender("record", "e1", call, Tokens(input=5, output=3))
    set_price(spender, 4, model=call.model)
    gaps = [gap for gap in find_gaps(spender) if gap.model == call.model]
    assert [(gap.calls, gap.unpriced) for gap in gaps] == [(1, ("input", "output"))]
    correction, _ = spender.correct("c1", "e1", Tokens(input=5))
    assert (correction.cost_picos, correction.unpriced) == (20 * CENT, ())
    assert [row[1:] for row in spender.sums()[1]] == [(20 * CENT, 1, 0)] * 2
    assert not [gap for gap in find_gaps(spender) if gap.model == call.model]
    third, _ = spender.correct("c2", "c1", Tokens(input=5, output=1))
    assert (third.cost_picos, third.difference_picos, third.unpriced) == (20 * CENT, 0, ("output",))
    assert [row[1:] for row in spender.sums()[1]] == [(20 * CENT, 1, 1)] * 2
    assert [gap.calls for gap in find_gaps(spender) if gap.model == call.model] == [1]
    assert spender.verify().findings == []


def test_a_name_that_a_rule_knows_is_corrected_at_the_price_that_the_rule_finds(spender):
    """As a call of it would be; the list of gaps does not say that its price is missing."""
    call = Call(spender.world.a, spender.world.member, "openai", "gpt-4o-2024-08-06")
    spender("record", "e1", call, ONE)
    set_price(spender, 4, provider="openai", model="gpt-4o")
    assert [gap.missing for gap in find_gaps(spender) if gap.model == call.model] == [()]
    correction, _ = spender.correct("c1", "e1", Tokens(input=2))
    assert (correction.cost_picos, correction.unpriced) == (8 * CENT, ())
    kept = spender.read("ai_usage", "event_id", "priced_as", "input_price")
    assert ("c1", ["openai", "gpt-4o"], 4 * CENT) in kept
    assert spender.correct("c1", "e1", Tokens(input=2)) == (correction, False)
    assert spender.verify().findings == []


def find_gaps(spender):
    with spender.gov.unit(spender.world.owner) as unit:
        return list_gaps(unit.authorize("update", prices=True))


def test_only_the_units_without_a_price_have_todays(spender):
    """Further units too; what the original had a price for keeps it."""
    spender("record", "e1", spender.call, Tokens(input=1, output=1, web_searches=1))
    values = {"input_price": 7, "output_price": 5 * CENT, "more": {"web_searches": 2 * CENT}}
    with spender.world.engine.begin() as connection:
        connection.execute(sa.update(TABLES.ai_model_prices).values(**values))
    correction, _ = spender.correct("c1", "e1", Tokens(input=1, output=1, web_searches=1))
    assert (correction.cost_picos, correction.unpriced) == (DOLLAR + 7 * CENT, ())
    assert spender.verify().findings == []


def tier(above, *prices):
    units = ("input", "output", "cache_read", "cache_write")
    return {"above": above, **dict(zip(units, prices, strict=True))}


@pytest.mark.parametrize(
    ("length", "cents"), [(50, 50 * 1 + 2), (60, 60 * 3 + 2), (90, 90 * 3 + 7)]
)
def test_a_unit_without_a_price_has_todays_at_the_length_of_the_prompt(spender, length, cents):
    """The original has another price of input above 50, today's one of output above 80."""
    table, tokens = TABLES.ai_model_prices, Tokens(input=length, output=1)
    was = {"input_price": CENT, "more": {"tiers": [tier(50, 3 * CENT, None, None, None)]}}
    today = {"output_price": 2 * CENT, "more": {"tiers": [tier(80, CENT, 7 * CENT, None, None)]}}
    for values in (was, today):
        with spender.world.engine.begin() as connection:
            connection.execute(sa.update(table).values(**values))
        if values is was:
            spender("record", "e1", spender.call, tokens)
    correction, _ = spender.correct("c1", "e1", tokens)
    assert (correction.cost_picos, correction.unpriced) == (cents * CENT, ())
    assert spender.correct("c2", "c1", tokens)[0].difference_picos == 0
    assert spender.verify().findings == []


def test_a_model_that_nobody_knows_stays_unpriced_in_a_correction(spender):
    call = Call(spender.world.a, spender.world.member, "acme", "unknown")
    spender("record", "e1", call, ONE)
    correction, _ = spender.correct("c1", "e1", Tokens(input=2))
    assert (correction.cost_picos, correction.difference_picos) == (None, 0)
    assert correction.unpriced == ("input",)
    assert [row[1:] for row in spender.sums()[1]] == [(0, 1, 1)] * 2
    assert spender.verify().findings == []


def test_a_correction_leaves_an_entry_that_says_who_what_and_why(spender):
    spender("record", "e1", spender.call, Tokens(input=5))
    for _ in range(2):
        spender.correct("c1", "e1", Tokens(input=2, output=1))
    log = TABLES.audit_log
    chosen = sa.select(log).where(log.c.organization_id == spender.world.a)
    with spender.world.engine.connect() as connection:
        (entry,) = connection.execute(chosen).all()
    assert (entry.object_type, entry.object_id) == ("ai_usage", "e1")
    assert (entry.before["cost_picos"], entry.before["input_tokens"]) == (5 * DOLLAR, 5)
    assert (entry.after["cost_picos"], entry.after["input_tokens"]) == (2 * DOLLAR, 2)
    assert (entry.after["event_id"], entry.after["reason"]) == ("c1", WHY)
    assert entry.receipt["actor"] == str(spender.world.owner)
    assert entry.receipt["roles"] == ["owner"]


def test_of_two_corrections_at_once_one_is_taken(spender):
    spender("record", "e1", spender.call, Tokens(input=5))
    counter = TABLES.ai_spend_counters
    with ThreadPoolExecutor(4) as pool, spender.world.engine.begin() as connection:
        is_theirs = counter.c.user_id == spender.call.user_id
        connection.execute(sa.select(counter).where(is_theirs).with_for_update())
        running = [pool.submit(spender.correct, f"c{n}", "e1", Tokens(input=n)) for n in (1, 2, 3)]
        wait_for_waiters(spender.world.engine, 3)
        connection.rollback()
        refused = [one.exception() for one in running if one.exception()]
    assert [type(one) for one in refused] == [EventCorrected] * 2
    (right,) = [one.result()[0] for one in running if not one.exception()]
    assert {one.event_id for one in refused} == {right.event_id}
    assert spender.sums()[0][0][1] == right.cost_picos
    assert spender.verify().findings == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("cost_picos = cost_picos - 1", "adds -3000000000001 picos to the 5000000000000"),
        ("corrected_picos = 7", "that it corrects to 7"),
        ("corrects = 'nothing'", 'correction "c1" of event "nothing"'),
        ("input_tokens = 4", "its tokens at its prices cost 4000000000000"),
        ("group_id = NULL", 'correction "c1" of event "e1"'),
        ("provider = 'another'", 'correction "c1" of event "e1"'),
        ("occurred_at = recorded_at", 'correction "c1" of event "e1"'),
    ],
)
def test_verify_finds_a_correction_that_does_not_add_up(spender, change, sentence):
    spender("record", "e1", spender.call, Tokens(input=5))
    spender.correct("c1", "e1", Tokens(input=2))
    with spender.world.engine.begin() as connection:
        sql = f"UPDATE govbudget.ai_usage SET {change} WHERE event_id = 'c1'"
        place = {"a": spender.world.a}
        connection.execute(sa.text(f"{sql} AND organization_id = :a"), place)
    assert any(sentence in finding for finding in spender.verify().findings)


def test_money_that_a_correction_gives_back_can_be_held(spender):
    spender.limit(spender.world.a1, 5)
    spender("record", "e1", spender.call, Tokens(input=5), occurred_at=NOON + timedelta(seconds=1))
    spender.correct("c1", "e1", ONE)
    assert spender("hold", spender.call, Tokens(input=4)).cost_picos == 4 * DOLLAR
