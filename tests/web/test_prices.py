"""The price book over HTTP: any model name, all or nothing, equal prices change nothing."""

from __future__ import annotations

from urllib.parse import quote
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import given, strategies as st
from tests.support import TABLES
from tests.web.helpers import outcome, read_problem

PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")
INVALID = (400, "invalid-body")


def row(provider, model, *prices, **changes):
    values = (*prices, *[0] * (4 - len(prices)))
    keyed = dict(zip(PRICES, values, strict=True))
    return {"provider": provider, "model": model, **keyed, **changes}


@pytest.fixture
def provider():
    """A provider of this test alone."""
    return f"p-{uuid4().hex}"


@pytest.fixture(scope="module")
def put(send, town):
    return lambda batch, **options: send("PUT", "/ai/prices", town.owner, json=batch, **options)


@pytest.fixture(scope="module")
def get(send, town):
    def get(provider, model):
        path = f"/ai/prices/{quote(provider, safe='')}/{quote(model, safe='/')}"
        return send("GET", path, town.owner)

    return get


def read_times(engine, provider):
    prices = TABLES.ai_model_prices
    with engine.connect() as connection:
        query = sa.select(prices.c.model, prices.c.updated_at).where(prices.c.provider == provider)
        return dict(connection.execute(query).all())


NAMES = [
    "openrouter/meta/muse-spark",
    "a//b",
    "a///b",
    "/leading",
    "trailing/",
    "//",
    "/",
    "100%",
    "%2F",
    "%",
    "a b",
    " a ",
    "a+b",
    "a?b=c",
    "a#b",
    "a;b",
    "..",
    "../../etc/passwd",
    "./a",
    "muse-\u2728",
    "\u65e5\u672c\u8a9e",
    "\u0645\u0631\u062d\u0628\u0627",
    "e\u0301",
    "\u00e9",
    "a\\b",
    '"quoted"',
    "'; DROP TABLE x; --",
    "<script>",
    "null",
    "m" * 256,
]


@pytest.mark.parametrize("model", NAMES, ids=lambda name: ascii(name)[:24])
def test_a_model_of_any_name_is_put_and_read_back_under_that_name(put, get, provider, model):
    given_row = row(provider, model, 3, None, 10**12)
    assert put([given_row]).json == {"received": 1, "changed": 1}
    response = get(provider, model)
    assert (response.status_code, response.json) == (200, given_row)


@given(
    model=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30),
    prices=st.tuples(*[st.none() | st.integers(0, 10**12)] * 4),
)
def test_whatever_is_put_is_what_is_read(put, get, model, prices):
    given_row = row("hypothesis", model, *prices)
    assert put([given_row], query_string={"allow_jumps": "true"}).status_code == 200
    assert get("hypothesis", model).json == given_row


def test_a_slash_written_as_a_slash_or_as_an_escape_is_the_same_model(send, put, town, provider):
    put([row(provider, "a/b", 1)])
    for model in ("a/b", "a%2Fb", "a%2fb", "%61/b"):
        assert send("GET", f"/ai/prices/{provider}/{model}", town.owner).status_code == 200
    for model in ("a//b", "a/b/", "/a/b", "A/b"):
        response = send("GET", f"/ai/prices/{provider}/{model}", town.owner)
        assert outcome(response) == (404, "price-not-found")


@pytest.mark.parametrize(
    "path", ["a/%00", "%00/a", "a/x%00y", "a/%FF", "a/%0A", "a/x%0Ay", "a/", "a/%F0%9F", "%0A/%0A"]
)
def test_a_name_that_no_price_can_have_is_a_price_not_found(send, town, path):
    response = send("GET", f"/ai/prices/{path}", town.owner)
    assert outcome(response) == (404, "price-not-found")


@pytest.mark.parametrize("model", ["", "x\x00", "x\n", "\x1b[31m", "\x85", "m" * 257, "\ud800"])
def test_a_name_with_control_characters_or_none_is_not_stored(engine, put, provider, model):
    assert outcome(put([row(provider, model)])) == INVALID
    assert outcome(put([row(model and provider + model, "m")])) == INVALID
    assert read_times(engine, provider) == {}


def test_equal_prices_change_nothing_not_even_a_time(engine, put, provider):
    batch = [row(provider, "a", 1, None), row(provider, "b", 2)]
    assert put(batch).json == {"received": 2, "changed": 2}
    before = read_times(engine, provider)
    assert put(batch).json == {"received": 2, "changed": 0}
    assert read_times(engine, provider) == before
    batch[0]["output_price"] = 0
    assert put(batch).json == {"received": 2, "changed": 1}
    after = read_times(engine, provider)
    assert after["a"] > before["a"]
    assert after["b"] == before["b"]


