"""Whoever writes to the tables directly leaves entries too, and nobody changes the log itself."""

from __future__ import annotations

from contextlib import contextmanager
from uuid import uuid4

import psycopg.errors
import pytest
import sqlalchemy as sa
from tests.audit.support import (
    find_broken_stories,
    limit,
    read_entries,
    read_only_entry,
    read_story,
)
from tests.budgets.support import delete_orphans, set_budget
from tests.support import TABLES, budget_path, make_gov
from tests.web.helpers import put_limit

from govbudget import Layout, SqlDirectory
from govbudget.budgets.store import Budgets
from govbudget.db.tables import Tables
from govbudget.ids import IdType
from govbudget.migrations import find_differences, upgrade

pytestmark = pytest.mark.slow

BUDGETS = TABLES.group_ai_budgets
PRICES = TABLES.ai_model_prices


def run_sql(engine, statement, **values):
    with engine.begin() as connection:
        return connection.execute(statement, values)


def insert_budget(engine, group, micros, **more):
    row = {"group_id": group, "spend_limit_micros": micros, "revision": uuid4(), **more}
    run_sql(engine, sa.insert(BUDGETS).values(row))


# -- budgets --


def test_a_direct_insert_update_and_delete_leave_entries_without_actor(engine, town, group):
    here = BUDGETS.c.group_id == group
    insert_budget(engine, group, 1)
    run_sql(engine, sa.update(BUDGETS).where(here).values(spend_limit_micros=2))
    run_sql(engine, sa.delete(BUDGETS).where(here))
    assert read_story(engine, group) == [
        (None, 1, "direct"),
        (1, 2, "direct"),
        (2, None, "direct"),
    ]
    for entry in read_entries(engine, group):
        assert entry.organization_id == town.a, "an auditor of the organization would miss it"
        assert entry.receipt["actor"] is None


def test_a_direct_change_does_not_pass_for_the_one_before_it(engine, send, town, group):
    """The row still carries the receipt of the last authorized change."""
    put_limit(send, group, town.owner, 5)
    here = BUDGETS.c.group_id == group
    run_sql(engine, sa.update(BUDGETS).where(here).values(spend_limit_micros=6))
    run_sql(engine, sa.update(BUDGETS).where(here).values(spend_limit_micros=7, receipt=sa.null()))
    put_limit(send, group, town.owner, 8)
    run_sql(engine, sa.delete(BUDGETS).where(here))
    assert read_story(engine, group) == [
        (None, 5, "request"),
        (5, 6, "direct"),
        (6, 7, "direct"),
        (7, 8, "request"),
        (8, None, "direct"),
    ]
    assert {entry.organization_id for entry in read_entries(engine, group)} == {town.a}


def test_a_budget_moved_to_another_group_directly_ends_one_story_and_starts_another(
    engine, send, town, group
):
    with engine.begin() as connection:
        other = town.add_group(connection, town.a)
    put_limit(send, group, town.owner, 5)
    run_sql(engine, sa.update(BUDGETS).where(BUDGETS.c.group_id == group).values(group_id=other))
    assert read_story(engine, group) == [(None, 5, "request"), (5, None, "direct")]
    assert read_story(engine, other) == [(None, 5, "direct")]


def test_a_row_put_back_by_hand_is_deleted_like_any_other(engine, send, town, group):
    """It has the revision that was deleted before; both ways of deleting it leave an entry."""
    for delete in ("request", "direct"):
        put_limit(send, group, town.owner, 5)
        with engine.connect() as connection:
            row = dict(
                connection.execute(sa.select(BUDGETS).filter_by(group_id=group)).one()._mapping
            )
        assert send("DELETE", budget_path(group), town.owner).status_code == 204
        insert_budget(engine, group, 5, revision=row["revision"])
        if delete == "request":
            assert send("DELETE", budget_path(group), town.owner).status_code == 204
        else:
            run_sql(engine, sa.delete(BUDGETS).where(BUDGETS.c.group_id == group))
        assert read_story(engine, group)[-3:] == [
            (5, None, "request"),
            (None, 5, "direct"),
            (5, None, delete),
        ]


# -- prices --


@pytest.fixture
def model():
    return f"model-{uuid4().hex}"


