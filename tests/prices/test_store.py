"""The price book in the database: one statement a batch, all or nothing, no needless write."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import given, settings, strategies as st
from tests.budgets.support import run_together, running, watch
from tests.support import TABLES, authorize, count_statements, names_budget_table

from govbudget import InvalidInput, NotFound
from govbudget.prices.price import Price, parse_prices, read_shipped_prices
from govbudget.prices.store import Prices, PriceSource

TABLE = TABLES.ai_model_prices
PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")


def make(provider, model="m", prices=(1, 2, 3, 4)):
    return Price(provider=provider, model=model, **dict(zip(PRICES, prices, strict=True)))


def upsert(connection, world, *prices, **options):
    grant = authorize(connection, world.owner, "update", prices=True)
    result = Prices.upsert(grant, prices, **options)
    return result.received, result.changed


def get(connection, world, provider, model="m"):
    grant = authorize(connection, world.owner, "read", prices=True)
    return Price(**Prices.get(grant, provider, model).model_dump())


def rows(connection, provider):
    found = connection.execute(
        sa.select(TABLE).where(TABLE.c.provider == provider).order_by(TABLE.c.model)
    )
    return {row.model: row for row in found}


def test_what_was_stored_is_got(connection, world, provider):
    price = make(provider)
    assert upsert(connection, world, price) == (1, 1)
    assert get(connection, world, provider) == price


@pytest.mark.parametrize("model", ["other", "M", "m ", ""])
def test_a_model_that_is_not_in_the_book_is_not_found(connection, world, provider, model):
    upsert(connection, world, make(provider))
    with pytest.raises(NotFound) as caught:
        get(connection, world, provider, model)
    assert caught.value.code == "price-not-found"


def test_prices_that_are_not_known_are_sql_nulls(connection, world, provider):
    """Not a JSON null, not a zero, not a text; in each of the four columns."""
    batch = [make(provider, str(n), [None if i == n else 0 for i in range(4)]) for n in range(4)]
    upsert(connection, world, *batch, make(provider, "none", [None] * 4))
    for n, name in enumerate(PRICES):
        unknown = sa.select(TABLE.c.model).where(
            TABLE.c.provider == provider, TABLE.c[name].is_(None)
        )
        assert set(connection.scalars(unknown)) == {str(n), "none"}
    assert get(connection, world, provider, "2") == batch[2]


def test_only_a_price_that_changed_is_written(connection, world, provider):
    """Counted, and with `updated_at` moved; `created_at` stays; null and 0 are not the same."""
    upsert(
        connection,
        world,
        make(provider, "same"),
        make(provider, "more"),
        make(provider, "known", [None, 2, 3, 4]),
        make(provider, "unknown", [1, 2, 3, 0]),
        make(provider, "null", [None] * 4),
        make(provider, "absent"),
    )
    before = rows(connection, provider)
    received_changed = upsert(
        connection,
        world,
        make(provider, "same"),
        make(provider, "more", [1, 2, 3, 5]),
        make(provider, "known", [0, 2, 3, 4]),
        make(provider, "unknown", [1, 2, 3, None]),
        make(provider, "null", [None] * 4),
        make(provider, "new"),
    )
    assert received_changed == (6, 4)
    after = rows(connection, provider)
    assert set(after) - set(before) == {"new"}
    for model, row in before.items():
        assert after[model].created_at == row.created_at
        if model in {"same", "null", "absent"}:
            assert after[model] == row
        else:
            assert after[model].updated_at > row.updated_at


@pytest.mark.parametrize("name", PRICES)
def test_a_change_of_any_one_price_is_a_change(connection, world, provider, name):
    price = make(provider)
    upsert(connection, world, price)
    for value in (9, None, 0):
        changed = price.model_copy(update={name: value})
        assert upsert(connection, world, changed) == (1, 1)
        assert upsert(connection, world, changed) == (1, 0)
        assert get(connection, world, provider) == changed


def test_a_batch_is_one_statement_and_so_is_a_look_up(connection, engine, world, provider):
    write = authorize(connection, world.owner, "update", prices=True)
    read = authorize(connection, world.owner, "read", prices=True)
    batch = [make(provider, str(n)) for n in range(50)]
    with count_statements(engine) as sent:
        Prices.upsert(write, batch)
        Prices.get(read, provider, "7")
        Prices.upsert(write, [])
    assert len(sent) == 3
    assert all(names_budget_table(statement) for statement in sent)


@pytest.mark.slow
def test_five_thousand_rows_go_in_one_statement(connection, engine, world, provider):
    grant = authorize(connection, world.owner, "update", prices=True)
    batch = [make(provider, f"model {n}", [n, None, n % 7, 10**12]) for n in range(5000)]
    with count_statements(engine) as sent:
        results = [Prices.upsert(grant, batch) for _ in range(2)]
    assert [(result.received, result.changed) for result in results] == [(5000, 5000), (5000, 0)]
    assert len(sent) == 2
    assert get(connection, world, provider, "model 4999") == batch[4999]
    assert len(rows(connection, provider)) == 5000


def test_an_empty_batch_changes_nothing(connection, world):
    before = connection.scalar(sa.select(sa.func.count()).select_from(TABLE))
    assert upsert(connection, world) == (0, 0)
    assert connection.scalar(sa.select(sa.func.count()).select_from(TABLE)) == before


def test_a_model_twice_in_a_batch_is_refused_by_name_and_without_a_statement(
    connection, engine, world, provider
):
    grant = authorize(connection, world.owner, "update", prices=True)
    batch = [make(provider, "a"), make(provider, "b"), make(provider, "a", [9, 9, 9, 9])]
    with count_statements(engine) as sent, pytest.raises(InvalidInput) as caught:
        Prices.upsert(grant, batch)
    assert sent == []
    assert [error.pointer for error in caught.value.errors] == ["/0", "/2"]
    assert all(f"`{provider}` `a`" in error.detail for error in caught.value.errors)


def test_a_batch_with_one_price_that_the_database_refuses_stores_none(connection, world, provider):
    """All or nothing, also where a value was made around the checks."""
    bad = make(provider, "b").model_copy(update={"input_price": -1})
    savepoint = connection.begin_nested()
    with pytest.raises(sa.exc.IntegrityError):
        upsert(connection, world, make(provider, "a"), bad, make(provider, "c"))
    savepoint.rollback()
    assert rows(connection, provider) == {}


def test_the_transaction_is_the_callers(connection, engine, world, provider):
    write = authorize(connection, world.owner, "update", prices=True)
    read = authorize(connection, world.owner, "read", prices=True)
    with watch(engine) as seen:
        Prices.upsert(write, [make(provider)])
        Prices.get(read, provider, "m")
        with pytest.raises(NotFound):
            Prices.get(read, provider, "unknown")
    assert seen == []
    savepoint = connection.begin_nested()
    Prices.upsert(write, [make(provider, prices=[9, 9, 9, 9])])
    savepoint.rollback()
    assert get(connection, world, provider) == make(provider)
    connection.rollback()
    assert rows(connection, provider) == {}


HOSTILE = [
    "'; DROP TABLE govbudget.ai_model_prices; --",
    "\"double\" 'single' `back`",
    "back\\slash \\n \\u0041 \\\\",
    "openrouter/meta/muse-spark",
    "//../..//",
    "{curly} %(percent)s :colon ?",
    "模型 élan 🦙 ﷽",
    "e\u0301 is not \u00e9",
    "\u202eright to left",
    " spaces ",
    "null",
    "\U0010ffff" * 256,
]


def test_hostile_names_come_back_as_they_went(connection, world, provider):
    """Quotes, backslashes, slashes, other scripts, and the longest there can be."""
    batch = [make(provider, name, [n, 0, None, 1]) for n, name in enumerate(HOSTILE)]
    batch += [make(name.replace("/", "|"), name) for name in HOSTILE]
    assert upsert(connection, world, *batch) == (len(batch), len(batch))
    for price in batch:
        assert get(connection, world, price.provider, price.model) == price
    assert upsert(connection, world, *batch) == (len(batch), 0)


@pytest.mark.slow
def test_the_packaged_seed_loads(connection, world):
    batch = parse_prices(read_shipped_prices())
    assert upsert(connection, world, *batch) == (len(batch), len(batch))
    assert upsert(connection, world, *reversed(batch)) == (len(batch), 0)
    (price,) = [one for one in batch if one.key[:2] == ("openai", "gpt-5.4")]
    assert get(connection, world, price.provider, price.model) == price


@pytest.mark.slow
def test_batches_in_opposite_order_do_not_deadlock(engine, world, provider):
    """Each takes its locks in the order of the keys, whatever the order of its rows."""

    def work(number):
        batch = [make(provider, str(n), [number, n, 0, 0]) for n in range(400)]
        batch = batch if number % 2 else batch[::-1]

        def run(connection):
            grant = authorize(connection, world.owner, "update", prices=True)
            yield
            return Prices.upsert(grant, batch).changed

        return run

    for first in (1, 11, 21):  # no price falls to 0, nor moves by more than the factor
        results = run_together(engine, [work(first + n) for n in range(4)])
        assert results == [400] * 4
    with engine.connect() as connection:
        stored = rows(connection, provider).values()
    assert len({row.input_price for row in stored}) == 1


def test_a_batch_waits_for_another_and_then_compares_with_what_that_one_wrote(
    engine, world, provider
):
    """No change is lost, and equal prices that another batch wrote meanwhile are not a change."""
    with engine.begin() as connection:
        upsert(connection, world, make(provider, "a"), make(provider, "b"))
    new = [make(provider, "a", [9, 9, 9, 9]), make(provider, "c")]
    with engine.connect() as other:
        upsert(other, world, *new)
        with running(engine, lambda connection: upsert(connection, world, *new)) as future:
            assert not future.done()
            other.commit()
            assert future.result() == (2, 0)


# -- the guard against jumps --


@pytest.mark.parametrize(
    ("old", "new"), [(3_000_000, 3), (3_000_000, 10**12), (1, 0), (21, 1), (1, 21)]
)
def test_to_free_is_a_jump_too(connection, world, provider, old, new):
    upsert(connection, world, make(provider, prices=[old, 1, 1, 1]))
    with pytest.raises(InvalidInput, match="more than a factor of 20"):
        upsert(connection, world, make(provider, prices=[new, 1, 1, 1]))


@pytest.mark.parametrize(
    ("old", "new"), [(0, 10**12), (None, 10**12), (10**12, None), (None, 0), (1, 20), (20, 1)]
)
def test_from_free_and_from_and_to_unknown_is_no_jump(connection, world, provider, old, new):
    upsert(connection, world, make(provider, prices=[old, 1, 1, 1]))
    assert upsert(connection, world, make(provider, prices=[new, 1, 1, 1])) == (1, 1)


def test_a_guarded_batch_is_one_statement_whether_it_jumps_or_not(
    connection, engine, world, provider
):
    write = authorize(connection, world.owner, "update", prices=True)
    upsert(connection, world, make(provider))
    with count_statements(engine) as sent:
        Prices.upsert(write, [make(provider, prices=[2, 2, 3, 4])])
        with pytest.raises(InvalidInput):
            Prices.upsert(write, [make(provider, prices=[99, 2, 3, 4])])
    assert len(sent) == 2


def test_many_jumps_are_counted_and_the_first_50_named(connection, world, provider):
    upsert(connection, world, *(make(provider, str(n)) for n in range(200)))
    batch = [make(provider, str(n), [100, 2, 3, 4]) for n in range(200)]
    with pytest.raises(InvalidInput, match="200 prices") as caught:
        upsert(connection, world, *batch)
    assert [error.pointer for error in caught.value.errors] == [
        f"/{n}/input_price" for n in range(50)
    ]


def test_a_jump_is_measured_from_when_the_statement_began(engine, world, provider):
    """The model was new then; somebody else wrote it while the batch waited."""
    batch = [make(provider, "a"), make(provider, "b", [1000, 1, 1, 1])]
    with engine.connect() as other:
        upsert(other, world, make(provider, "b", [1, 1, 1, 1]))
        with running(engine, lambda connection: upsert(connection, world, *batch)) as future:
            assert not future.done()
            other.commit()
            assert future.result() == (2, 2)


def test_loads_without_jumps_go_on_beside_one_another(engine, world, provider):
    """What two batches both set is no jump, and neither deadlocks with the other."""

    def work(number):
        batch = [make(provider, str(n), [10 + number, n, 0, None]) for n in range(100)]
        batch = batch if number % 2 else batch[::-1]

        def run(connection):
            grant = authorize(connection, world.owner, "update", prices=True)
            yield
            return Prices.upsert(grant, batch, source=PriceSource.BOOK).received

        return run

    assert run_together(engine, [work(n) for n in range(4)]) == [100] * 4


def test_readers_see_a_whole_batch_or_none_of_it(engine, world, provider):
    def write():
        for number in range(1, 15):
            with engine.begin() as connection:
                batch = [make(provider, str(n), [number] * 4) for n in range(20)]
                upsert(connection, world, *batch)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(write)
        while not future.done():
            with engine.connect() as connection:
                stored = rows(connection, provider).values()
            assert len({row.output_price for row in stored}) <= 1
            assert len(stored) in {0, 20}
        future.result()


# -- against a model: the table is a dictionary --

NAMES = st.sampled_from(["a", "A", "a/b", "it's", 'q"', "back\\", "é", "e\u0301", "🦙", " ", "%s"])
ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=8
)
AMOUNTS = st.none() | st.sampled_from([0, 1, 10**12]) | st.integers(0, 10**12)
BATCHES = st.lists(
    st.dictionaries(NAMES | ANY_TEXT, st.tuples(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS), max_size=5),
    min_size=1,
    max_size=4,
)


@given(batches=BATCHES)
def test_any_batches_leave_what_a_dictionary_would_hold(engine, batches):
    """Rows, counts, and exactly the times of exactly the models that changed."""
    check_against_a_dictionary(engine, batches)


@pytest.mark.long
@given(batches=BATCHES)
@settings(max_examples=100, deadline=None)
def test_hundreds_of_batches_leave_what_a_dictionary_would_hold(engine, batches):
    check_against_a_dictionary(engine, batches)


def add_owner(connection):
    """Add somebody who owns the site, for this transaction."""
    owner = uuid4()
    connection.execute(sa.insert(TABLES.users), {"id": owner, "name": "the owner"})
    row = {"id": uuid4(), "user_id": owner, "role": "owner"}
    connection.execute(sa.insert(TABLES.role_assignments), row)
    return SimpleNamespace(owner=owner)


EDGES = st.sampled_from([None, 0, 1, 20, 21, 10**12 // 20, 10**12]) | st.integers(0, 500)
FOUR = st.tuples(*[EDGES] * 4)


@given(old=FOUR, new=FOUR)
def test_exactly_what_moves_by_more_than_a_factor_of_20_is_refused_and_named(engine, old, new):
    """As integers say it, in the statement as in the sentence; of 0 and null see below."""
    jumping = [
        name
        for name, a, b in zip(PRICES, old, new, strict=True)
        if a and b is not None and max(a, b) > 20 * min(a, b)
    ]
    with engine.connect() as connection:
        world, one = add_owner(connection), f"provider {uuid4()}"
        upsert(connection, world, make(one, prices=old))
        batch = [make(one, "new"), make(one, prices=new)]
        if not jumping:
            assert upsert(connection, world, *batch) == (2, 1 + (old != new))
            return
        with pytest.raises(InvalidInput) as caught:
            upsert(connection, world, *batch)
        assert caught.value.code == "price-jump"
        assert [error.pointer for error in caught.value.errors] == [f"/1/{n}" for n in jumping]
        assert set(rows(connection, one)) == {"m"}, "all or nothing"
        assert get(connection, world, one) == make(one, prices=old)
        assert upsert(connection, world, *batch, allow_jumps=True) == (2, 2)


def check_against_a_dictionary(engine, batches):
    book, before = {}, {}
    with engine.connect() as connection:
        owner, provider = add_owner(connection), f"provider {uuid4()}"
        for batch in batches:
            different = {model for model, prices in batch.items() if book.get(model) != prices}
            prices = [make(provider, model, prices) for model, prices in batch.items()]
            assert upsert(connection, owner, *prices, allow_jumps=True) == (
                len(batch),
                len(different),
            )
            book |= batch
            after = rows(connection, provider)
            stored = {
                model: tuple(getattr(row, name) for name in PRICES) for model, row in after.items()
            }
            assert stored == book
            for model, row in after.items():
                if model not in different:
                    assert row == before[model]
                elif model in before:
                    assert row.created_at == before[model].created_at
                    assert row.updated_at > before[model].updated_at
            before = after
