"""prices: what load, show, remove and gaps do, what they print, and their statuses."""

from __future__ import annotations

import csv
import io
import json
from datetime import date
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.audit.support import read_entries
from tests.support import TABLES

from govbudget.prices.price import read_shipped_prices

pytestmark = pytest.mark.slow

PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")


def price(model, *values):
    return {"provider": "acme", "model": model, **dict(zip(PRICES, values, strict=True))}


@pytest.fixture
def load(here):
    """Load rows with options."""

    def load(*rows, options=()):
        return here("prices", "load", "-", *options, stdin=json.dumps(rows).encode())

    return load


@pytest.fixture
def show(here):
    """Give what is shown of a model."""

    def show(model):
        return json.loads(here("prices", "show", "acme", model).out)

    return show


@pytest.fixture
def model():
    return f"meta/{uuid4()}"


CUSTOM = ("--source", "custom")


# -- load and show --


def test_prices_are_loaded_and_shown(load, show, model):
    row = price(model, 3_000_000, 15_000_000, 0, None)
    loaded = load(row)
    assert (loaded.status, loaded.out, loaded.err) == (0, "1 received, 1 changed\n", "")
    assert load(row).out == "1 received, 0 changed\n"
    four = {name: row[name] for name in PRICES}
    assert show(model) == {**row, "in_force": "book", "custom": None, "book": four}


def test_a_wrong_row_is_named_and_nothing_is_loaded(load, here, model):
    result = load(price(model, 1, 1, 1, 1), price(f"{model}-2", 1.5, 1, 1, 1))
    assert (result.status, result.out) == (2, "")
    assert "/1/input_price: " in result.err
    assert here("prices", "show", "acme", model).status == 1


def test_an_unknown_price_is_status_1(here):
    result = here("prices", "show", "acme", "none")
    assert result.status == 1
    assert "`acme` `none`" in result.sentence
    assert "`govbudget prices load --shipped`" in result.sentence


def test_a_custom_price_is_in_force_whatever_the_book_loads(load, show, model):
    load(price(model, 10, 10, 10, 10))
    assert load(price(model, 20, None, 10, 10), options=CUSTOM).out == "1 received, 1 changed\n"
    load(price(model, 30, 30, 30, 30))
    shown = show(model)
    assert (shown["in_force"], shown["input_price"], shown["output_price"]) == ("custom", 20, None)
    assert shown["book"]["input_price"] == 30
    assert shown["custom"]["input_price"] == 20


# -- the shipped book --


def test_the_shipped_book_is_loaded_as_a_file_is(run, empty_url):
    """The dry run, the source and the sums are those of a file."""
    assert run("db", "upgrade", database_url=empty_url).status == 0
    rows = json.loads(read_shipped_prices())
    received = len(rows)
    dry = run("prices", "load", "--shipped", "--dry-run", database_url=empty_url)
    assert dry.out.endswith(f"{received} new, 0 changed, 0 unchanged; nothing is written\n")
    loaded = run("prices", "load", "--shipped", database_url=empty_url)
    assert (loaded.status, loaded.err) == (0, "")
    assert loaded.out == f"{received} received, {received} changed\n"
    again = run("prices", "load", "--shipped", *CUSTOM, database_url=empty_url)
    assert again.out == f"{received} received, {received} changed\n"
    name = (rows[0]["provider"], rows[0]["model"])
    shown = json.loads(run("prices", "show", *name, database_url=empty_url).out)
    assert (shown["in_force"], shown["book"]["input_price"]) == ("custom", rows[0]["input_price"])


@pytest.mark.parametrize("arguments", [(), ("-", "--shipped")], ids=["neither", "both"])
def test_a_load_wants_a_file_or_the_shipped_book_and_not_both(here, arguments):
    """It is refused before a database is asked for."""
    result = here("prices", "load", *arguments, stdin=b"[]")
    assert result.status == 2
    assert result.sentence.startswith("name a FILE or --shipped, and not both. See `")


# -- the dry run --


