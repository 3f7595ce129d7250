"""Which limit holds for a member, in which period, and until when a hold counts."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from tests.spend.test_store import ONE, Spender
from tests.support import TABLES, find_gov, make_gov

from govbudget.directory.sql import SqlDirectory
from govbudget.settings import LimitRule, Unpriced
from govbudget.spend.errors import BudgetExceeded, NotAMember, UnpricedModel
from govbudget.spend.overrides import Overrides
from govbudget.spend.this_month import Reports
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import Call

DOLLAR = 10**12
HIGHEST, LOWEST = LimitRule.HIGHEST, LimitRule.LOWEST


def resolve(spender, person="member"):
    """Give the group that sets a person's limit or takes their spend, the limit, its source."""
    call = Call(spender.world.a, getattr(spender.world, person), "acme", spender.model)
    try:
        hold = spender("hold", call, Tokens(input=10**6))  # as much as one call may cost
    except BudgetExceeded as refused:
        return refused.group_id, refused.limit_micros // 10**6, refused.limit_source
    return hold.group_id, None, None


def put(world, table, **row):
    with world.engine.begin() as connection:
        connection.execute(sa.insert(getattr(TABLES, table)), row)


def override(world, group, dollars, *, organization=None, person="member"):
    put(
        world,
        "member_ai_overrides",
        organization_id=organization or world.a,
        user_id=getattr(world, person),
        group_id=group,
        spend_limit_micros=dollars * 10**6,
        revision=uuid4(),
    )


def join(world, group, person="member", organization=None):
    with world.engine.begin() as connection:
        world.join_group(connection, organization or world.a, group, person)


# Groups: `everyone` (the organization's), `low` and `high` (their ids are in that order), which the
# member is in, and `other`, which they are not in.
@pytest.mark.parametrize("person", ["member", "joined"])
@pytest.mark.parametrize(
    ("budgets", "own", "expected"),
    [
        ({}, None, (("everyone", None), ("everyone", None), ("everyone", None))),
        ({"low": 5}, None, (("low", 5), ("low", 5), ("everyone", None))),
        ({"other": 1}, None, (("everyone", None), ("everyone", None), ("everyone", None))),
        ({"low": 5, "high": 9}, None, (("high", 9), ("low", 5), ("everyone", None))),
        ({"low": 9, "high": 5, "other": 99}, None, (("low", 9), ("high", 5), ("everyone", None))),
        ({"low": 5, "high": 5}, None, (("low", 5), ("low", 5), ("everyone", None))),
        ({"everyone": 7}, None, (("everyone", 7), ("everyone", 7), ("everyone", 7))),
        ({"everyone": 7, "low": 5}, None, (("everyone", 7), ("low", 5), ("everyone", 7))),
        ({"everyone": 5, "low": 7}, None, (("low", 7), ("everyone", 5), ("everyone", 5))),
        ({"low": 0, "high": 5}, None, (("high", 5), ("low", 0), ("everyone", None))),
        ({"high": 0}, None, (("high", 0), ("high", 0), ("everyone", None))),
        ({"low": 5, "high": 9}, ("low", 1), (("low", 1), ("low", 1), ("everyone", None))),
        ({"low": 5, "high": 9}, ("low", 99), (("low", 99), ("low", 99), ("everyone", None))),
        ({"low": 5}, ("high", 0), (("high", 0), ("high", 0), ("everyone", None))),
        ({"everyone": 7}, ("everyone", 8), (("everyone", 8), ("everyone", 8), ("everyone", 7))),
        ({}, ("high", 3), (("high", 3), ("high", 3), ("everyone", None))),
    ],
)
def test_the_limit_that_holds(world, person, budgets, own, expected):
    """The member's own, else the highest (or lowest) of their groups', else none.

    Expected are what holds for the member, by the highest and the lowest, and for who joined only
    the organization.
    """
    low, high = sorted(uuid4() for _ in range(2))
    with world.engine.begin() as connection:
        for group in (low, high):
            world.add_group(connection, world.a, group)
            world.join_group(connection, world.a, group, "member")
    groups = {"everyone": world.a, "low": low, "high": high, "other": world.a2}
    names = {group: name for name, group in groups.items()}
    spender = Spender(world)
    for name, dollars in budgets.items():
        spender.limit(groups[name], dollars)
    if own:
        override(world, groups[own[0]], own[1])
    for rule, holds in zip((HIGHEST, LOWEST), expected, strict=False):
        spender.gov = find_gov(engine=world.engine, limit_rule=rule)
        name, limit = holds if person == "member" else expected[2]
        source = None if limit is None else "group"
        if own and person == "member":
            source = "user_override"
        group, found, found_source = resolve(spender, person)
        assert (names[group], found, found_source) == (name, limit, source), rule


