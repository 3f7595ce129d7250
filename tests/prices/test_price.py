"""A batch of prices as JSON: what is taken, and how each wrong row is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from govbudget import InvalidInput
from govbudget.prices.change import refuse_duplicates
from govbudget.prices.price import Price, parse_prices

ROW = {
    "provider": "openai",
    "model": "m",
    "input_price": 1,
    "output_price": 2,
    "cache_read_price": None,
    "cache_write_price": 0,
}
PRICES = [name for name in ROW if name.endswith("_price")]


def parse(*rows):
    return parse_prices(json.dumps(rows).encode())


def errors(*rows):
    with pytest.raises(InvalidInput) as caught:
        parse(*rows)
    assert caught.value.code == "invalid-body"
    return [error.pointer for error in caught.value.errors]


def test_a_row_is_read_as_it_stands():
    assert parse(ROW) == [Price(**ROW)]
    assert parse(ROW)[0].model_dump() == ROW


def test_an_empty_batch_is_a_batch():
    assert parse() == []


@pytest.mark.parametrize("name", PRICES)
@pytest.mark.parametrize("value", [None, 0, 10**12])
def test_a_price_is_an_integer_from_0_to_a_million_dollars_or_null(name, value):
    assert getattr(parse({**ROW, name: value})[0], name) == value


@pytest.mark.parametrize("name", PRICES)
@pytest.mark.parametrize("value", [-1, 10**12 + 1, 2**63, 1.0, 1e3, True, "1", [], {}, ""])
def test_any_other_price_is_named_with_its_row(name, value):
    assert errors(ROW | {"model": "good"}, {**ROW, name: value}) == [f"/1/{name}"]


@pytest.mark.parametrize("name", list(ROW))
def test_all_six_keys_are_required(name):
    """A price that is not known is said to be null, never left out."""
    row = {key: value for key, value in ROW.items() if key != name}
    assert errors(row) == [f"/0/{name}"]


def test_a_key_that_is_not_one_of_the_six_is_named():
    assert errors({**ROW, "discount": 1}) == ["/0/discount"]
    assert errors({**ROW, "a/b~c": 1}) == ["/0/a~1b~0c"]


@pytest.mark.parametrize(
    "name",
    ["a b", "it's", '"q"', "back\\slash", "élan", "模型", "🦙", "a;--", "%s", "{}", "x" * 256],
)
def test_hostile_names_are_names(name):
    (price,) = parse({**ROW, "provider": name, "model": name})
    assert (price.provider, price.model) == (name, name)


def test_a_model_may_hold_slashes_and_a_provider_may_not():
    assert parse({**ROW, "model": "meta/muse/spark"})[0].model == "meta/muse/spark"
    assert errors({**ROW, "provider": "open/ai"}) == ["/0/provider"]


@pytest.mark.parametrize("key", ["provider", "model"])
@pytest.mark.parametrize(
    "name",
    ["", "x" * 257, "\0", "a\0b", "a\n", "\ta", "\x1b[31m", "a\x7f", "\x85", "\ud800", 1, None, []],
)
def test_a_name_that_cannot_be_stored_or_shown_is_named_with_its_row(key, name):
    """NUL and other control characters, lone surrogates, nothing, too much, and what is no text."""
    assert errors({**ROW, key: name}) == [f"/0/{key}"]


@pytest.mark.parametrize("number", [*range(0x20), *range(0x7F, 0xA0)])
def test_no_control_character_is_part_of_a_name(number):
    name = f"a{chr(number)}b"
    for key in ("provider", "model"):
        with pytest.raises(ValidationError):
            Price(**{**ROW, key: name})


def test_every_row_of_a_model_that_stands_more_than_once_is_named():
    """The same model of another provider is another model; so is another spelling."""
    rows = [
        ROW,
        {**ROW, "provider": "azure"},
        {**ROW, "input_price": 9},
        {**ROW, "model": "M"},
        {**ROW, "model": "twice"},
        {**ROW, "model": "twice"},
        {**ROW, "effective_from": "2026-01-31"},
    ]
    with pytest.raises(InvalidInput) as caught:
        parse(*rows)
    assert [error.pointer for error in caught.value.errors] == ["/0", "/2", "/4", "/5"]
    assert "`openai` `m`" in caught.value.errors[0].detail
    assert "`openai` `twice`" in caught.value.errors[2].detail


def test_many_errors_are_cut_and_counted():
    with pytest.raises(InvalidInput) as caught:
        parse(*[{**ROW, "input_price": "1"}] * 200)
    assert len(caught.value.errors) == 50
    assert "200" in caught.value.detail
    with pytest.raises(InvalidInput) as caught:
        refuse_duplicates([Price(**ROW)] * 200)
    assert len(caught.value.errors) == 50
    assert "200" in caught.value.detail


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"null",
        b'"prices"',
        b"[{}",
        b"[null]",
        b"[[]]",
        b"\xff[]",
        b"\xef\xbb\xbf[]",
        b"[NaN]",
        b"[Infinity]",
        b"[" * 5000,
        b'[{"provider": "a", "provider": "b"}]',
        json.dumps([ROW]).replace('"input_price": 1', '"input_price": 1e9').encode(),
        json.dumps([ROW]).replace('"input_price": 1', '"input_price": 1.0').encode(),
        json.dumps([ROW]).replace('"input_price": 1', '"input_price": NaN').encode(),
        json.dumps([ROW]).replace('"input_price": 1', f'"input_price": {"9" * 5000}').encode(),
    ],
)
def test_what_is_no_array_of_rows_is_refused(content):
    with pytest.raises(InvalidInput):
        parse_prices(content)


def test_a_price_is_a_value():
    price = Price(**ROW)
    with pytest.raises(ValidationError):
        price.input_price = 0
    assert hash(price) == hash(Price(**ROW))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(list(ROW)) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=5,
)
PRICE = st.none() | st.integers(-2, 2) | st.integers(10**12 - 1, 10**12 + 1) | JSON
NAME = st.text(max_size=6) | st.sampled_from(["openai", "a/b"])
ROWS = st.fixed_dictionaries({"provider": NAME, "model": NAME, **dict.fromkeys(PRICES, PRICE)})


@given(value=st.lists(ROWS | JSON, max_size=4) | JSON)
def test_whatever_json_is_sent_is_read_exactly_or_refused(value):
    """Nothing is guessed, converted or dropped, and nothing but InvalidInput is raised."""
    try:
        prices = parse_prices(json.dumps(value).encode())
    except InvalidInput:
        return
    assert [price.model_dump() for price in prices] == value
    for price in prices:
        for name in PRICES:
            amount = getattr(price, name)
            assert amount is None or (type(amount) is int and 0 <= amount <= 10**12)
