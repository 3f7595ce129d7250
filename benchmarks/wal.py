"""What a hold and its settlement write ahead, with ids that grow with time and with random ones.

The first change of a page after a checkpoint writes the whole page into the WAL. Ids that grow put
what is new on the last pages of each index, which are written once; random ones put it anywhere.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING
from unittest.mock import patch
from uuid import UUID, uuid4

from benchmarks.database import fill_database, make_database
from benchmarks.handwritten import make_govbudget_app
from benchmarks.measure import Row, Spread, say
from benchmarks.spend import MODEL, MOST, PROVIDER, TAKEN, add_gateway
from govbudget import Call, Layout
from govbudget.db.tables import Tables
from govbudget.new_ids import make_id, write_new_id
from govbudget.server.app import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa

    from benchmarks.measure import Effort

ROWS, PAIRS = 1_500_000, 5000
QUICK_ROWS, QUICK_PAIRS = 2000, 50
AT_MOST = 0.4

# Copies of the one hold and its usage, in the order of their ids: so an index is filled in seconds.
_COPY = """
SET statement_timeout = 0;
SET lock_timeout = 0;
INSERT INTO govbudget.ai_holds SELECT {hold} FROM govbudget.ai_holds h,
  (SELECT {new_id} AS id FROM generate_series(1, {rows}) ORDER BY 1) n;
INSERT INTO govbudget.ai_usage SELECT {usage} FROM govbudget.ai_usage u, govbudget.ai_holds h
  WHERE h.id <> u.hold_id ORDER BY h.id;
VACUUM (FREEZE, ANALYZE);
CHECKPOINT
"""


def measure_wal(effort: Effort, server: sa.URL) -> Iterator[Row]:
    """Compare the bytes of WAL of a pair, in a database of its own for each kind of id."""
    is_quick = effort.name == "quick"
    rows, pairs = (QUICK_ROWS, QUICK_PAIRS) if is_quick else (ROWS, PAIRS)
    grown = _measure(server, rows, pairs, make_id, write_new_id)
    chance = _measure(server, rows, pairs, lambda _: uuid4(), lambda _: "gen_random_uuid()")
    what = f"hold and settle, {pairs:,} pairs after a checkpoint at {rows:,} rows"
    ratio = grown / chance
    yield Row(
        "wal", what, "ids that grow", Spread.of([grown]), "bytes", Spread.of([ratio]),
        "growing / random ids", f"<= {AT_MOST}", None if is_quick else ratio <= AT_MOST,
    )  # fmt: skip
    yield Row("wal", what, "random ids", Spread.of([chance]), "bytes")


def _measure(
    server: sa.URL,
    rows: int,
    pairs: int,
    make: Callable[[UUID], UUID],
    write: Callable[[str], str],
) -> float:
    """Give the bytes of a pair: one thread, users in turn, an event that is named as its hold."""
    with ExitStack() as stack:
        url = stack.enter_context(make_database(server))
        world = fill_database(url, groups=100, users=1000)
        engine = make_engine(url, 1)
        stack.callback(engine.dispose)
        users = add_gateway(engine, world)
        gov = make_govbudget_app(engine).extensions["govbudget"]
        stack.enter_context(patch("govbudget.spend.store.make_id", make))
        unit = stack.enter_context(gov.unit(world.stranger))
        grant = unit.authorize("create", ledger=True)

        def work(number: int) -> None:
            user = users[number % len(users)]
            call = Call(world.organization, user, PROVIDER, MODEL)
            hold = gov.spend.hold(grant, call, MOST)
            gov.spend.settle(grant, hold.id, str(hold.id), TAKEN)

        work(0)
        say(f"wal: {rows:,} rows")
        _fill(unit.connection, rows, write("h.organization_id"))
        start = _read_position(unit.connection)
        for number in range(pairs):
            work(number)
        return (_read_position(unit.connection) - start) / pairs


def _fill(connection: sa.Connection, rows: int, new_id: str) -> None:
    tables = Tables(Layout())
    hold = _list_columns(tables.ai_holds, "h", id="n.id")
    usage = _list_columns(tables.ai_usage, "u", event_id="CAST(h.id AS text)", hold_id="h.id")
    new_id = new_id.replace("h.organization_id", "(SELECT organization_id FROM govbudget.ai_holds)")
    sql = _COPY.format(hold=hold, usage=usage, new_id=new_id, rows=rows)
    for statement in sql.split(";\n"):
        connection.exec_driver_sql(statement)


def _list_columns(table: sa.Table, of: str, **others: str) -> str:
    return ", ".join(others.get(column.name, f"{of}.{column.name}") for column in table.columns)


def _read_position(connection: sa.Connection) -> float:
    found = connection.exec_driver_sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    return float(found.scalar_one())
