"""Ids grow with time, and say in which slot their organization is; those of before stay good."""

from __future__ import annotations

import time
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from tests.support import TABLES, authorize

from govbudget.budgets.store import Budgets
from govbudget.new_ids import find_slot, make_id, write_new_id
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import Call


def read_parts(its_id):
    """Read milliseconds, version, slot and variant."""
    number = its_id.int
    return number >> 80, number >> 76 & 15, number >> 64 & 4095, number >> 62 & 3


def check(its_id, slot, since):
    milliseconds, *rest = read_parts(its_id)
    assert rest == [8, slot, 2]
    assert since - 1 <= milliseconds <= time.time() * 1000 + 1


@pytest.mark.parametrize(
    ("organization", "slot"),
    [
        (UUID("123e4567-e89b-12d3-a456-426614174000"), 0x986),
        (7, 0x790),
        ("sieben \u2713", 0x4F0),
        (None, 0),
    ],
)
def test_an_id_made_in_python_and_one_made_in_sql_are_alike(engine, organization, slot):
    """The slot of an organization is the same for ever: calls are found by it."""
    since = time.time() * 1000
    with engine.connect() as connection:
        sql = sa.text(f"SELECT {write_new_id(':o')}, {write_new_id()}")
        made, of_site = connection.execute(sql, {"o": organization}).one()
    for its_id in (made, make_id(organization)):
        check(its_id, slot, since)
    check(of_site, 0, since)


def test_ids_are_all_different_and_later_ones_are_greater():
    organization = uuid4()
    ids = [make_id(organization) for _ in range(1000)]
    assert len(set(ids)) == 1000
    time.sleep(0.002)
    assert max(ids) < make_id(organization)


def test_holds_and_audit_entries_have_such_ids(engine, world):
    since, slot = time.time() * 1000, find_slot(world.a)
    log = TABLES.audit_log
    with engine.connect() as connection:
        world.assign(connection, "nobody", "gateway", None)
        grant = authorize(connection, world.nobody, "create", ledger=True)
        call = Call(world.a, world.member, "acme", "m")
        check(Spend.hold(grant, call, Tokens(input=1)).id, slot, since)
        for act, options in ((Budgets.set, {"limit_micros": 1}), (Budgets.delete, {})):
            act(authorize(connection, world.owner, "update", group=world.a1), **options)
        entries = connection.scalars(sa.select(log.c.id).order_by(log.c.at)).all()
        assert len(entries) == 2
        for entry in entries:
            check(entry, slot, since)


def test_a_hold_of_before_is_settled_like_any_other(engine, world):
    """Its id was random."""
    with engine.connect() as connection:
        world.assign(connection, "nobody", "gateway", None)
        grant = authorize(connection, world.nobody, "create", ledger=True)
        made = Spend.hold(grant, Call(world.a, world.member, "acme", "m"), Tokens(input=1))
        old = uuid4()
        connection.execute(
            sa.update(TABLES.ai_holds).values(id=old).where(TABLES.ai_holds.c.id == made.id)
        )
        assert Spend.settle(grant, old, "e1", Tokens(input=1)).hold_id == old