def test_a_dry_run_tells_what_a_load_would_change_and_writes_nothing(load, here, show, engine):
    tag = uuid4()
    load(price(f"{tag}/a", 1, 2, 3, None), price(f"{tag}/b", 1, 1, 1, 1))
    rows = (
        price(f"{tag}/b", 1, 1, 1, 1),
        price(f"{tag}/c", 5, None, 0, 7),
        price(f"{tag}/a", 4, 2, 1, 6),
    )
    told = load(*rows, options=["--dry-run"])
    assert (told.status, told.err) == (0, "")
    a = f"acme/{tag}/a"
    assert told.out.splitlines() == [
        f"+ {a[:-1]}c: input_price 5, output_price null, cache_read_price 0, cache_write_price 7",
        f"~ {a}: input_price 1 -> 4, cache_read_price 3 -> 1, cache_write_price null -> 6",
        "1 new, 1 changed, 1 unchanged; nothing is written",
    ]
    assert here("prices", "show", "acme", f"{tag}/c").status == 1
    assert show(f"{tag}/a")["input_price"] == 1
    assert len(read_entries(engine, f"acme/{tag}/a")) == 1
    assert load(*rows).out == "3 received, 2 changed\n", "the load does what was told"


def test_a_dry_run_of_a_load_that_would_be_refused_is_refused_alike(load, model):
    load(price(model, 1000, 1, 1, 1))
    result = load(price(model, 1, 1, 1, 1), options=["--dry-run"])
    assert result.status == 2
    assert f"~ acme/{model}: input_price 1000 -> 1\n" in result.out
    assert "--allow-jumps" in result.err
    assert load(price(model, 1, 1, 1, 1), options=["--dry-run", "--allow-jumps"]).status == 0


# -- the guard --


def test_prices_in_another_unit_are_refused_all_or_nothing_naming_both(load, show):
    tag = uuid4()
    load(*(price(f"{tag}/{name}", 150_000, 600_000, None, 0) for name in "abc"))
    result = load(
        price(f"{tag}/a", 150_001, 600_000, None, 0),
        price(f"{tag}/b", 150_000_000_000, 600_000, None, 0),
        price(f"{tag}/c", 150_000, 600, None, 0),
    )
    assert (result.status, result.out) == (2, "")
    assert result.err.splitlines()[1:] == [
        f"  /1/input_price: `acme` `{tag}/b` would go from 150000 to 150000000000",
        f"  /2/output_price: `acme` `{tag}/c` would go from 600000 to 600",
    ]
    assert [show(f"{tag}/{name}")["input_price"] for name in "abc"] == [150_000] * 3


def test_a_jump_that_is_meant_is_taken(load, show, model):
    load(price(model, 1, 1, 1, 1))
    assert load(price(model, 21, 1, 1, 1), options=["--allow-jumps"]).status == 0
    assert show(model)["input_price"] == 21


@pytest.mark.parametrize(("old", "new"), [(1, 20), (20, 1), (None, 10**12), (10**12, None)])
def test_what_is_no_jump_is_loaded(load, model, old, new):
    """Twenty times is allowed, and null has no factor."""
    load(price(model, old, 1, 1, 1))
    assert load(price(model, new, 1, 1, 1)).out == "1 received, 1 changed\n"


def test_to_free_is_a_jump_and_from_free_is_not(load, model):
    load(price(model, 0, 1, 1, 1))
    assert load(price(model, 10**12, 1, 1, 1)).out == "1 received, 1 changed\n"
    for options in ([], ["--dry-run"]):
        refused = load(price(model, 0, 1, 1, 1), options=options)
        assert (refused.status, "would go from 1000000000000 to 0" in refused.err) == (2, True)


def test_a_new_custom_price_is_compared_with_the_books_and_then_with_itself(load, model):
    load(price(model, 1000, 1, 1, 1))
    first = load(price(model, 1, 1, 1, 1), options=CUSTOM)
    assert (first.status, "would go from 1000 to 1\n" in first.err) == (2, True)
    assert load(price(model, 1, 1, 1, 1), options=[*CUSTOM, "--allow-jumps"]).status == 0
    assert load(price(model, 2, 1, 1, 1), options=CUSTOM).status == 0
    assert load(price(model, 1001, 1, 1, 1)).status == 0, "the book goes on with its own"
    assert load(price(model, 2000, 1, 1, 1), options=CUSTOM).status == 2


# -- remove --


