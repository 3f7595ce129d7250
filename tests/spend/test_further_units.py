"""Further units, tiers and days in what is held, settled and recorded: every key, to the pico."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.spend.costs import INPUT, cost_of
from tests.spend.test_store import Spender
from tests.support import TABLES, authorize

from govbudget.errors import InvalidInput
from govbudget.money import FURTHER, FURTHER_INPUT, UNITS
from govbudget.prices.price import parse_prices
from govbudget.prices.store import Prices
from govbudget.spend.cost import write_cost
from govbudget.spend.errors import BudgetExceeded, EventConflict, UnpricedModel
from govbudget.spend.price_gaps import list_gaps
from govbudget.spend.tokens import Tokens
from govbudget.spend.verify import verify_spend

NOON = datetime(2026, 10, 15, 12, tzinfo=UTC)
FOUR = ("input_price", "output_price", "cache_read_price", "cache_write_price")
NAMES = (*UNITS, *FURTHER)


def row(prices=(10, 20, 1, None), **more):
    return {"provider": "acme", "model": "", **dict(zip(FOUR, prices, strict=True)), **more}


def tier(above, prices=(20, 40, 2, None), **more):
    return {"input_above": above, **dict(zip(FOUR, prices, strict=True)), **more}


@pytest.fixture
def spender(world):
    return Spender(world, clock=lambda: NOON)


def put(spender, *rows):
    """Set the prices of a model of its own; give a call to it."""
    model = uuid4().hex
    with spender.world.engine.begin() as connection:
        grant = authorize(connection, spender.world.owner, "update", prices=True)
        Prices.upsert(
            grant, parse_prices(json.dumps([one | {"model": model} for one in rows]).encode())
        )
    return replace(spender.call, model=model)


def verify(spender):
    with spender.world.engine.connect() as connection:
        grant = authorize(connection, spender.world.nobody, "create", ledger=True)
        return verify_spend(grant, spender.world.a).findings


def test_the_keys_of_tokens_are_those_that_have_prices():
    assert set(Tokens.model_fields) == set(NAMES)
    assert set(INPUT) == {*UNITS, *FURTHER_INPUT} - {"output"}


WHOLE = row(
    further={"cache_write_1h": 15, "web_searches": 10**10},
    tiers=[
        tier(1000, further={"cache_write_1h": 30, "web_searches": 10**10}),
        tier(2000, (30, 60, 3, 7), further={"cache_write_1h": 40, "web_searches": 10**10}),
    ],
)


@pytest.mark.parametrize(
    ("tokens", "picos", "unpriced"),
    [
        (Tokens(input=1000, output=7), 10 * 1000 + 20 * 7, ()),
        (Tokens(input=1001, output=7), 20 * 1001 + 40 * 7, ()),
        (Tokens(input=500, cache_write_1h=400, cache_read=101), 20 * 500 + 30 * 400 + 2 * 101, ()),
        (Tokens(input=2001, cache_write=3), 30 * 2001 + 7 * 3, ()),
        (Tokens(web_searches=5000, output=9), 5000 * 10**10 + 20 * 9, ()),
        (Tokens(input=1, cache_write=2), 10, ("cache_write",)),
        (Tokens(input=1, output_image=2, input_video=1), 10, ("output_image", "input_video")),
        (Tokens(input_audio=1), None, ("input_audio",)),
        (Tokens(input_audio=1001, input=1), 20, ("input_audio",)),
    ],
    ids=repr,
)
def test_hold_settle_and_record_price_every_unit_alike(spender, tokens, picos, unpriced):
    """All units at the prices of the tier that the input of every kind reaches, searches not."""
    call = put(spender, WHOLE)
    hold = spender("hold", call, tokens)
    found = [
        hold,
        spender("settle", hold.id, "e1", tokens),
        spender("record", "e2", call, tokens)[0],
    ]
    assert [one.cost_picos for one in found] == [picos] * 3
    assert [sorted(one.unpriced) for one in found] == [sorted(unpriced)] * 3
    assert found[1].tokens == tokens
    assert spender("settle", hold.id, "e1", tokens) == found[1]
    assert spender("record", "e2", call, tokens) == (found[2], False)
    assert verify(spender) == []


def test_the_same_event_with_another_count_of_a_further_unit_is_a_conflict(spender):
    call = put(spender, WHOLE)
    spender("record", "e1", call, Tokens(input=1, web_searches=1))
    for other in (Tokens(input=1), Tokens(input=1, web_searches=2), Tokens(input=1, input_audio=1)):
        with pytest.raises(EventConflict):
            spender("record", "e1", call, other)


def test_a_hold_of_further_units_alone_is_a_hold_and_can_be_refused(spender):
    spender.limit(spender.world.a1, 1)
    call = put(spender, WHOLE)
    assert spender("hold", call, Tokens(web_searches=100)).cost_picos == 10**12
    with pytest.raises(BudgetExceeded):
        spender("hold", call, Tokens(cache_write_1h=1))
    with pytest.raises(UnpricedModel, match="`output_video`"):
        spender("hold", call, Tokens(output_video=1))
    with pytest.raises(InvalidInput):
        spender("hold", call, Tokens(web_searches=0))


def test_a_hold_keeps_its_whole_price_whatever_comes_later(spender):
    """All tiers of it: the settlement falls to the tier of what the call took."""
    call = put(spender, WHOLE)
    hold = spender("hold", call, Tokens(input=2500, cache_write_1h=100))
    with spender.world.engine.begin() as connection:
        prices = TABLES.ai_model_prices
        connection.execute(sa.delete(prices).where(prices.c.model == call.model))
    usage = spender("settle", hold.id, "e1", Tokens(input=1500, cache_write_1h=100))
    assert (hold.cost_picos, usage.cost_picos) == (2500 * 30 + 4000, 1500 * 20 + 3000)
    assert verify(spender) == []


def test_a_call_is_priced_for_its_utc_day(spender):
    """A hold for that of now, usage for that of when it was."""
    call = put(spender, row(), row((11, 20, 1, None), effective_from="2026-10-15"))
    one = Tokens(input=1)
    assert spender("hold", call, one).cost_picos == 11
    midnight = datetime(2026, 10, 15, tzinfo=UTC)
    for number, (at, picos) in enumerate(
        [
            (None, 11),
            (midnight, 11),
            (midnight - timedelta(seconds=1), 10),
            (NOON.replace(day=16), 11),
        ]
    ):
        usage, _ = spender("record", f"e{number}", call, one, occurred_at=at)
        assert usage.cost_picos == picos
    assert verify(spender) == []


def test_gaps_name_further_units_too(spender):
    call = put(spender, WHOLE)
    spender("record", "e1", call, Tokens(input=3, input_audio=5, output_image=1))
    spender("record", "e2", call, Tokens(input_audio=6))
    put_again = json.dumps(
        [
            WHOLE
            | {"model": call.model, "further": WHOLE["further"] | {"input_audio": 1}, "tiers": []}
        ]
    )
    with spender.world.engine.begin() as connection:
        grant = authorize(connection, spender.world.owner, "update", prices=True)
        Prices.upsert(grant, parse_prices(put_again.encode()))
        (gap,) = [gap for gap in list_gaps(grant) if gap.model == call.model]
    assert (gap.calls, gap.input_tokens) == (2, 3)
    assert gap.further_tokens == {"input_audio": 11, "output_image": 1}
    assert gap.unpriced == ("input_audio", "output_image")
    assert gap.missing == ("further/output_image",)


def test_a_sum_that_was_tampered_with_is_found(spender):
    call = put(spender, WHOLE)
    spender("record", "e1", call, Tokens(input=1, web_searches=1))
    with spender.world.engine.begin() as connection:
        usage = TABLES.ai_usage
        mine = usage.c.model == call.model
        connection.execute(sa.update(usage).where(mine).values(further_tokens={"web_searches": 2}))
    assert any("its tokens at its prices" in finding for finding in verify(spender))


@pytest.mark.slow
def test_the_statement_agrees_with_a_model_of_its_own_on_random_calls(engine):
    """2,000 calls at prices with up to three tiers, in one statement."""
    chance = random.Random(16)

    def draw_prices(floor, unknown):
        drawn = {}
        for unit in NAMES:
            least = floor.get(unit)
            if least is None and chance.random() < unknown:
                drawn[unit] = None
            else:
                drawn[unit] = (least or 0) + chance.choice([0, 1, 7, 10**6, 10**11])
        return drawn

    def write(rates):
        four = {f"{unit}_price": rates[unit] for unit in UNITS}
        further = {unit: rates[unit] for unit in FURTHER if rates[unit] is not None}
        return four | {"further": further}

    cases = []
    for _ in range(2000):
        rates, tiers = draw_prices({}, 0.3), []
        base = write(rates)
        for above in sorted(chance.sample(range(1, 60), chance.choice([0, 0, 1, 2, 3]))):
            rates = draw_prices(rates, 0.3)
            tiers.append({"input_above": above, **write(rates)})
        price = {"provider": "p", "model": "m", **base, "tiers": tiers}
        few = chance.sample(NAMES, chance.choice([0, 1, 2, 3, 14]))
        cases.append((price, {unit: chance.choice([0, 1, 5, 20, 10**12]) for unit in few}))
    values = []
    for price, counts in cases:
        parsed = parse_prices(json.dumps([price]).encode())[0]
        tokens = Tokens(**counts)
        values.append(
            {f"{unit}_tokens": count for unit, count in zip(UNITS, tokens.plain, strict=True)}
            | {"further_tokens": tokens.further or None, "more": parsed.more}
            | {name: getattr(parsed, name) for name in FOUR}
        )
    names = ", ".join(f"{name} bigint" for name in (*FOUR, *(f"{unit}_tokens" for unit in UNITS)))
    text = f"""SELECT k.cost_picos, k.unpriced FROM ROWS FROM (
        jsonb_to_recordset(CAST(:rows AS jsonb)) AS ({names}, further_tokens jsonb, more jsonb)
      ) WITH ORDINALITY AS i, {write_cost("i", "i").format(s="govbudget")} ORDER BY ordinality"""
    with engine.connect() as connection:
        found = connection.execute(sa.text(text), {"rows": json.dumps(values)}).all()
    wrong = [
        (price, counts, cost, unpriced)
        for (price, counts), (cost, unpriced) in zip(cases, found, strict=True)
        if (None if cost is None else int(cost), sorted(unpriced or []))
        != (cost_of(counts, price)[0], sorted(cost_of(counts, price)[1]))
    ]
    assert wrong == []