@pytest.mark.parametrize("rule", LimitRule)
def test_of_equal_limits_the_smaller_group_id_is_named_everyone_or_not(world, rule):
    """Made in the order of their ids and against it: the order of the rows has no say."""
    spender = Spender(world, limit_rule=rule)
    ids = [world.a1, world.a, UUID(int=world.a.int - 1), UUID(int=world.a.int + 1)]
    with world.engine.begin() as connection:
        for group in ids[2:]:
            world.add_group(connection, world.a, group)
            world.join_group(connection, world.a, group, "member")
    for group in ids:
        spender.limit(group, 4)
    assert resolve(spender) == (min(ids), 4, "group")


def test_another_organizations_groups_and_overrides_have_no_say(world):
    spender = Spender(world)
    with world.engine.begin() as connection:
        world.join(connection, world.b, "member")
    join(world, world.b1, organization=world.b)
    for group in (world.b, world.b1):
        spender.limit(group, 1)
    override(world, world.b1, 2, organization=world.b)
    assert resolve(spender) == (world.a, None, None)
    spender.limit(world.a1, 8)
    assert resolve(spender) == (world.a1, 8, "group")


def test_an_override_goes_with_the_membership_that_it_names(world):
    spender = Spender(world)
    join(world, world.a2)
    spender.limit(world.a1, 5)
    override(world, world.a2, 9)
    assert resolve(spender) == (world.a2, 9, "user_override")
    members = TABLES.group_members
    with world.engine.begin() as connection:
        connection.execute(sa.delete(members).where(members.c.group_id == world.a2))
    assert resolve(spender) == (world.a1, 5, "group")


def make_host(world, *, left=None):
    """A host's directory over the same people: no group holds everyone; `left` has no members."""
    groups, members = TABLES.groups, TABLES.group_members
    return SqlDirectory(
        groups=sa.select(groups.c.id, groups.c.organization_id).where(
            groups.c.id != groups.c.organization_id
        ),
        group_members=sa.select(members).where(members.c.group_id != (left or uuid4())),
        organization_members=TABLES.organization_members,
        role_assignments=TABLES.role_assignments,
    )


def test_without_an_everyone_group_spend_is_the_organizations_alone(world):
    spender = Spender(world)
    spender.gov = make_gov(engine=world.engine, directory=make_host(world))
    spender.limit(world.a, 1)  # no group of the host's
    assert resolve(spender) == (None, None, None)
    assert resolve(spender, "joined") == (None, None, None)
    spender("record", "e1", spender.call, ONE)
    assert spender.read("ai_usage", "group_id", "cost_picos") == [(None, DOLLAR)]
    assert sorted(spender.read("ai_spend_rollups", "grain", "group_id", "cost_picos")) == [
        ("day", None, DOLLAR),
        ("month", None, DOLLAR),
    ]
    spender.limit(world.a1, 6)
    assert resolve(spender) == (world.a1, 6, "group")
    assert resolve(spender, "joined") == (None, None, None)


def test_a_hosts_override_of_a_group_that_the_member_has_left_counts_for_nothing(world):
    """Where no foreign key takes it away."""
    spender = Spender(world)
    join(world, world.a2)
    spender.limit(world.a1, 5)
    override(world, world.a2, 9)
    spender.gov = make_gov(engine=world.engine, directory=make_host(world))
    assert resolve(spender) == (world.a2, 9, "user_override")
    host = make_host(world, left=world.a2)
    spender.gov = make_gov(engine=world.engine, directory=host)
    assert resolve(spender) == (world.a1, 5, "group")