def test_a_removed_custom_price_gives_way_to_the_books_and_leaves_one_entry(
    load, here, show, model, engine
):
    load(price(model, 1, 2, 3, None))
    load(price(model, 4, 4, 4, 4), options=CUSTOM)
    result = here("prices", "remove", "acme", model)
    assert (result.status, result.err) == (0, "")
    assert result.out == f"removed the custom price of `acme` `{model}`\n"
    assert (show(model)["in_force"], show(model)["input_price"]) == ("book", 1)
    entry = read_entries(engine, f"acme/{model}")[-1]
    assert len(read_entries(engine, f"acme/{model}")) == 3
    assert entry.before == {
        "source": "custom",
        "effective_from": "0001-01-01",
        "more": None,
        **dict.fromkeys(PRICES, 4),
    }
    assert (entry.after, entry.organization_id) == (None, None)
    assert (entry.receipt["actor"], entry.receipt["cause"]) == ("operator", "command")
    assert entry.receipt["lines"]


def test_without_a_custom_price_there_is_nothing_to_remove(load, here, show, model, engine):
    load(price(model, 1, 2, 3, None))
    result = here("prices", "remove", "acme", model)
    assert (result.status, f"`acme` `{model}`" in result.sentence) == (1, True)
    assert show(model)["input_price"] == 1
    assert len(read_entries(engine, f"acme/{model}")) == 1


# -- gaps --


def use(engine, model, *counts, cost=None, provider="acme"):
    """Book a call without prices, or, where it has a cost, with all of them."""
    used = zip(("input", "output", "cache_read", "cache_write"), counts, strict=True)
    row = dict(zip(TOKENS, counts, strict=True))
    row |= dict.fromkeys(PRICES, None if cost is None else 1)
    row |= {"unpriced": [name for name, count in used if count] if cost is None else None}
    row |= {"organization_id": uuid4(), "event_id": "e", "user_id": uuid4(), "cost_picos": cost}
    row |= {"provider": provider, "model": model}
    row |= {"period": date(2026, 11, 1), "day": date(2026, 11, 2)}
    with engine.begin() as connection:
        connection.execute(sa.insert(TABLES.ai_usage), row)


@pytest.fixture
def usage(engine):
    """An engine on a ledger that is empty before and after."""
    yield engine
    with engine.begin() as connection:
        connection.execute(sa.delete(TABLES.ai_usage))


def test_gaps_are_models_used_without_a_price_the_most_used_first(here, load, usage):
    tag = str(uuid4())
    load(price(f"{tag}/half", 1, None, None, 0))
    use(usage, f"{tag}/unknown", 1, 2, 0, 0)
    for _ in range(2):
        use(usage, f"{tag}/half", 10**12, 5, 7, 9)
    use(usage, f"{tag}/half", 3, 0, 0, 1)  # nothing that it needs is missing now
    use(usage, f"{tag}/priced", 1, 1, 1, 1, cost=4)
    use(usage, "=1+1", 1, 0, 0, 0, provider="@evil")
    found = json.loads(here("prices", "gaps", "--format", "json").out)
    assert [(gap["model"], gap["calls"]) for gap in found] == [
        (f"{tag}/half", 3),
        ("=1+1", 1),
        (f"{tag}/unknown", 1),
    ]
    assert [found[0][name] for name in TOKENS] == [2 * 10**12 + 3, 10, 14, 19]
    assert found[0]["unpriced"] == ["input", "output", "cache_read", "cache_write"]
    assert found[0]["missing"] == ["output_price", "cache_read_price"]
    assert found[2]["missing"] == ["input_price", "output_price"]
    text = here("prices", "gaps").out.splitlines()
    assert text[2] == (
        f"acme/{tag}/unknown: 1 calls stay unpriced; tokens: 1 input, 2 output, 0 cache_read,"
        " 0 cache_write; had no price: input, output; missing now: input_price, output_price"
    )
    header, first, hostile, _ = csv.reader(
        io.StringIO(here("prices", "gaps", "--format", "csv").out)
    )
    more = ("unpriced", "missing", "further_tokens")
    assert header == ["provider", "model", "calls", *TOKENS, *more]
    assert first == [
        *("acme", f"{tag}/half", "3", "2000000000003", "10", "14", "19"),
        '["input", "output", "cache_read", "cache_write"]',
        '["output_price", "cache_read_price"]',
        "{}",
    ]
    assert hostile[:2] == ["'@evil", "'=1+1"]