def test_direct_changes_of_prices_leave_entries_one_a_row(engine, model):
    rows = [{"provider": "acme", "model": f"{model}/{n}", "input_price": n} for n in range(3)]
    mine = PRICES.c.model.startswith(model)
    run_sql(engine, sa.insert(PRICES).values(rows))
    run_sql(engine, sa.update(PRICES).where(mine).values(input_price=PRICES.c.input_price + 1))
    run_sql(engine, sa.delete(PRICES).where(mine))
    for n in range(3):
        entries = read_entries(engine, f"acme/{model}/{n}")
        assert [
            (
                entry.before and entry.before["input_price"],
                entry.after and entry.after["input_price"],
            )
            for entry in entries
        ] == [(None, n), (n, n + 1), (n + 1, None)]
        for entry in entries:
            assert entry.organization_id is None
            assert entry.receipt == {"actor": None, "cause": "direct"}
            assert entry.object_type == "ai_model_price"


def test_a_price_renamed_directly_ends_one_story_and_starts_another(engine, send, town, model):
    price = {"provider": "acme", "model": model, "input_price": 1, "output_price": None}
    price |= {"cache_read_price": None, "cache_write_price": 0}
    assert send("PUT", "/ai/prices", town.owner, json=[price]).json["changed"] == 1
    run_sql(engine, sa.update(PRICES).where(PRICES.c.model == model).values(model=f"{model}-2"))
    first, last = read_entries(engine, f"acme/{model}")
    (new,) = read_entries(engine, f"acme/{model}-2")
    assert first.receipt["cause"] == "request"
    assert (last.before, last.after) == (first.after, None)
    assert (new.before, new.after) == (None, first.after)
    assert last.receipt["cause"] == new.receipt["cause"] == "direct"


# -- the log itself --


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE govbudget.audit_log SET receipt = '{}'",
        "UPDATE govbudget.audit_log SET at = now() WHERE false",
        "DELETE FROM govbudget.audit_log",
        "DELETE FROM ONLY govbudget.audit_log WHERE object_id = 'nothing'",
        "TRUNCATE govbudget.audit_log",
        "TRUNCATE govbudget.audit_log, govbudget.group_ai_budgets",
        (
            "INSERT INTO govbudget.audit_log (id, object_type, object_id, receipt)"
            " SELECT id, 'x', 'x', '{}' FROM govbudget.audit_log LIMIT 1"
            " ON CONFLICT (id) DO UPDATE SET receipt = '{}'"
        ),
        (
            "MERGE INTO govbudget.audit_log l USING (SELECT 1) s ON l.object_id = 'nothing'"
            " WHEN MATCHED THEN DELETE"
        ),
    ],
)
def test_the_database_refuses_to_change_or_forget_an_entry(engine, send, town, group, statement):
    """Also to the tables' owner, a superuser here; and for no rows as for many."""
    put_limit(send, group, town.owner, 5)
    with pytest.raises(sa.exc.ProgrammingError, match="the audit log is append-only") as refused:
        run_sql(engine, sa.text(statement))
    assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege)
    assert read_only_entry(engine, group).after == limit(5)


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("DROP TRIGGER audit_log_append_only ON govbudget.audit_log", "audit_log_append_only"),
        ("ALTER TABLE govbudget.group_ai_budgets DISABLE TRIGGER ALL", "group_ai_budgets_audit"),
        (
            (
                "ALTER TABLE govbudget.ai_model_prices ENABLE REPLICA TRIGGER"
                " ai_model_prices_audit_update"
            ),
            "ai_model_prices_audit_update",
        ),
        ("SET LOCAL session_replication_role = replica", "group_ai_budgets_audit"),
    ],
)
def test_db_check_misses_a_trigger_that_was_taken_away_or_switched_off(engine, damage, finding):
    with engine.connect() as connection:
        assert find_differences(connection, Layout()) == []
        connection.exec_driver_sql(damage)
        differences = find_differences(connection, Layout())
        connection.rollback()
    assert any(finding in difference for difference in differences)


# -- in databases of their own: TRUNCATE, and the groups of hosts --