@pytest.mark.parametrize("act", ["hold", "record"])
def test_who_is_no_member_or_of_a_deleted_organization_is_refused(world, act):
    spender = Spender(world)
    event = ["e1"] if act == "record" else []
    for person in (world.outsider, world.nobody, world.stranger):
        with pytest.raises(NotAMember):
            spender(act, *event, Call(world.a, person, "acme", spender.model), ONE)
    for organization in (world.b, uuid4()):
        with pytest.raises(NotAMember):
            spender(act, *event, Call(organization, world.member, "acme", spender.model), ONE)
    organizations = TABLES.organizations
    with world.engine.begin() as connection:
        delete = sa.update(organizations).where(organizations.c.id == world.a).values(deleted=True)
        connection.execute(delete)
    with pytest.raises(NotAMember):
        spender(act, *event, spender.call, ONE)
    for table in ("ai_holds", "ai_usage", "ai_spend_counters", "ai_spend_rollups"):
        assert spender.read(table, "user_id") == []


PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")


@pytest.mark.parametrize("rule", Unpriced)
def test_a_call_known_to_cost_nothing_is_admitted_at_limit_0_and_whatever_was_spent(world, rule):
    """Every unit that it asks for has the price 0; what the others cost doesn't matter."""
    spender = Spender(world, unpriced=rule)
    spender.limit(world.a1, 0)
    calls = []
    for prices in ((0, 0, 0, 0), (0, 1, 1, 1), (0, None, None, None)):
        model = uuid4().hex
        put(
            world,
            "ai_model_prices",
            provider="acme",
            model=model,
            **dict(zip(PRICES, prices, strict=True)),
        )
        calls.append(Call(world.a, world.member, "acme", model))
    for spent in (0, DOLLAR):
        for call in calls:
            assert spender("hold", call, Tokens(input=10**12)).cost_picos == 0
        with pytest.raises(BudgetExceeded) as refused:
            spender("hold", calls[1], Tokens(input=1, output=1))  # one pico
        assert (refused.value.cost_picos, refused.value.spent_picos) == (1, spent)
        spender("record", "e1", spender.call, ONE)
    with pytest.raises((UnpricedModel, BudgetExceeded)):
        spender("hold", calls[2], Tokens(input=1, output=1))


def test_an_override_of_0_admits_what_is_known_to_cost_nothing_alone(world):
    spender = Spender(world)
    spender.limit(world.a1, 9)
    override(world, world.a1, 0)
    model = uuid4().hex
    put(world, "ai_model_prices", provider="acme", model=model, input_price=0)
    free = Call(world.a, world.member, "acme", model)
    assert spender("hold", free, ONE).cost_picos == 0
    with pytest.raises(BudgetExceeded) as refused:
        spender("hold", spender.call, ONE)
    assert refused.value.limit_source == "user_override"
    with pytest.raises(UnpricedModel):
        spender("hold", free, Tokens(output=1))


def expire_and_settle(spender, clock):
    """Eight times the limit: each hold expires before the next one."""
    holds = []
    for _ in range(8):
        holds.append(spender("hold", spender.call, ONE, ttl_seconds=1))
        clock.now += timedelta(seconds=1)
    for number, hold in enumerate(holds):
        spender("settle", hold.id, f"e{number}", ONE)
    return 8


def release_and_settle(spender, _clock):
    holds = [spender("hold", spender.call, ONE)]
    spender("release", holds[0].id)
    holds += [spender("hold", spender.call, ONE)]
    for hold in holds:
        spender("settle", hold.id, str(hold.id), ONE)
    return 2


def bill_more(spender, _clock):
    hold = spender("hold", spender.call, ONE)
    spender("settle", hold.id, "e1", Tokens(input=5))
    return 5


def record_without_a_hold(spender, _clock):
    spender("record", "e1", spender.call, Tokens(input=5))
    return 5


def use_what_has_no_price(spender, _clock):
    """Under `allow`: nothing is set aside for what is not known."""
    hold = spender("hold", spender.call, Tokens(output=5))
    assert hold.cost_picos is None
    spender("settle", hold.id, "e1", Tokens(input=5))
    return 5


def lower_the_limit(spender, _clock):
    hold = spender("hold", spender.call, ONE)
    override(spender.world, spender.world.a1, 0)
    spender("settle", hold.id, "e1", ONE)
    return 1


@pytest.mark.parametrize(
    "act",
    [
        *(expire_and_settle, release_and_settle, bill_more, record_without_a_hold),
        *(use_what_has_no_price, lower_the_limit),
    ],
    ids=lambda act: act.__name__,
)
def test_what_the_threat_model_says_takes_spend_over_a_limit_does(world, act):
    """And nothing that costs anything is admitted after that."""
    clock = stop_clock("2026-11-10T12:00:00Z")
    spender = Spender(world, unpriced=Unpriced.ALLOW, clock=clock)
    spender.limit(world.a1, 1)
    dollars = act(spender, clock)
    assert spender.read("ai_spend_counters", "spent_picos") == [(dollars * DOLLAR,)]
    for tokens in (ONE, Tokens(output=1)):
        with pytest.raises(BudgetExceeded):
            spender("hold", spender.call, tokens)


