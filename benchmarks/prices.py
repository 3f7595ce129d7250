"""A large batch of prices: the store, other ways to write it, and the whole PUT."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa

from benchmarks.database import fill_database, make_database
from benchmarks.handwritten import make_govbudget_app
from benchmarks.measure import Row, Spread, measure_alone, measure_pairs, say
from benchmarks.wsgi import Wsgi
from govbudget.prices.price import Price

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.database import World
    from benchmarks.measure import Effort

ROWS = {"full": 5000, "quick": 200}
COLUMNS = "provider, model, input_price, output_price, cache_read_price, cache_write_price"
AT_MOST = 1.5

_CONFLICT = """
ON CONFLICT (provider, model, source, effective_from) DO UPDATE SET
  input_price = excluded.input_price, output_price = excluded.output_price,
  cache_read_price = excluded.cache_read_price, cache_write_price = excluded.cache_write_price,
  updated_at = clock_timestamp()
WHERE (p.input_price, p.output_price, p.cache_read_price, p.cache_write_price)
  IS DISTINCT FROM (excluded.input_price, excluded.output_price, excluded.cache_read_price,
                    excluded.cache_write_price)
"""
_UPSERT = (
    f"INSERT INTO govbudget.ai_model_prices AS p (source, {COLUMNS}) "  # noqa: S608 - constants
    f"VALUES ('custom', %s, %s, %s, %s, %s, %s) {_CONFLICT}"
)
_TEMPORARY = (
    "CREATE TEMPORARY TABLE batch (provider text, model text, input_price bigint, "
    "output_price bigint, cache_read_price bigint, cache_write_price bigint) ON COMMIT DROP"
)
_FROM_TEMPORARY = (
    f"INSERT INTO govbudget.ai_model_prices AS p (source, {COLUMNS}) "  # noqa: S608 - constants
    f"SELECT 'custom', {COLUMNS} FROM batch ORDER BY provider, model {_CONFLICT}"
)


def measure_prices(effort: Effort, server: sa.URL) -> Iterator[Row]:
    """Every row changes each time, and so leaves an entry in the audit trail; or none does."""
    with ExitStack() as stack:
        url = stack.enter_context(make_database(server))
        world = fill_database(url, groups=1, users=1)
        engine = sa.create_engine(url)
        stack.callback(engine.dispose)
        text = url.set(drivername="postgresql").render_as_string(hide_password=False)
        raw = stack.enter_context(psycopg.connect(text))
        rows = ROWS[effort.name]
        few = replace(effort, rounds=max(1, effort.rounds // 4))
        for changing in (True, False):
            what = f"{rows:,} rows, {'all changed' if changing else 'none changed'}"
            store = _make_store(engine, world, rows, changing=changing)
            say(f"prices: {what}")
            alone = Spread.of([s * 1000 for s in measure_alone(store, few)])
            yield Row("prices", what, "govbudget: the store", alone, "ms")
            for name, other, bound in (
                ("COPY, then one insert", _make_copy(raw, rows, changing=changing), True),
                ("row by row", _make_row_by_row(raw, rows, changing=changing), False),
                ("the whole PUT", _make_put(engine, world, rows, changing=changing), False),
            ):
                say(f"prices: {what}, {name}")
                pairs = measure_pairs(store, other, few)
                ratio = pairs.ours_to_theirs
                bound = bound and changing  # noqa: PLW2901
                yield Row(
                    "prices", what, name, Spread.of([s * 1000 for s in pairs.theirs]), "ms",
                    ratio, "the store / it", f"<= {AT_MOST}" if bound else "",
                    ratio.median <= AT_MOST if bound else None,
                )  # fmt: skip


class _Batches:
    """Batches that differ from each other in every price, in turn, or one and the same."""

    def __init__(self, make: Callable[[int], object], *, changing: bool) -> None:
        self._batches = [make(0), make(1 if changing else 0)]
        self._turn = 0

    def next(self) -> object:
        """Give the next batch."""
        self._turn = 1 - self._turn
        return self._batches[self._turn]


# Several writers take turns on one table. Each has prices of its own, so that "all changed" and
# "none changed" hold whoever wrote last.
def _rows(provider: str, base: int, rows: int) -> list[tuple[str, str, int, int, int, None]]:
    return [
        (provider, f"model-{n:05}", base + n, base + 2 * n, base + n // 2, None)
        for n in range(rows)
    ]


def _make_store(
    engine: sa.Engine, world: World, rows: int, *, changing: bool
) -> Callable[[], None]:
    gov = make_govbudget_app(engine).extensions["govbudget"]
    batches = _Batches(
        lambda base: [
            Price(
                provider=p, model=m, input_price=i, output_price=o, cache_read_price=r,
                cache_write_price=w,
            )
            for p, m, i, o, r, w in _rows("store", base, rows)
        ],
        changing=changing,
    )  # fmt: skip

    def upsert() -> None:
        prices = batches.next()
        assert isinstance(prices, list)
        with gov.unit(world.owner, atomic=True) as unit:
            grant = unit.authorize("update", prices=True)
            result = gov.prices.upsert(grant, prices, allow_jumps=True)
        assert result.received == rows

    return upsert


def _make_put(engine: sa.Engine, world: World, rows: int, *, changing: bool) -> Callable[[], None]:
    app = make_govbudget_app(engine)
    names = COLUMNS.split(", ")

    def make(base: int) -> Wsgi:
        batch = [dict(zip(names, row, strict=True)) for row in _rows("put", base, rows)]
        body, query = json.dumps(batch).encode(), "allow_jumps=true"
        return Wsgi(app, "PUT", "/api/v2/ai/prices", world.owner, body=body, query=query)

    batches = _Batches(make, changing=changing)

    def put() -> None:
        request = batches.next()
        assert isinstance(request, Wsgi)
        request()

    return put


def _make_copy(raw: psycopg.Connection, rows: int, *, changing: bool) -> Callable[[], None]:
    batches = _Batches(lambda base: _rows("copy", base, rows), changing=changing)

    def copy() -> None:
        batch = batches.next()
        assert isinstance(batch, list)
        with raw.transaction(), raw.cursor() as cursor:
            cursor.execute(_TEMPORARY)
            with cursor.copy(f"COPY batch ({COLUMNS}) FROM STDIN") as target:
                for row in batch:
                    target.write_row(row)
            cursor.execute(_FROM_TEMPORARY)

    return copy


def _make_row_by_row(raw: psycopg.Connection, rows: int, *, changing: bool) -> Callable[[], None]:
    batches = _Batches(lambda base: _rows("rows", base, rows), changing=changing)

    def write() -> None:
        batch = batches.next()
        assert isinstance(batch, list)
        with raw.transaction(), raw.cursor() as cursor:
            for row in batch:
                cursor.execute(_UPSERT, row)

    return write
