"""A member's own limit: its bounds, its times, and a member who leaves while it is set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from tests.support import TABLES, authorize, count_statements, wait_for_waiters

from govbudget.spend.errors import NotAMember
from govbudget.spend.overrides import Overrides

NO_ID = r"expected an id|is not an id"
OVERRIDES = TABLES.member_ai_overrides


def set_override(world, limit, group=None):
    with world.engine.begin() as connection:
        grant = authorize(connection, world.owner, "update", organization=world.a)
        return Overrides.set(grant, world.member, group or world.a1, limit)


@pytest.mark.parametrize("limit", [-1, 10**12 + 1, True, 1.0, "1", None], ids=repr)
def test_a_limit_is_an_integer_from_0_to_a_million_dollars(world, limit):
    with pytest.raises(ValueError, match="an int from 0 to 1000000000000"):
        set_override(world, limit)
    for bound in (0, 10**12):
        assert set_override(world, bound).spend_limit_micros == bound


@pytest.mark.parametrize("wrong", [7, "ann", None], ids=repr)
def test_what_is_not_an_id_is_refused_before_any_sql(world, wrong):
    """So a host's transaction goes on."""
    with world.engine.begin() as connection:
        grant = authorize(connection, world.owner, "update", organization=world.a)
        for act in (
            lambda: Overrides.set(grant, wrong, world.a1, 5),
            lambda: Overrides.set(grant, world.member, wrong, 5),
            lambda: Overrides.delete(grant, wrong),
        ):
            with count_statements(world.engine) as sent, pytest.raises(TypeError, match=NO_ID):
                act()
            assert sent == []


def test_created_at_stays_and_updated_at_always_moves(world):
    """Also where the limit is the same as before, and where the clock went back."""
    first = set_override(world, 5)
    ahead = sa.update(OVERRIDES).where(OVERRIDES.c.user_id == world.member)
    with world.engine.begin() as connection:
        connection.execute(ahead.values(updated_at=first.updated_at + timedelta(days=1)))
    again = set_override(world, 5)
    assert again.created_at == first.created_at
    assert again.updated_at > first.updated_at + timedelta(days=1)


@pytest.mark.parametrize("table", ["group_members", "organization_members"])
def test_a_member_who_is_leaving_while_it_is_set_is_no_member(world, table):
    """The statement sees them still, and waits for those who take them away."""
    members, group = getattr(TABLES, table), world.a1 if table == "group_members" else world.a
    with ThreadPoolExecutor(1) as pool, world.engine.begin() as connection:
        connection.execute(sa.delete(members).where(members.c.user_id == world.member))
        setting = pool.submit(set_override, world, 5, group)
        wait_for_waiters(world.engine)
        connection.commit()
        with pytest.raises(NotAMember):
            setting.result()