# -- periods --


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self):
        self.now = None

    def __call__(self):
        return self.now


CLOCK = Clock()  # one for all tests, so that they prepare their statements once


def stop_clock(text):
    CLOCK.now = at(text)
    return CLOCK


def at(text):
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("zone", "now", "period", "end"),
    [
        ("UTC", "2026-11-30T23:59:59.999999Z", "2026-11-01", "2026-12-01T00:00Z"),
        ("UTC", "2026-12-01T00:00:00Z", "2026-12-01", "2027-01-01T00:00Z"),
        ("UTC", "2028-02-29T12:00:00Z", "2028-02-01", "2028-03-01T00:00Z"),
        # summer time ends on the first day of November, after that month has begun
        ("America/New_York", "2026-11-01T03:59:59.999999Z", "2026-10-01", "2026-11-01T04:00Z"),
        ("America/New_York", "2026-11-01T04:00:00Z", "2026-11-01", "2026-12-01T05:00Z"),
        ("America/New_York", "2026-12-01T04:59:59.999999Z", "2026-11-01", "2026-12-01T05:00Z"),
        ("America/New_York", "2026-03-01T05:00:00Z", "2026-03-01", "2026-04-01T04:00Z"),
        ("Pacific/Auckland", "2026-09-30T10:59:59.999999Z", "2026-09-01", "2026-09-30T11:00Z"),
        ("Pacific/Auckland", "2026-09-30T11:00:00Z", "2026-10-01", "2026-10-31T11:00Z"),
        ("Pacific/Auckland", "2026-04-30T11:59:59.999999Z", "2026-04-01", "2026-04-30T12:00Z"),
        ("Pacific/Auckland", "2026-12-31T11:00:00Z", "2027-01-01", "2027-01-31T11:00Z"),
        ("Asia/Kathmandu", "2026-07-31T18:15:00Z", "2026-08-01", "2026-08-31T18:15Z"),
        # a month that begins at one o'clock: there was no midnight
        ("America/Asuncion", "2023-10-01T03:59:59.999999Z", "2023-09-01", "2023-10-01T04:00Z"),
    ],
)
def test_a_period_is_a_calendar_month_of_the_zone(world, zone, now, period, end):
    clock = stop_clock(now)
    spender = Spender(world, time_zone=zone, clock=clock)
    spender.limit(world.a1, 1)
    spender("settle", spender("hold", spender.call, ONE).id, "e1", ONE)
    with pytest.raises(BudgetExceeded) as refused:
        spender("hold", spender.call, ONE)
    starts_on = date.fromisoformat(period)
    day = clock.now.astimezone(ZoneInfo(zone)).date()
    assert day.replace(day=1) == starts_on
    assert spender.read("ai_usage", "period", "day") == [(starts_on, day)]
    assert refused.value.period_end == at(end)
    told = told_of(spender)
    assert told == (datetime.combine(starts_on, time(), ZoneInfo(zone)), at(end), DOLLAR, DOLLAR)
    clock.now = at(end) - timedelta(microseconds=1)
    with pytest.raises(BudgetExceeded):
        spender("hold", spender.call, ONE)
    assert told_of(spender) == told
    clock.now = at(end)
    assert told_of(spender)[0::2] == (at(end), 0), "a new month, a new sum"
    assert spender("hold", spender.call, ONE).cost_picos == DOLLAR, "a new month, a new allowance"


def told_of(spender):
    """The period that reports tell, and what was spent: by the member, and for their group."""
    member, group, _ = spender.report()
    return (*member.period, member.spent_picos, group.sum.cost_picos)


