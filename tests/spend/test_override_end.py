"""A limit that is raised for a time: from its end on an override counts for nothing; no job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from tests.spend.test_store import ONE, Spender

from govbudget.audit.store import Audit
from govbudget.errors import InvalidInput
from govbudget.spend.errors import BudgetExceeded
from govbudget.spend.overrides import Overrides
from govbudget.spend.this_month import Reports
from govbudget.spend.tokens import Tokens

MICROSECOND = timedelta(microseconds=1)
FOREVER = datetime(2999, 12, 31, tzinfo=UTC)


@pytest.fixture
def spender(world, clock):
    """Who has a dollar a month by the group."""
    spender = Spender(world, clock=clock)
    spender.limit(world.a1, 1)
    return spender


def put(spender, dollars, **options):
    world = spender.world
    with spender.gov.unit(world.owner) as unit:
        grant = unit.authorize("update", organization=world.a)
        return Overrides.set(grant, world.member, world.a1, dollars * 10**6, **options)


def read(spender, function, *arguments, **asked):
    with spender.gov.unit(spender.world.owner) as unit:
        return function(unit.authorize("read", **asked), *arguments)


def report(spender):
    return read(spender, Reports.member, member=(spender.world.a, spender.world.member))


def get(spender):
    return read(spender, Overrides.get, member=(spender.world.a, spender.world.member))


def find_holding(spender):
    """Give what holds by the report, and check that a refusal says the same."""
    found = report(spender)
    with pytest.raises(BudgetExceeded) as refused:
        spender("hold", spender.call, Tokens(input=1000))
    holds = (found.limit_micros // 10**6, found.limit_source, found.limit_expires_at)
    error = refused.value
    assert holds == (error.limit_micros // 10**6, error.limit_source, error.limit_expires_at)
    assert ("limit_expires_at" in error.members) == (found.limit_expires_at is not None)
    return holds


def test_an_override_counts_until_its_end_to_the_microsecond(spender, clock):
    """In the report, the admission and its refusal alike; and it is still shown afterwards."""
    end = clock.now + timedelta(hours=1)
    made = put(spender, 5, expires_at=end, reason="the release")
    assert (made.expires_at, made.reason) == (end, "the release")
    clock.now = end - MICROSECOND
    assert find_holding(spender) == (5, "user_override", end)
    clock.now = end
    assert find_holding(spender) == (1, "group", None)
    assert get(spender) == made


def test_an_override_without_an_end_has_none(spender, clock):
    put(spender, 5, expires_at=clock.now + timedelta(hours=1), reason="the release")
    made = put(spender, 6)
    assert (made.expires_at, made.reason) == (None, None)
    clock.now = FOREVER
    assert find_holding(spender) == (6, "user_override", None)


def test_a_hold_that_outlives_the_override_is_extended_against_the_limit_that_holds_then(
    spender, clock
):
    end = clock.now + timedelta(hours=1)
    put(spender, 5, expires_at=end)
    hold = spender("hold", spender.call, Tokens(input=2), ttl_seconds=60)
    clock.now = end - MICROSECOND
    assert spender("extend", hold.id, ttl_seconds=60).id == hold.id
    clock.now = end + timedelta(minutes=2)
    with pytest.raises(BudgetExceeded) as refused:
        spender("extend", hold.id, ttl_seconds=60)
    assert (refused.value.limit_source, refused.value.limit_expires_at) == ("group", None)
    assert spender("settle", hold.id, "e1", Tokens(input=2)).cost_picos == 2 * 10**12
    assert report(spender).left_micros == 0


def test_spend_counts_for_the_overrides_group_until_its_end(world, spender, clock):
    end = clock.now + timedelta(hours=1)
    with spender.gov.unit(world.owner) as unit:
        grant = unit.authorize("update", organization=world.a)
        Overrides.set(grant, world.member, world.a, 5 * 10**6, expires_at=end)
    assert spender("record", "e1", spender.call, ONE)[0].group_id == world.a
    clock.now = end
    # When the call was made has no say: the limit is the one of now.
    late = {"occurred_at": end - timedelta(minutes=1)}
    assert spender("record", "e2", spender.call, ONE, **late)[0].group_id == world.a1


@pytest.mark.parametrize("before", [timedelta(0), MICROSECOND, timedelta(days=400)], ids=str)
def test_an_end_that_has_passed_is_refused_and_nothing_is_written(spender, clock, before):
    first = put(spender, 5, reason="first")
    with pytest.raises(InvalidInput) as refused:
        put(spender, 6, expires_at=clock.now - before)
    assert [one.pointer for one in refused.value.errors] == ["/expires_at"]
    assert get(spender) == first
    assert put(spender, 6, expires_at=clock.now + MICROSECOND).spend_limit_micros == 6 * 10**6


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": ""},
        {"reason": "a\nb"},
        {"reason": "x" * 1001},
        {"expires_at": datetime(2999, 1, 1)},  # noqa: DTZ001 - without a zone
        {"expires_at": datetime(2009, 12, 31, tzinfo=UTC), "may_be_past": True},
    ],
    ids=str,
)
def test_a_reason_is_text_and_an_end_a_time_with_a_zone(spender, wrong):
    with pytest.raises(ValueError, match=r"a reason is|a time has"):
        put(spender, 5, **wrong)


def test_all_overrides_are_listed_by_user_those_that_ended_too(world, spender, clock):
    with world.engine.begin() as connection:
        world.join_group(connection, world.a, world.a1, "joined")
    made = [put(spender, 5, expires_at=clock.now + timedelta(hours=1), reason="r")]
    with spender.gov.unit(world.owner) as unit:
        grant = unit.authorize("update", organization=world.a)
        made.append(Overrides.set(grant, world.joined, world.a1, 7))
    made.sort(key=lambda one: one.user_id)
    clock.now += timedelta(days=1)

    def find(person, **options):
        with spender.gov.unit(person) as unit:
            grant = unit.authorize("read", organization=world.a)
            return Overrides.list(grant, **{"limit": 9, **options})

    assert find(world.owner) == find(world.org_admin) == made
    assert find(world.owner, limit=1) == made[:1]
    assert find(world.owner, limit=9, after=made[0].user_id) == made[1:]
    assert [one.user_id for one in find(world.member)] == [world.member]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_the_trail_has_end_and_reason_in_utc_whatever_the_session_is_set_to(world, spender, zone):
    end = datetime(2999, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    with spender.gov.unit(world.owner) as unit:
        unit.connection.exec_driver_sql(f"SET timezone = '{zone}'")
        grant = unit.authorize("update", organization=world.a)
        Overrides.set(grant, world.member, world.a1, 5, expires_at=end, reason="the release")
        Overrides.delete(grant, world.member)
        deleted, made = Audit.list(grant, limit=2)
        unit.connection.exec_driver_sql("RESET timezone")
    assert made.after == deleted.before
    assert made.after == {
        "group_id": str(world.a1),
        "spend_limit_micros": 5,
        "expires_at": "2999-01-02T03:04:05.000006Z",
        "reason": "the release",
    }
    assert isinstance(made.id, UUID)
