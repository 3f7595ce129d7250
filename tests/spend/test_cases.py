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
from govbudget.spend.tokens import Tokens

SONNET, PRO = ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro")
FLASH, IMAGE = ("google", "gemini-2.5-flash"), ("google", "gemini-2.5-flash-image")
GPT, GROK, OMNI = ("openai", "gpt-5.4"), ("x-ai", "grok-4.5"), ("openai", "gpt-4o")


@cache
def read_rows():
    names = {SONNET, PRO, FLASH, IMAGE, GPT, GROK, OMNI}
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