def test_a_report_tells_this_months_spend_and_what_live_holds_of_this_month_hold(world):
    """Each amount is a bit of its own; of each month one hold lives on and one expires."""
    clock = stop_clock("2026-11-30T23:59:00Z")
    spender = Spender(world, clock=clock)
    spender.limit(world.a1, 100)
    for now, first in (("2026-11-30T23:59:00Z", 1), ("2026-12-01T00:01:00Z", 8)):
        clock.now = at(now)
        one, two, four = (Tokens(input=first * times) for times in (1, 2, 4))
        settled = spender("hold", spender.call, one, ttl_seconds=1)
        spender("settle", settled.id, f"e{first}", one)
        spender("hold", spender.call, two)
        spender("hold", spender.call, four, ttl_seconds=1)
    for now, first in (("2026-12-01T00:02:00Z", 8), ("2026-11-30T23:59:59Z", 1)):
        clock.now = at(now)
        member, group, (spent,) = spender.report()
        assert (member.spent_picos, member.held_picos) == (first * DOLLAR, 2 * first * DOLLAR)
        assert group.sum == spent.sum == (first * DOLLAR, 1, 0)


def test_what_was_spent_for_a_group_stays_in_the_organization_that_it_leaves(world):
    spender = Spender(world)
    spender.limit(world.a1, 9)
    spender("record", "e1", spender.call, ONE)
    assert spender.report()[1].sum.calls == 1
    members, groups = TABLES.group_members, TABLES.groups
    with world.engine.begin() as connection:
        connection.execute(sa.delete(members).where(members.c.group_id == world.a1))
        move = sa.update(groups).where(groups.c.id == world.a1)
        connection.execute(move.values(organization_id=world.b))
    member, group, spenders = spender.report()
    assert (member.spent_picos, group.sum, spenders) == (DOLLAR, (0, 0, 0), [])


def test_late_usage_belongs_to_the_period_of_its_hold(world):
    clock = stop_clock("2026-12-01T04:59:59Z")
    spender = Spender(world, time_zone="America/New_York", clock=clock)
    spender.limit(world.a1, 1)
    hold = spender("hold", spender.call, ONE)
    clock.now = at("2026-12-03T00:00:00Z")
    assert spender("hold", spender.call, ONE).cost_picos == DOLLAR
    spender("settle", hold.id, "e1", ONE)
    november, december = date(2026, 11, 1), date(2026, 12, 1)
    counters = spender.read("ai_spend_counters", "period", "spent_picos", "held_picos")
    assert sorted(counters) == [(november, DOLLAR, 0), (december, 0, DOLLAR)]
    assert sorted(spender.read("ai_spend_rollups", "grain", "starts_on", "cost_picos")) == [
        ("day", date(2026, 11, 30), DOLLAR),
        ("month", november, DOLLAR),
    ]


@pytest.mark.parametrize(
    ("occurred_at", "day"),
    [
        ("2026-11-01T03:59:59Z", date(2026, 11, 1)),  # before the month: as its first day
        ("2026-11-11T04:59:59Z", date(2026, 11, 10)),
        ("2026-11-11T05:00:00Z", date(2026, 11, 11)),
        ("2027-01-11T05:00:00Z", date(2026, 11, 30)),
    ],
)
def test_settled_usage_is_of_the_day_that_it_was_in_the_zone(world, occurred_at, day):
    spender = Spender(world, time_zone="America/New_York", clock=stop_clock("2026-11-15T00:00:00Z"))
    hold = spender("hold", spender.call, ONE)
    spender("settle", hold.id, "e1", ONE, occurred_at=at(occurred_at))
    assert spender.read("ai_usage", "day", "period") == [(day, date(2026, 11, 1))]


def test_usage_without_a_hold_is_of_the_month_in_which_it_occurred(world):
    spender = Spender(world, clock=stop_clock("2026-12-05T00:00:00Z"))
    spender("record", "e1", spender.call, ONE, occurred_at=at("2026-11-30T23:59:59Z"))
    spender("record", "e2", spender.call, Tokens(input=2))
    counters = spender.read("ai_spend_counters", "period", "spent_picos")
    assert sorted(counters) == [(date(2026, 11, 1), DOLLAR), (date(2026, 12, 1), 2 * DOLLAR)]


# -- expiry --


def test_a_hold_counts_until_the_instant_at_which_it_expires_and_no_longer(world):
    clock = stop_clock("2026-11-15T12:00:00Z")
    spender = Spender(world, clock=clock)
    spender.limit(world.a1, 1)
    first = spender("hold", spender.call, ONE, ttl_seconds=60)
    assert first.expires_at == at("2026-11-15T12:01:00Z")
    clock.now = first.expires_at - timedelta(microseconds=1)
    with pytest.raises(BudgetExceeded):
        spender("hold", spender.call, ONE)
    clock.now = first.expires_at
    assert spender("hold", spender.call, ONE).cost_picos == DOLLAR


