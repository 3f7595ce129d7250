"""What tokens cost: exactly what Python's own integers say, within bounds, with no float."""

from __future__ import annotations

import ast
import json
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st
from pydantic import ValidationError
from tests.spend.costs import cost_in_picos

import govbudget
from govbudget.money import MAX_COST_PICOS, MAX_PRICE, MAX_TOKENS, round_up_to_micros
from govbudget.spend.tokens import Tokens

NAMES = ("input", "output", "cache_read", "cache_write")
COUNTS = st.tuples(*[st.sampled_from([0, 1, MAX_TOKENS]) | st.integers(0, MAX_TOKENS)] * 4)
KNOWN = st.sampled_from([0, 1, MAX_PRICE]) | st.integers(0, MAX_PRICE)


def make(counts):
    return Tokens(**dict(zip(NAMES, counts, strict=True)))


@given(COUNTS, st.tuples(*[KNOWN] * 4))
@example((MAX_TOKENS,) * 4, (MAX_PRICE,) * 4)
@example((1, 0, 0, 0), (1, 0, 0, 0))
def test_a_cost_is_the_sum_of_the_exact_products(counts, prices):
    """In USD: tokens times the price of one token, as fractions."""
    cost = cost_in_picos(make(counts), prices)
    assert type(cost) is int
    usd = sum(
        count * Fraction(price, 10**6) / 10**6 for count, price in zip(counts, prices, strict=True)
    )
    assert Fraction(cost, 10**12) == usd


@given(COUNTS, st.tuples(*[st.none() | KNOWN] * 4))
def test_what_is_known_of_a_cost_is_its_cost_and_none_is_where_nothing_is(counts, prices):
    used = [price for count, price in zip(counts, prices, strict=True) if count]
    cost = cost_in_picos(make(counts), prices)
    assert (cost is None) == (bool(used) and all(price is None for price in used))
    if cost is not None:
        assert cost == cost_in_picos(make(counts), [price or 0 for price in prices])


@given(COUNTS, COUNTS, st.tuples(*[KNOWN] * 4))
def test_costs_add_up_however_the_calls_are_cut(first, second, prices):
    """Nothing is lost to rounding: two calls cost what one call of both would."""
    both = [sum(pair) for pair in zip(first, second, strict=True)]
    parts = [cost_in_picos(make(counts), prices) for counts in (first, second)]
    whole = sum(count * price for count, price in zip(both, prices, strict=True))
    assert sum(parts) == whole


def test_a_million_calls_of_one_token_cost_what_a_million_tokens_cost():
    assert 10**6 * cost_in_picos(Tokens(input=1), (1, 0, 0, 0)) == 10**6


def test_the_example_of_what_counts_as_what_costs_what_the_provider_bills():
    """A chat answer of OpenAI: its `prompt_tokens` hold the cached ones, `input` does not."""
    prompt, cached, completion = 62_394, 60_024, 214
    (example,) = Tokens.model_json_schema()["examples"]
    tokens = Tokens(**example)
    assert tokens == Tokens(input=prompt - cached, cache_read=cached, output=completion)
    seed = json.loads((files("govbudget.prices") / "seed.json").read_bytes())
    (row,) = (r for r in seed if (r["provider"], r["model"]) == ("openai", "gpt-4o"))
    prices = [row[f"{name}_price"] for name in NAMES]
    assert round_up_to_micros(cost_in_picos(tokens, prices)) == 83_095
    assert " ".join((Tokens.__doc__ or "").split()).count("`input` holds no cached tokens") == 1


def test_a_cost_beyond_what_the_ledger_takes_is_told_exactly():
    """The highest counts at the highest prices: the store refuses it, by this very number."""
    cost = cost_in_picos(make([MAX_TOKENS] * 4), [MAX_PRICE] * 4)
    assert cost == 4 * 10**24 > MAX_COST_PICOS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [-1, MAX_TOKENS + 1, 1.0, True, "1", None], ids=repr)
def test_a_count_out_of_range_or_of_another_type_is_refused(name, count):
    with pytest.raises(ValidationError):
        Tokens(**{name: count})


@given(st.integers(0, 4 * MAX_TOKENS * MAX_PRICE))
@example(1)
@example(10**6)
def test_micros_for_showing_are_rounded_up_by_less_than_one(picos):
    micros = round_up_to_micros(picos)
    assert type(micros) is int
    assert 0 <= micros * 10**6 - picos < 10**6


SOURCES = [
    path
    for room in ("spend", "prices", "budgets")
    for path in sorted((Path(govbudget.__file__).parent / room).glob("*.py"))
]


def test_no_float_is_near_money():
    """No float in a literal, by name, or by the division that makes one."""
    found = [
        f"{path.parent.name}/{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Constant) and isinstance(node.value, float | complex))
        or (isinstance(node, ast.Name) and node.id == "float")
        or (isinstance(node, ast.Attribute) and node.attr in {"Float", "REAL", "Double"})
        or (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div))
    ]
    assert len(SOURCES) > 10
    assert found == []
