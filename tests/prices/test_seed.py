"""The seed price book that is shipped: well formed, and what its source says."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from importlib.metadata import version

import pytest

from govbudget.prices.price import read_shipped_prices

pytestmark = pytest.mark.slow

PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")
RATES = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")


@pytest.fixture(scope="module")
def content():
    return read_shipped_prices()


@pytest.fixture(scope="module")
def rows(content):
    return json.loads(content)


@pytest.fixture(scope="module")
def book(rows):
    """The last row of each name."""
    return {(row["provider"], row["model"]): tuple(row[name] for name in PRICES) for row in rows}


def find_all(rows, provider, model):
    return [row for row in rows if (row["provider"], row["model"]) == (provider, model)]


@pytest.fixture(scope="module")
def source():
    """Return the script that makes the seed, where the package that it reads is the same."""
    pytest.importorskip("genai_prices")
    make_price_seed = pytest.importorskip("tools.make_price_seed")
    if version("genai-prices") != make_price_seed.SEED_VERSION:
        pytest.skip(f"the seed was made from genai-prices {make_price_seed.SEED_VERSION}")
    return make_price_seed


def test_every_row_has_the_six_keys(rows):
    """Every row is an object that starts with the six keys; what says nothing is left out."""
    assert isinstance(rows, list)
    assert {tuple(row)[:6] for row in rows} == {("provider", "model", *PRICES)}
    assert {key for row in rows for key in tuple(row)[6:]} == {"further", "tiers", "effective_from"}
    assert all(row[key] for row in rows for key in row if key in {"further", "tiers"})


def test_names_are_ones_that_the_book_takes(rows):
    """Names have 1 to 256 characters and no control characters; a provider has no slash."""
    for row in rows:
        for name in (row["provider"], row["model"]):
            assert isinstance(name, str)
            assert 1 <= len(name) <= 256
            assert not any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in name)
        assert "/" not in row["provider"]


def test_prices_are_integers_in_range_or_null(rows):
    """A price is an integer from 0 to 10**12, no bool and no float, or null."""
    prices = [row[name] for row in rows for name in PRICES]
    assert {type(price) for price in prices} == {int, type(None)}
    known = [price for price in prices if price is not None]
    assert min(known) >= 0
    assert max(known) <= 10**12


def test_no_row_is_without_any_price(rows):
    """A row knows at least one price."""
    assert [row for row in rows if row.keys().isdisjoint({"further"})
            and all(row[name] is None for name in PRICES)] == []  # fmt: skip


def test_rows_are_sorted_and_unique(rows):
    """Rows stand in the order of provider, model and day, each once; a name's first is always."""
    keys = [(row["provider"], row["model"], row.get("effective_from", "")) for row in rows]
    assert keys == sorted(set(keys))
    assert {key[:2] for key in keys if not key[2]} == {key[:2] for key in keys}


def test_one_row_a_line(content, rows):
    """Each row has a line of its own between the brackets, and the file ends in a newline."""
    lines = content.decode().split("\n")
    assert (lines[0], lines[-2], lines[-1]) == ("[", "]", "")
    assert [json.loads(line.removesuffix(",")) for line in lines[1:-2]] == rows


def test_covers_the_market(rows):
    """The book holds more than 2000 models of at least 40 providers."""
    assert len(rows) > 2000
    assert len({row["provider"] for row in rows}) >= 40


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", "gpt-4", (30_000_000, 60_000_000, 30_000_000, None)),
        ("openai", "gpt-4o-mini", (150_000, 600_000, 75_000, None)),
        ("anthropic", "claude-3-opus-latest", (15_000_000, 75_000_000, 1_500_000, 18_750_000)),
        ("anthropic", "claude-3-haiku", (250_000, 1_250_000, 30_000, 300_000)),
    ],
)
def test_well_known_prices(book, provider, model, expected):
    """Models whose list prices have long been the same stand at those prices."""
    assert book[provider, model] == expected


def test_the_dearest_hours_hold_for_the_day(book):
    """A model with peak hours stands at its peak price."""
    assert book["deepseek", "deepseek-reasoner"] == (550_000, 2_190_000, 140_000, None)


def test_an_inexact_rate_is_the_nearest_micro(book):
    """A rate that its source holds as 0.13999999999999999 USD is 140000 micros."""
    row = book["huggingface_together", "deepseek-ai/DeepSeek-V4-Flash-0731"]
    assert row[:2] == (140_000, 280_000)