@pytest.mark.parametrize("options", [(), CUSTOM], ids=["book", "custom"])
def test_a_price_that_was_added_since_is_not_missing_and_the_calls_stay_unpriced(
    here, load, usage, model, options
):
    assert here("prices", "gaps").out == "every call that was recorded has a price\n"
    use(usage, model, 1, 0, 0, 0)
    assert "had no price: input; missing now: input_price\n" in here("prices", "gaps").out
    load(price(model, 5, None, None, None), options=options)
    assert here("prices", "gaps").out == (
        f"acme/{model}: 1 calls stay unpriced; tokens: 1 input, 0 output, 0 cache_read,"
        " 0 cache_write; had no price: input; missing now: none\n"
    )
    (gap,) = json.loads(here("prices", "gaps", "--format", "json").out)
    assert (gap["unpriced"], gap["missing"]) == (["input"], [])


def test_a_custom_price_with_a_null_is_the_gap_whatever_the_book_says(here, load, usage, model):
    """The price in force is one source's, never a mixture."""
    load(price(model, 5, 5, 5, 5))
    load(price(model, 5, None, 5, 5), options=CUSTOM)
    use(usage, model, 1, 1, 0, 0)
    (gap,) = json.loads(here("prices", "gaps", "--format", "json").out)
    assert gap["missing"] == ["output_price"]


# -- days --


def test_history_shows_all_days_and_which_price_is_in_force(here, load, model):
    book = [
        price(model, 10, 20, None, None),
        price(model, 11, 20, None, None) | {"effective_from": "2026-01-01"},
        price(model, 12, 20, None, None) | {"effective_from": "2999-01-01"},
    ]
    load(*book)
    load(price(model, 9, 20, None, None) | {"effective_from": "2998-01-01"}, options=CUSTOM)
    shown = here("prices", "history", "acme", model)
    assert [line.split("  input_price")[0].split() for line in shown.out.splitlines()] == [
        ["to", "come", "custom", "from", "2998-01-01"],
        ["to", "come", "book", "from", "2999-01-01"],
        ["in", "force", "book", "from", "2026-01-01"],
        ["replaced", "book", "always"],
    ]
    rows = json.loads(here("prices", "history", "acme", model, "--format", "json").out)
    assert [(row["state"], row["input_price"]) for row in rows] == [
        *[("to come", 9), ("to come", 12)],
        *[("in force", 11), ("replaced", 10)],
    ]
    assert here("prices", "history", "acme", "unknown").status == 1


def test_a_dry_run_shows_what_a_newer_book_adds_changes_and_removes(load, model):
    further = {"further": {"web_searches": 5}}
    load(
        price(model, 10, 20, None, None),
        price(model, 11, 20, None, None) | {"effective_from": "2026-01-01"},
    )
    new = [
        price(model, 10, 20, None, None) | further,
        price(model, 500, 20, None, None) | {"effective_from": "2026-02-01"},
    ]
    shown = load(*new, options=("--dry-run",))
    lines = shown.out.splitlines()
    assert lines[0].startswith(f"+ acme/{model} from 2026-02-01: input_price 500")
    assert lines[1] == f"~ acme/{model}: further/web_searches null -> 5"
    assert lines[2].startswith(f"- acme/{model} from 2026-01-01: input_price 11")
    assert lines[3] == "1 new, 1 changed, 1 removed, 0 unchanged; nothing is written"
    assert shown.status == 2
    assert "price-jump" in shown.err or "factor of 20" in shown.err
    assert load(*new, options=("--allow-jumps",)).out == "2 received, 2 changed\n"
    assert (
        load(*new, options=("--dry-run",)).out
        == "0 new, 0 changed, 2 unchanged; nothing is written\n"
    )


def test_show_says_by_which_rule_a_name_is_known(here, load):
    load(price("x", 1, 2, 3, None) | {"provider": "anthropic", "model": "claude-sonnet-4-5"})
    found = json.loads(here("prices", "show", "anthropic", "claude-sonnet-4-5-20250929").out)
    assert (found["model"], found["input_price"]) == ("claude-sonnet-4-5-20250929", 1)
    assert found["priced_as"] == {"provider": "anthropic", "model": "claude-sonnet-4-5"}
    assert found["rule"].startswith("`claude-sonnet-4-5` starts it")
    assert here("prices", "show", "anthropic", "claude-sonnet-4-5-turbo").status == 1
