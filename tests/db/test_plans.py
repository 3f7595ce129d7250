"""A page is read in the order of an index: nothing that is stored is sorted for it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer
from tests.db.test_grants import GOVERNED, name_object
from tests.support import authorize

from govbudget.identity import PriceBook

# A report sorts what it has summed up; the limit of each member is the first of a few sorted ones.
CROSSED = ("overview.highest", "overview.crossed")
APART = {"reports.of_users", "reports.of_groups", "overview.members", *CROSSED}
PAGED = [one for one in GOVERNED.values() if ":page_size" in one.text and one.name not in APART]
NOW = datetime(2026, 11, 28, tzinfo=UTC)
FIRST = {"page_size": 50, "after": None, "at": None, "entry_id": None, "threshold": None}
FIRST |= {"provider": None, "model": None}
NEXT = {"page_size": 50, "after": UUID(int=7), "at": NOW, "entry_id": UUID(int=7), "threshold": 90}
NEXT |= {"provider": "openai", "model": "gpt-4o", "after_organization": UUID(int=7)}
NEXT |= {"limit": 50}
CLOCK = {"now": NOW}


SWEEPS = [one for one in GOVERNED.values() if one.name.startswith("notices.sweep")]


@pytest.fixture(scope="module")
def database_url(make_database, template):
    """Its own: what other tests left of statistics and of pages would change the plans."""
    return make_database(template=template)


def catch(connection, grant, statement, values):
    """Run a statement; give its text and its parameters as they are sent."""
    names = grant.unit.gov.find(statement, False, False).compile().params
    values = {name: value for name, value in values.items() if name in names}
    sent = []

    def listen(_conn, _cursor, text, parameters, _context, _many):
        sent.append((text, parameters))

    sa.event.listen(connection, "before_cursor_execute", listen)
    grant.run(statement, **values)
    sa.event.remove(connection, "before_cursor_execute", listen)
    ((text, parameters),) = sent
    return text, parameters


def explain(connection, grant, statement, values):
    """Give the plan of a statement that a grant runs."""
    text, parameters = catch(connection, grant, statement, values)
    rows = connection.exec_driver_sql("EXPLAIN " + text, parameters)
    return "\n".join(line for (line,) in rows)


def find_plan(world, statement, person, page):
    """Give the plan of a page, as if a sort and a whole table were dear."""
    with world.engine.connect() as connection:
        for kind in ("sort", "seqscan", "bitmapscan", "hashjoin", "mergejoin"):
            connection.exec_driver_sql(f"SET LOCAL enable_{kind} = off")
        asked = name_object(world, statement.kind)
        grant = authorize(connection, getattr(world, person), statement.action, **asked)
        return explain(connection, grant, statement, page | CLOCK)


def explain_kept(connection, grant, statement, values, options="COSTS OFF"):
    """Give the plan that PostgreSQL keeps for all values, and the values' places in it, by name."""
    text, parameters = catch(connection, grant, statement, values)
    query = PostgresQuery(Transformer(connection.connection.driver_connection))
    query.convert(text, parameters)
    places = {name: f"${place}" for place, name in enumerate(parameters_of(text), 1)}
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    prepare = f"PREPARE kept AS {query.query.decode()}".replace("%", "%%")
    connection.exec_driver_sql(prepare)
    given = ", ".join(f"%({name})s" for name in places)
    client = connection.connection.driver_connection
    with psycopg.ClientCursor(client) as cursor:
        rows = cursor.execute(f"EXPLAIN ({options}) EXECUTE kept ({given})", parameters).fetchall()
    connection.exec_driver_sql("DEALLOCATE kept")
    return "\n".join(line for (line,) in rows), places


def parameters_of(text):
    """List the names of the parameters of a text, in the order in which they come first."""
    return dict.fromkeys(re.findall(r"%\((\w+)\)s", text))


def test_there_are_pages_of_budgets_of_the_trail_and_of_spend():
    assert {one.name for one in PAGED} >= {"budgets.list", "audit.list", "audit.list_site"}


@pytest.mark.parametrize("page", [FIRST, NEXT], ids=["first", "next"])
@pytest.mark.parametrize("person", ["owner", "org_admin", "member"])
@pytest.mark.parametrize("statement", PAGED, ids=lambda one: one.name)
def test_a_page_is_read_in_the_order_of_an_index(world, statement, person, page):
    """However far the caller reaches. PostgreSQL sorts here only where it has to.

    The rows of one page may be sorted, after they were limited.
    """
    if (statement.action == "update" or statement.kind is PriceBook) and person != "owner":
        pytest.skip("it is not theirs to read")
    plan = find_plan(world, statement, person, page)
    _, _, limited = plan.partition("Limit")
    assert "Index" in limited, plan
    assert "Sort" not in limited, plan


@pytest.mark.parametrize("page", [FIRST, NEXT], ids=["first", "next"])
@pytest.mark.parametrize("person", ["owner", "org_admin", "member"])
@pytest.mark.parametrize("name", CROSSED)
def test_who_crossed_a_threshold_is_read_in_the_order_of_an_index(world, name, person, page):
    """And whom it skips is looked up by key. The limit of each is found after that."""
    plan = find_plan(world, GOVERNED[name], person, page | {"threshold": 90})
    before, _, skipped = plan.partition("Limit")[2].partition("ai_notices i")
    assert "ai_notices_highest_idx" in before, plan
    assert "Sort" not in before, plan
    looked_up, _, _ = skipped.partition("ai_notices h")
    by_key = {"ai_notices_key"} | (
        {"ai_notices_highest_idx"} if name == "overview.crossed" else set()
    )
    assert looked_up.rpartition("using ")[2].split()[0] in by_key, plan


@pytest.mark.parametrize("statement", [*PAGED, *SWEEPS], ids=lambda one: one.name)
def test_a_plan_that_is_kept_starts_where_the_page_does(world, statement):
    """It does not go through the rows of all pages before: the index is asked for what is past."""
    with world.engine.connect() as connection:
        world.assign(connection, "nobody", "gateway", None)
        for kind in ("seqscan", "bitmapscan"):
            connection.exec_driver_sql(f"SET LOCAL enable_{kind} = off")
        person, values = world.owner, NEXT | CLOCK
        if statement in SWEEPS:
            person, values = world.nobody, values | {"organization_id": world.a}
        asked = name_object(world, statement.kind)
        grant = authorize(connection, person, statement.action, **asked)
        plan, places = explain_kept(connection, grant, statement, values)
    for name in re.findall(r":(\w+)", statement.past[1].format(column=statement.column)):
        place = re.escape(places[name]) + r"\b"
        assert re.search(f"Index Cond: .*{place}", plan), plan
        assert not re.search(f"Filter: .*{place}", plan), plan