def test_the_book_takes_the_seed(content, rows):
    """The shipped file passes the reader that `prices load` uses."""
    parse_prices = pytest.importorskip("govbudget.prices.price").parse_prices
    assert [price.model_dump(mode="json") for price in parse_prices(content)] == rows


def test_the_book_says_all_that_the_prices_of_a_model_depend_on(rows):
    """Tiers with all their units, days also to come, and other processing as names of its own."""
    (sonnet,) = find_all(rows, "anthropic", "claude-sonnet-4-5")
    assert sonnet["further"] == {"cache_write_1h": 6_000_000, "web_searches": 10**10}
    assert sonnet["tiers"] == [
        {
            **dict(zip(PRICES, (6_000_000, 22_500_000, 600_000, 7_500_000), strict=True)),
            "input_above": 200_000,
            "further": {"cache_write_1h": 12_000_000, "web_searches": 10**10},
        }
    ]
    standard, batch = find_all(rows, "openai", "gpt-4o@batch")
    assert (standard["input_price"], batch["input_price"]) == (2_500_000, 1_250_000)
    assert batch["effective_from"] == "2026-10-14"
    assert any(row.get("effective_from", "") > "2026-11-28" for row in rows)
    variants = {row["model"].rpartition("@")[2] for row in rows if "@" in row["model"]}
    assert {"batch", "flex", "priority", "fast"} <= variants
    assert "default" not in variants


def test_single_prices_agree_with_the_source(book, source):
    """A model with one plain price has exactly that price, read here without the script's help."""
    from genai_prices.types import ModelPrice

    compared = 0
    for provider in source.known_providers:
        for model in provider.models:
            if not isinstance(model.prices, ModelPrice):
                continue
            rates = [getattr(model.prices, name) for name in RATES]
            if any(rate is not None and not isinstance(rate, Decimal) for rate in rates):
                continue
            row = book.get((provider.id, model.id), (None,) * 4)
            for price, rate in zip(row, rates, strict=True):
                if rate is None:
                    assert price == (row[0] if price is row[2] else None)
                else:
                    assert abs(price - rate * 1_000_000) <= Decimal("0.5")
                    compared += 1
    assert compared > 3000


def test_the_seed_is_what_the_script_makes(content, source):
    """The script makes the same bytes from the version that it names."""
    made, _ = source.make_book(source.known_providers)
    assert source.to_json(made) == content


def test_differences_are_told(source):
    """What is added, removed and changed is told by model and field, old and new."""
    always, day = source.ALWAYS, date(2026, 10, 1)
    old = {("a", "gone", always): {"input_price": 1}, ("a", "x/y", day): {"input_price": 1}}
    new = {
        ("a", "x/y", day): {"input_price": 2, "tiers": []},
        ("b", "new", always): {"input_price": None},
    }
    assert list(source.differences(old, new)) == [
        '- a/gone: {"input_price": 1}',
        "~ a/x/y from 2026-10-01: input_price 1 -> 2, tiers null -> []",
        '+ b/new: {"input_price": null}',
    ]


@pytest.mark.parametrize(
    ("rate", "micros"),
    [("0", 0), ("0.0000005000001", 1), ("0.0000025", 2), ("0.0000035", 4), ("1000000", 10**12)],
)
def test_rounding_is_half_even(source, rate, micros):
    """A rate is rounded to whole micros, a half to the even side."""
    assert source.micros(Decimal(rate)) == micros


@pytest.mark.parametrize("rate", ["-1", "1000000.0000001", "NaN", "Infinity", "0.0000005", "1E-9"])
def test_rates_that_the_book_cannot_hold(source, rate):
    """A rate out of range, or so small that rounding would make it free, is refused."""
    with pytest.raises(source.UnusableError):
        source.micros(Decimal(rate))


def test_check_fails_on_another_file(source, tmp_path, monkeypatch, capsys):
    """With --check a file that differs is status 1 and stays as it is; without, it is written."""
    seed = tmp_path / "seed.json"
    seed.write_text("[]\n")
    monkeypatch.setattr(source, "SEED", seed)
    assert source.main(["--check"]) == 1
    assert seed.read_text() == "[]\n"
    assert source.main([]) == 0
    assert source.main(["--check"]) == 0
    assert "genai-prices " in capsys.readouterr().out
