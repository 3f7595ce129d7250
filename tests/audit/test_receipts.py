"""Receipts: an incomplete one can't be stored, and is read all the same where it is."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.audit.support import NOBODY, read_only_entry
from tests.audit.test_http import audit_path
from tests.migrations.support import make_revision_0004
from tests.support import Client, World, authorize, make_app, make_gov
from tests.web.helpers import put_limit

from govbudget import Layout
from govbudget.identity import OPERATOR
from govbudget.ids import IdType
from govbudget.migrations import find_differences, upgrade
from govbudget.prices.price import Price
from govbudget.prices.store import Prices
from govbudget.testing import make_subject

BROKEN = [
    "{}", "[]", "null", '"text"', '{"cause": "call"}', '{"actor": "x"}',
    '{"actor": 5, "cause": "call"}', '{"actor": null, "cause": null}',
    '{"actor": "x", "cause": "call", "roles": "owner"}',
    '{"actor": "x", "cause": "call", "lines": [1]}',
    '{"actor": "x", "cause": "call", "lines": [null]}',
    '{"actor": "x", "cause": "call", "policy_digest": {}}',
    '{"actor": "x", "cause": "call", "request_id": 7}',
]  # fmt: skip


# What makes a row unreadable, though its receipt is complete.
UNREADABLE = ["'[]'", "'5'", "'true'", "'null'", "'\"x\"'"]
TIMES = ["'10000-01-01 00:00+00'", "'infinity'", "'-infinity'", "'0044-03-15 12:00+00 BC'"]


def insert(connection, organization, receipt):
    statement = sa.text(
        "INSERT INTO govbudget.audit_log (organization_id, object_type, object_id, receipt)"
        " VALUES (:organization, 'x', 'y', CAST(:receipt AS jsonb))"
    )
    connection.execute(statement, {"organization": organization, "receipt": receipt})


@pytest.mark.parametrize("receipt", BROKEN)
def test_an_incomplete_receipt_can_not_be_stored(engine, world, receipt):
    with (
        engine.connect() as connection,
        pytest.raises(sa.exc.IntegrityError, match="audit_log_receipt_check"),
    ):
        insert(connection, world.a, receipt)


def insert_entry(connection, organization, column, value):
    statement = sa.text(
        "INSERT INTO govbudget.audit_log"
        f" (organization_id, object_type, object_id, receipt, {column})"
        f" VALUES (:organization, 'x', 'y', CAST(:receipt AS jsonb), {value})"
    )
    connection.execute(statement, {"organization": organization, "receipt": json.dumps(NOBODY)})


@pytest.mark.parametrize(
    ("column", "value"),
    [*((c, v) for c in ("before", "after") for v in UNREADABLE), *(("at", t) for t in TIMES)],
)
def test_an_entry_that_no_reader_takes_can_not_be_stored(engine, world, column, value):
    with (
        engine.connect() as connection,
        pytest.raises(sa.exc.IntegrityError, match="audit_log_readable_check"),
    ):
        insert_entry(connection, world.a, column, value)


@pytest.mark.parametrize(
    "more", [{}, {"roles": None, "lines": None, "request_id": None}, {"roles": [], "lines": ["a"]}]
)
def test_a_complete_receipt_is_stored(engine, world, more):
    with engine.begin() as connection:
        insert(connection, world.a, json.dumps({**NOBODY, **more}))


@pytest.fixture(scope="module")
def old(make_database):
    """A database that was upgraded with incomplete receipts in its trail."""
    engine = sa.create_engine(make_database())
    with engine.begin() as connection:
        make_revision_0004(connection)
    world = World(engine)
    with engine.begin() as connection:
        for receipt in BROKEN:
            insert(connection, world.a, receipt)
        for value in UNREADABLE:
            insert_entry(connection, world.a, "before", value)
        upgrade(connection, Layout())
    yield world
    engine.dispose()


@pytest.mark.slow
def test_a_trail_with_incomplete_receipts_is_read_all_the_same(old, run):
    """What is missing or wrong is null; who wrote a receipt by hand wrote behind our back."""
    send = Client(make_app(old.engine))
    assert put_limit(send, old.a1, old.owner).status_code == 200
    entries = send("GET", audit_path(old.a), old.owner).json["entries"]
    assert [entry["cause"] for entry in entries[:1]] == ["request"]
    assert len(entries) == 1 + len(BROKEN) + len(UNREADABLE)
    assert {str(entry["before"]) for entry in entries[1:]} == {"None"}
    by_hand = entries[1:]
    assert {entry["cause"] for entry in by_hand} == {"call", "direct"}
    assert {entry["actor"] for entry in by_hand} == {None, "x"}
    assert {str(entry["lines"]) for entry in by_hand} == {"None"}
    url = old.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    exported = run("audit", "export", "--organization", old.a, database_url=url)
    assert (exported.status, len(exported.out.splitlines())) == (0, len(entries))


def test_what_was_upgraded_takes_no_more_of_them(old):
    with old.engine.connect() as connection, pytest.raises(sa.exc.IntegrityError):
        insert(connection, old.a, "{}")
    with old.engine.begin() as connection:
        assert connection.scalar(
            sa.text(
                "SELECT NOT convalidated FROM pg_constraint"
                " WHERE conname = 'audit_log_receipt_check'"
            )
        )


def test_a_new_database_has_the_constraint_validated(engine):
    with engine.begin() as connection:
        assert find_differences(connection, Layout()) == []
        assert connection.scalar(
            sa.text(
                "SELECT convalidated FROM pg_constraint WHERE conname = 'audit_log_receipt_check'"
            )
        )


# -- the cause --


class OneOwner:
    """A directory with text ids, in which everybody who asks owns the site."""

    def load_subject(self, _connection, subject_id):
        return make_subject(subject_id, ("owner", "site"))


@pytest.mark.parametrize(
    ("caller", "request_id", "cause"),
    [
        ("operator", None, "call"),
        ("operator", "req-1", "request"),
        (OPERATOR, None, "command"),
        (OPERATOR, "req-1", "command"),
    ],
)
def test_a_user_whose_id_is_operator_is_not_the_operator_of_a_command(
    engine, caller, request_id, cause
):
    """In the trail both have the same name; the cause says which of the two it was."""
    gov, model = make_gov(directory=OneOwner(), id_type=IdType.TEXT), uuid4().hex
    prices = dict.fromkeys(("output_price", "cache_read_price", "cache_write_price"))
    price = Price(provider="acme", model=model, input_price=1, **prices)
    with (
        engine.begin() as connection,
        gov.unit(caller, connection=connection, request_id=request_id) as unit,
    ):
        Prices.upsert(unit.authorize("update", prices=True), [price])
    receipt = read_only_entry(engine, f"acme/{model}").receipt
    assert (receipt["actor"], receipt["cause"]) == ("operator", cause)


def test_the_operator_of_a_command_is_not_a_user_toward_themselves(world):
    with world.engine.connect() as connection:
        grant = authorize(connection, OPERATOR, "read", member=(world.a, world.member))
    assert set(grant.allowed.roles) == {"owner", "gateway"}
