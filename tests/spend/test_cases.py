"""Calls that were priced wrongly once, at the prices of the shipped book."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from tests.spend.test_store import Spender
from tests.support import authorize

from govbudget.money import round_up_to_micros
from govbudget.prices.price import parse_prices, read_shipped_prices
from govbudget.prices.store import Prices, PriceSource
from govbudget.spend.errors import UnpricedModel
from govbudget.spend.tokens import Tokens

SONNET, PRO = ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro")
FLASH, IMAGE = ("google", "gemini-2.5-flash"), ("google", "gemini-2.5-flash-image")
GPT, GROK, OMNI = ("openai", "gpt-5.4"), ("x-ai", "grok-4.5"), ("openai", "gpt-4o")


ON_AWS = ("aws", "regional.anthropic.claude-sonnet-4-5-20250929-v1:0")


@cache
def read_rows():
    names = {SONNET, PRO, FLASH, IMAGE, GPT, GROK, OMNI, ON_AWS}
    return [one for one in parse_prices(read_shipped_prices()) if one.key[:2] in names]


@pytest.fixture
def spender(world):
    """A gateway beside the book's prices of these models."""
    with world.engine.begin() as connection:
        grant = authorize(connection, world.owner, "update", prices=True)
        Prices.upsert(grant, read_rows(), source=PriceSource.BOOK)
    return Spender(world)


@pytest.mark.parametrize(
    ("name", "tokens", "micros"),
    [
        (SONNET, Tokens(input=3, cache_write_1h=112_304, output=550), 682_083),
        (SONNET, Tokens(input=3, cache_write=12_304, output=550), 54_399),
        (SONNET, Tokens(input=210_000, output=4_000), 1_350_000),
        (PRO, Tokens(input=5_005, cache_read=257_955, output=1_744), 103_162),
        (PRO, Tokens(input=250_000), 625_000),
        (GPT, Tokens(input=300_000, output=5_000), 1_612_500),
        (GROK, Tokens(input=250_000, output=2_000), 1_024_000),
        (FLASH, Tokens(input_audio=100_000, output=500), 101_250),
        (IMAGE, Tokens(input=300, output_image=1_290), 38_790),
        (OMNI, Tokens(input=2_370, cache_read=60_024, output=214), 83_095),
    ],
    ids=repr,
)
def test_a_call_costs_what_its_provider_charges(spender, name, tokens, micros):
    """Held, settled and recorded, at the price of the book."""
    call = replace(spender.call, provider=name[0], model=name[1])
    hold = spender("hold", call, tokens)
    usage = spender("settle", hold.id, "e1", tokens)
    found = (hold, usage, spender("record", "e2", call, tokens)[0])
    assert [round_up_to_micros(one.cost_picos) for one in found] == [micros] * 3


@pytest.mark.parametrize(
    ("provider", "model", "meant"),
    [
        ("openai", "gpt-4o-2024-08-06", OMNI),
        ("anthropic", "claude-sonnet-4-5-20250929", SONNET),
        ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", ON_AWS),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", ON_AWS),
        ("google", "models/gemini-2.5-pro", PRO),
        ("vertex_ai", "gemini-2.5-pro", PRO),
        ("azure", "gpt-4o", OMNI),
        ("xai", "grok-4.5", GROK),
    ],
)
def test_a_name_without_a_row_has_the_price_of_the_model_that_it_is(
    spender, provider, model, meant
):
    """And says whose, in what is held, settled, recorded and looked up."""
    spender.limit(spender.world.a1, 10)
    own = replace(spender.call, provider=meant[0], model=meant[1])
    call = replace(spender.call, provider=provider, model=model)
    tokens = Tokens(input=1_000, output=10, cache_read=5)
    hold = spender("hold", call, tokens)
    found = [
        hold,
        spender("settle", hold.id, "e1", tokens),
        spender("record", "e2", call, tokens)[0],
    ]
    assert {one.cost_picos for one in found} == {spender("hold", own, tokens).cost_picos}
    assert {one.priced_as for one in found} == {meant}
    assert spender("find_hold", hold.id).priced_as == meant
    assert spender("hold", own, tokens).priced_as is None


def test_another_model_that_answered_is_found_by_its_name_too(spender):
    hold = spender(
        "hold", replace(spender.call, provider="openai", model="gpt-4o"), Tokens(input=9)
    )
    assert hold.priced_as is None
    usage = spender("settle", hold.id, "e1", Tokens(input=9), model="gpt-5.4-2026-03-05")
    assert (usage.priced_as, usage.cost_picos) == (GPT, 9 * 2_500_000)


def test_an_exact_row_goes_before_a_rule(spender):
    """A custom price of the dated name counts, and not the one of what it is."""
    name = ("openai", "gpt-4o-2024-11-20")
    with spender.world.engine.begin() as connection:
        grant = authorize(connection, spender.world.owner, "update", prices=True)
        dated = read_rows()[0].model_copy(update={"provider": name[0], "model": name[1]})
        Prices.upsert(grant, [dated.model_copy(update={"input_price": 7})], allow_jumps=True)
    hold = spender("hold", replace(spender.call, provider=name[0], model=name[1]), Tokens(input=1))
    assert (hold.cost_picos, hold.priced_as) == (7, None)


def test_a_siblings_name_is_unpriced(spender):
    spender.limit(spender.world.a1, 10)
    for provider, model in (("google", "gemini-2.5-flash-cyber"), ("my-openai", "gpt-4o")):
        with pytest.raises(UnpricedModel):
            spender("hold", replace(spender.call, provider=provider, model=model), Tokens(input=1))