def test_null_is_kept_as_null_and_is_not_zero(engine, put, get, provider):
    put([row(provider, "m", None, None, None, None)])
    assert [get(provider, "m").json[price] for price in PRICES] == [None] * 4
    assert put([row(provider, "m", 0, None, None, None)]).json["changed"] == 1
    prices = TABLES.ai_model_prices
    with engine.connect() as connection:
        query = sa.select(prices.c.output_price).where(prices.c.provider == provider)
        assert connection.execute(query).scalar_one() is None


def test_a_batch_is_stored_whole_or_not_at_all(engine, put, provider):
    good = [row(provider, f"m{index}") for index in range(20)]
    for bad in (
        row(provider, "bad", -1),
        row(provider, "bad", 10**12 + 1),
        row(provider, "bad", "1"),
        row(provider, "bad", 1.0),
        row(provider, "bad", True),
        row(provider, "bad", more=1),
        row(provider, 7),
        row("with/slash", "bad"),
        {key: value for key, value in row(provider, "bad").items() if key != "cache_write_price"},
        good[3],
        None,
        [],
    ):
        assert outcome(put([*good, bad])) == INVALID, bad
    assert read_times(engine, provider) == {}


def test_errors_of_a_batch_point_at_row_and_key(put, provider):
    batch = [row(provider, "a"), row(provider, "b", -1), {**row(provider, "c"), "x/y": 1}]
    del batch[0]["output_price"]
    problem = read_problem(put(batch))
    pointers = sorted(item["pointer"] for item in problem["errors"])
    assert pointers == ["/0/output_price", "/1/input_price", "/2/x~1y"]


def test_prices_in_another_unit_are_refused_all_or_nothing_naming_each(put, get, provider):
    kept = row(provider, "a", 3_000_000, 15_000_000)
    assert put([kept, row(provider, "b", 1)]).json["changed"] == 2
    for factor in (3, 10**12):
        refused = put([row(provider, "b", 2), row(provider, "a", factor, 15)])
        problem = read_problem(refused)
        assert (refused.status_code, problem["code"]) == (409, "price-jump")
        assert [tuple(error.values()) for error in problem["errors"]] == [
            ("/1/input_price", f"`{provider}` `a` would go from 3000000 to {factor}"),
            ("/1/output_price", f"`{provider}` `a` would go from 15000000 to 15"),
        ]
        assert (get(provider, "a").json, get(provider, "b").json["input_price"]) == (kept, 1)
    meant = put([row(provider, "a", 3)], query_string={"allow_jumps": "true"})
    assert (meant.status_code, get(provider, "a").json["input_price"]) == (200, 3)


@pytest.mark.parametrize(
    "query",
    ["allow_jumps=", "allow_jumps=1", "allow_jump=true", "allow_jumps=true&allow_jumps=true"],
)
def test_jumps_are_allowed_by_true_alone(put, provider, query):
    put([row(provider, "a", 1000)])
    assert outcome(put([row(provider, "a", 1)], query_string=query)) == (400, "invalid-query")
    refused = put([row(provider, "a", 1)], query_string="allow_jumps=false")
    assert outcome(refused) == (409, "price-jump")


def test_a_model_that_stands_twice_in_a_batch_is_named(put, provider):
    problem = read_problem(put([row(provider, "a"), row(provider, "b"), row(provider, "a", 5)]))
    assert problem["code"] == "invalid-body"
    assert [item["pointer"] for item in problem["errors"]] == ["/0", "/2"]
    assert all("`a`" in item["detail"] for item in problem["errors"])


@pytest.mark.parametrize("body", [b"{}", b"null", b"[1]", b"[[]]", b'"x"', b"[", b"", b"[{}]"])
def test_a_body_that_is_no_array_of_rows_is_refused(send, town, body):
    options = {"data": body, "content_type": "application/json"}
    assert outcome(send("PUT", "/ai/prices", town.owner, **options)) == INVALID


def test_an_empty_batch_is_well_and_changes_nothing(put):
    assert put([]).json == {"received": 0, "changed": 0}


@pytest.mark.long
def test_five_thousand_rows_are_stored_in_one_call(engine, put, provider):
    batch = [row(provider, f"m/{index}", index) for index in range(5000)]
    assert put(batch).json == {"received": 5000, "changed": 5000}
    batch[17]["input_price"] += 1
    assert put(batch).json == {"received": 5000, "changed": 1}
    assert len(read_times(engine, provider)) == 5000