def test_late_usage_is_booked_also_above_the_limit_and_exhausts_the_budget(world):
    clock = stop_clock("2026-11-15T12:00:00Z")
    spender = Spender(world, clock=clock)
    spender.limit(world.a1, 1)
    expired = spender("hold", spender.call, ONE, ttl_seconds=1)
    clock.now += timedelta(seconds=1)
    second = spender("hold", spender.call, ONE)
    for hold, event in ((second, "e1"), (expired, "e2")):
        assert spender("settle", hold.id, event, ONE).cost_picos == DOLLAR
    assert spender.read("ai_spend_counters", "spent_picos", "held_picos") == [(2 * DOLLAR, 0)]
    with pytest.raises(BudgetExceeded) as refused:
        spender("hold", spender.call, ONE)
    assert refused.value.spent_picos == 2 * DOLLAR


@pytest.mark.parametrize(
    ("tokens", "dollars"),
    [
        (Tokens(input=1, cache_write=1), 5),
        (Tokens(cache_write=1), 5),
        (Tokens(input=7, cache_write=1), 7),
        (Tokens(input=1), 1),
    ],
    ids=str,
)
def test_a_settlement_that_is_not_wholly_known_costs_at_least_what_was_held(world, tokens, dollars):
    """What is known counts where it is more; a settlement that is wholly known costs what it is."""
    spender = Spender(world)
    hold = spender("hold", spender.call, Tokens(input=5))
    usage = spender("settle", hold.id, "event", tokens)
    assert usage.cost_picos == dollars * 10**12
    assert usage.unpriced == (("cache_write",) if tokens.cache_write else ())


def test_a_refused_hold_takes_the_expired_ones_out_too(world):
    clock = stop_clock("2026-11-15T12:00:00Z")
    spender = Spender(world, clock=clock)
    spender.limit(world.a1, 3)
    spender("hold", spender.call, Tokens(input=2), ttl_seconds=1)
    clock.now += timedelta(seconds=1)
    with pytest.raises(BudgetExceeded) as refused:
        spender("hold", spender.call, Tokens(input=4))
    assert refused.value.held_picos == 0
    assert spender.read("ai_spend_counters", "held_picos") == [(0,)]
    assert spender.read("ai_holds", "is_open") == [(False,)]


def test_the_databases_own_clock_is_the_default(world):
    spender = Spender(world)
    spender.limit(world.a1, 1)
    hold = spender("hold", spender.call, ONE, ttl_seconds=100)
    left = hold.expires_at - datetime.now(UTC)
    assert timedelta(seconds=90) < left < timedelta(seconds=110)
    ((period,),) = spender.read("ai_holds", "period")
    assert period.day == 1


@pytest.fixture(params=["period input asked", "groups found target"])
def named_like_ours(request, world):
    """A directory over views of the host's that have the names of what our statements make."""
    own = world.directory
    sources = (own.groups, own.group_members, own.organization_members)
    views = dict(zip(request.param.split(), sources, strict=True))
    with world.engine.begin() as connection:
        for name, source in views.items():
            text = sa.select(source).compile(connection, compile_kwargs={"literal_binds": True})
            connection.exec_driver_sql(f"CREATE VIEW {name} AS {text}")
    groups, members, everybody = (
        sa.table(name, *(sa.column(column.name, column.type) for column in source.c))
        for name, source in views.items()
    )
    yield SqlDirectory(
        groups=groups,
        group_members=members,
        organization_members=everybody,
        role_assignments=TABLES.role_assignments,
    )
    with world.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP VIEW {', '.join(views)}")


def test_a_hosts_tables_may_have_the_names_of_parts_of_our_statements(world, named_like_ours):
    spender = Spender(world, directory=named_like_ours)
    spender.limit(world.a1, 5)
    with spender.gov.unit(world.owner) as unit:
        Overrides.set(unit.authorize("update", organization=world.a), world.member, world.a1, 10**6)
        member = unit.authorize("read", member=(world.a, world.member))
        assert Overrides.get(member).group_id == world.a1
        assert Reports.member(member).group_id == world.a1
    assert resolve(spender) == (world.a1, 1, "user_override")
    assert spender("record", "e1", spender.call, ONE)[0].group_id == world.a1
    of_member, of_group, (of_spender,) = spender.report()
    assert of_member.spent_picos == of_group.sum.cost_picos == of_spender.sum.cost_picos == DOLLAR