@contextmanager
def installed(make_database, layout, *before):
    engine = sa.create_engine(make_database(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in before:
            connection.exec_driver_sql(statement)
        upgrade(connection, layout)
    yield engine


def test_truncate_leaves_an_entry_for_each_row(make_database):
    layout = Layout(groups="none", id_type=IdType.TEXT)
    tables = Tables(layout)
    with installed(make_database, layout) as engine:
        rows = [{"group_id": group, "spend_limit_micros": 5, "revision": uuid4()} for group in "ab"]
        run_sql(engine, sa.insert(tables.group_ai_budgets).values(rows))
        run_sql(engine, sa.insert(tables.ai_model_prices).values(provider="p", model="m"))
        run_sql(engine, sa.text("TRUNCATE govbudget.group_ai_budgets, govbudget.ai_model_prices"))
        for group in "ab":
            assert read_story(engine, group, tables) == [(None, 5, "direct"), (5, None, "direct")]
        assert [entry.after is None for entry in read_entries(engine, "p/m", tables)] == [
            False,
            True,
        ]
        assert find_broken_stories(engine, tables) == []


HOST = 'CREATE TABLE "Host"."Group" ("Key" bigint PRIMARY KEY, "receipt" bigint NOT NULL)'


@contextmanager
def open_as_root(engine, layout):
    """Open a unit in a host's layout, as somebody who may do everything."""
    groups = sa.table("Group", sa.column("Key"), sa.column("receipt"), schema="Host")
    user, nobody = sa.literal(9).label("user_id"), sa.null().cast(sa.BigInteger)
    directory = SqlDirectory(
        groups=sa.select(groups.c.Key.label("id"), groups.c.receipt.label("organization_id")),
        group_members=sa.select(nobody.label("group_id"), user),
        organization_members=sa.select(nobody.label("organization_id"), user),
        role_assignments=sa.select(
            user, sa.literal("owner").label("role"), nobody.label("organization_id")
        ),
    )
    gov = make_gov(
        engine=engine,
        directory=directory,
        id_type=layout.id_type,
        schema=layout.schema,
        groups=layout.groups,
    )
    with gov.unit(9, atomic=True) as unit:
        yield unit


@pytest.mark.parametrize("schema", ["govbudget", "order"])
@pytest.mark.parametrize("groups", ["Host.Group.Key", "none"])
def test_a_budget_goes_with_a_group_of_the_hosts_whatever_the_tables_are_called(
    make_database, groups, schema
):
    """With a foreign key by itself, else by the documented call; either way with an entry."""
    layout = Layout(id_type=IdType.BIGINT, groups=groups, schema=schema)
    tables = Tables(layout)
    with installed(make_database, layout, 'CREATE SCHEMA "Host"', HOST) as engine:
        run_sql(engine, sa.text('INSERT INTO "Host"."Group" VALUES (1, 70), (2, 70)'))
        with open_as_root(engine, layout) as unit:
            one, two = (unit.authorize("update", group=group) for group in (1, 2))
            for grant, micros in ((one, 5), (two, 5), (two, 6)):
                Budgets.set(grant, micros)
            Budgets.delete(two)
        run_sql(engine, sa.text('DELETE FROM "Host"."Group"'))
        if groups == "none":
            with open_as_root(engine, layout) as unit:
                assert delete_orphans(unit.gov, unit.connection) == 1
        assert read_story(engine, 1, tables) == [(None, 5, "call"), (5, None, "cascade")]
        assert read_story(engine, 2, tables) == [
            (None, 5, "call"),
            (5, 6, "call"),
            (6, None, "call"),
        ]
        cascade = read_entries(engine, 1, tables)[1]
        assert cascade.organization_id == 70
        assert cascade.receipt == {"actor": None, "cause": "cascade", "organization_id": "70"}
        assert find_broken_stories(engine, tables) == []


def test_a_direct_change_of_a_hosts_budget_is_of_the_organization_that_was_last_known(
    make_database,
):
    """Of a budget that only ever was written directly none is known: it is among the site's."""
    layout = Layout(id_type=IdType.BIGINT, groups="Host.Group.Key")
    tables = Tables(layout)
    budgets = tables.group_ai_budgets
    with installed(make_database, layout, 'CREATE SCHEMA "Host"', HOST) as engine:
        run_sql(engine, sa.text('INSERT INTO "Host"."Group" VALUES (1, 70), (2, 70)'))
        with open_as_root(engine, layout) as unit:
            Budgets.set(unit.authorize("update", group=1), 5)
        run_sql(engine, sa.update(budgets).values(spend_limit_micros=6, receipt=sa.null()))
        row = {"group_id": 2, "spend_limit_micros": 1, "revision": uuid4()}
        run_sql(engine, sa.insert(budgets).values(row))
        known, unknown = read_entries(engine, 1, tables)[1], read_entries(engine, 2, tables)[0]
        assert (known.organization_id, unknown.organization_id) == (70, None)


def test_the_receipt_of_a_change_is_kept_with_the_budget(engine, town, group):
    """That is how the trigger knows it; see docs/adr/0008."""
    with engine.begin() as connection:
        set_budget(connection, town.owner, group, 5)
        kept = connection.scalar(sa.select(BUDGETS.c.receipt).where(BUDGETS.c.group_id == group))
    assert read_only_entry(engine, group).receipt == kept
