"""Hold, settle, release and record, on a real PostgreSQL."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.support import (
    TABLES,
    authorize,
    count_statements,
    find_gov,
    names_budget_table,
    wait_for_waiters,
)

from govbudget.errors import InvalidInput, NotFound
from govbudget.new_ids import find_slot, read_slot
from govbudget.settings import Unpriced
from govbudget.spend.errors import BudgetExceeded, EventConflict, NotAMember, UnpricedModel
from govbudget.spend.store import Spend
from govbudget.spend.this_month import Reports
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import MAX_TTL_SECONDS, Call

ONE = Tokens(input=1)  # one dollar, at the price that each test sets


class Spender:
    """A gateway that makes calls for the member of a world, at a dollar a token."""

    def __init__(self, world, **options):
        self.world, self.gov = world, find_gov(engine=world.engine, **options)
        self.model = uuid4().hex
        self.call = Call(world.a, world.member, "acme", self.model)
        price = {"provider": "acme", "model": self.model, "input_price": 10**12}
        with world.engine.begin() as connection:
            world.assign(connection, "nobody", "gateway", None)
            connection.execute(sa.insert(TABLES.ai_model_prices), price)

    def limit(self, group, dollars):
        row = {"group_id": group, "spend_limit_micros": dollars * 10**6, "revision": uuid4()}
        with self.world.engine.begin() as connection:
            connection.execute(sa.insert(TABLES.group_ai_budgets), row)

    def __call__(self, act, *arguments, **options):
        with self.gov.unit(self.world.nobody) as unit:
            grant = unit.authorize("create", ledger=True)
            return getattr(Spend, act)(grant, *arguments, **options)

    def report(self):
        """What the owner is told: of the member, of the group a1 (in its page too), its members."""
        world = self.world
        with self.gov.unit(world.owner) as unit:
            member = unit.authorize("read", member=(world.a, world.member))
            group = unit.authorize("read", group=world.a1)
            place = unit.authorize("read", organization=group.object.organization_id)
            of_member, of_group = Reports.member(member), Reports.group(group)
            of_members = Reports.list_members(group, limit=9)
            of_groups = Reports.list_groups(place, limit=9)
        assert of_group in of_groups
        assert of_members[0] == of_group.period == of_member.period
        return of_member, of_group, of_members[1]

    def read(self, table, *columns):
        chosen = [getattr(TABLES, table).c[name] for name in columns]
        place = getattr(TABLES, table).c.organization_id == self.world.a
        with self.world.engine.connect() as connection:
            return connection.execute(sa.select(*chosen).where(place)).all()


@pytest.fixture
def spender(world):
    return Spender(world)


def test_a_hold_is_admitted_up_to_the_limit_and_the_refusal_says_why(spender):
    spender.limit(spender.world.a1, 2)
    for _ in range(2):
        assert spender("hold", spender.call, ONE).cost_picos == 10**12
    with pytest.raises(BudgetExceeded) as refused:
        spender("hold", spender.call, ONE)
    assert (refused.value.limit_micros, refused.value.limit_source) == (2_000_000, "group")
    assert refused.value.group_id == spender.world.a1
    assert (refused.value.spent_picos, refused.value.held_picos) == (0, 2 * 10**12)


def test_settling_books_the_true_cost_once_and_frees_the_hold(spender):
    spender.limit(spender.world.a1, 5)
    hold = spender("hold", spender.call, Tokens(input=5))
    usage = spender("settle", hold.id, "e1", Tokens(input=2))
    assert usage.cost_picos == 2 * 10**12
    assert spender("settle", hold.id, "e1", Tokens(input=2)) == usage
    for event, tokens in (("e1", ONE), ("e2", Tokens(input=2))):
        with pytest.raises(EventConflict):
            spender("settle", hold.id, event, tokens)
    counters = spender.read("ai_spend_counters", "spent_picos", "held_picos")
    assert counters == [(2 * 10**12, 0)]
    rollups = spender.read("ai_spend_rollups", "grain", "cost_picos", "calls")
    assert sorted(rollups) == [("day", 2 * 10**12, 1), ("month", 2 * 10**12, 1)]


def test_a_released_hold_counts_for_nothing_and_can_be_released_again(spender):
    spender.limit(spender.world.a1, 1)
    hold = spender("hold", spender.call, ONE)
    spender("release", hold.id)
    spender("release", hold.id)
    assert spender("hold", spender.call, ONE).group_id == spender.world.a1
    with pytest.raises(NotFound):
        spender("release", uuid4())


def test_the_spelling_of_a_calls_ids_changes_nothing(spender):
    """The id of a hold says the slot of its organization, which is a hash of the id."""
    call, own = spender.call, uuid4()
    texts = {name: str(getattr(call, name)).upper() for name in ("organization_id", "user_id")}
    written = replace(call, **texts)
    assert read_slot(spender("hold", written, ONE).id) == find_slot(call.organization_id)
    held = spender("hold", written, ONE, hold_id=own)
    assert spender("hold", call, ONE, hold_id=str(own)) == replace(held, was_known=True)
    assert spender("record", "e", written, ONE)[1] is True
    assert spender("record", "e", call, ONE)[1] is False


def test_what_is_not_the_id_of_a_hold_is_refused_before_any_sql(spender):
    wrong = "job-1"
    for act, arguments in (
        ("find_hold", (wrong,)),
        ("settle", (wrong, "e", ONE)),
        ("release", (wrong,)),
    ):
        with pytest.raises(ValueError, match=r"`hold_id` is `job-1`, not a UUID.*uuid5"):
            spender(act, *arguments)
    with pytest.raises(ValueError, match="not a UUID"):
        spender("extend", wrong, ttl_seconds=1)
    with pytest.raises(ValueError, match="not a UUID"):
        spender("hold", spender.call, ONE, hold_id=wrong)
    for ids in ({"user_id": 7}, {"organization_id": "acme"}):
        with pytest.raises(TypeError, match=r"expected an id|is not an id"):
            spender("hold", replace(spender.call, **ids), ONE)


def test_released_twice_at_once_a_hold_frees_its_money_once(spender):
    hold, _ = (spender("hold", spender.call, ONE) for _ in range(2))
    counter = TABLES.ai_spend_counters
    with ThreadPoolExecutor(2) as pool, spender.world.engine.begin() as connection:
        is_theirs = counter.c.user_id == spender.call.user_id
        connection.execute(sa.select(counter).where(is_theirs).with_for_update())
        both = [pool.submit(spender, "release", hold.id) for _ in range(2)]
        wait_for_waiters(spender.world.engine, 2)  # each has seen it open
        connection.rollback()
        assert [one.result() for one in both] == [None, None]
    assert spender.read("ai_spend_counters", "held_picos") == [(10**12,)]


@pytest.mark.parametrize("seconds", [0, MAX_TTL_SECONDS + 1, True, 60.0, "60", None], ids=repr)
def test_a_hold_lives_a_second_to_a_day(world, seconds):
    spender = Spender(world, clock=lambda: NOON)
    with pytest.raises(ValueError, match="an int from 1 to 86400"):
        spender("hold", spender.call, ONE, ttl_seconds=seconds)
    assert spender.read("ai_holds", "id") == []
    for bound in (1, 86_400):
        hold = spender("hold", spender.call, ONE, ttl_seconds=bound)
        assert hold.expires_at == NOON + timedelta(seconds=bound)


@pytest.mark.parametrize(
    "event", ["", "e" * 256, "a\nb", "\x00", "\x7f", "\x85", "\ud800"], ids=ascii
)
def test_an_events_id_is_1_to_255_characters_that_can_be_stored(spender, event):
    hold, world = spender("hold", spender.call, ONE), spender.world
    for act, arguments in (("settle", (hold.id, event)), ("record", (event, spender.call))):
        with (
            count_statements(world.engine) as sent,
            pytest.raises(ValueError, match=r"an event's id|surrogates"),
        ):
            spender(act, *arguments, ONE)
        assert not any(map(names_budget_table, sent))
    for known in ("e", "\u00e9" * 255):
        assert spender("record", known, spender.call, ONE)[0].event_id == known


def test_usage_without_a_hold_is_recorded_once_whatever_the_limit(spender):
    spender.limit(spender.world.a1, 0)
    usage, is_new = spender("record", "e1", spender.call, ONE)
    assert (usage.cost_picos, is_new) == (10**12, True)
    assert spender("record", "e1", spender.call, ONE) == (usage, False)
    with pytest.raises(EventConflict):
        spender("record", "e1", spender.call, Tokens(input=3))


def test_a_connection_prepares_each_statement_once_whatever_the_counts_are(spender):
    fresh = sa.create_engine(spender.world.engine.url, poolclass=sa.NullPool)
    with fresh.connect() as connection:
        grant = authorize(connection, spender.world.nobody, "create", ledger=True)
        for number in range(40):
            most, taken = Tokens(input=10 ** (3 + number % 3)), Tokens(input=10 ** (number % 6))
            hold = Spend.hold(grant, spender.call, most)
            Spend.settle(grant, hold.id, f"e{number}", taken)
        prepared = "SELECT count(*) FROM pg_prepared_statements"
        assert connection.exec_driver_sql(prepared).scalar() == 2


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
TOLD = {"event_id": "e1", "tokens": ONE, "occurred_at": NOON}
OTHERWISE = [
    *({"tokens": Tokens(**{"input": 1, category: 2})} for category in Tokens.model_fields),
    {"occurred_at": None},
    {"occurred_at": NOON + timedelta(microseconds=1)},
]


@pytest.mark.parametrize("other", [{"event_id": "e2"}, *OTHERWISE], ids=str)
def test_a_settled_hold_is_settled_again_by_the_same_event_alone(spender, other):
    told = {"hold_id": spender("hold", spender.call, ONE).id, **TOLD}
    usage = spender("settle", **told)
    for conflict in ({**told, **other}, {**told, "hold_id": spender("hold", spender.call, ONE).id}):
        with pytest.raises(EventConflict):
            spender("settle", **conflict)
    with pytest.raises(EventConflict):
        spender("record", **TOLD, call=spender.call)
    assert spender("settle", **told) == usage


@pytest.mark.parametrize(
    "other", [*OTHERWISE, *({name: "other"} for name in ("user_id", "provider", "model"))], ids=str
)
def test_recorded_usage_is_recorded_again_by_the_same_call_alone(spender, other):
    told = {**TOLD, "call": spender.call}
    usage, _ = spender("record", **told)
    call = {name: value for name, value in other.items() if name not in TOLD}
    if "user_id" in call:
        call["user_id"] = spender.world.joined
    conflict = {**told, **(other if not call else {"call": replace(spender.call, **call)})}
    with pytest.raises(EventConflict):
        spender("record", **conflict)
    with pytest.raises(EventConflict):
        spender("settle", **TOLD, hold_id=spender("hold", spender.call, ONE).id)
    assert spender("record", **told) == (usage, False)


def test_who_is_no_member_and_what_has_no_price_is_refused(spender):
    spender.limit(spender.world.a1, 1)
    stranger = Call(spender.world.a, spender.world.outsider, "acme", spender.model)
    with pytest.raises(NotAMember):
        spender("hold", stranger, ONE)
    for call, tokens in (
        (spender.call, Tokens(output=1)),
        (Call(spender.world.a, spender.world.member, "acme", "unknown"), ONE),
    ):
        with pytest.raises(UnpricedModel):
            spender("hold", call, tokens)


def test_spent_and_held_never_exceed_the_limit_by_an_admission(spender):
    """INVARIANT: of many at once, exactly those that fit are admitted."""
    spender.limit(spender.world.a1, 10)

    def ask(number):
        try:
            hold = spender("hold", spender.call, ONE)
        except BudgetExceeded:
            return 0
        if number % 2:
            spender("settle", hold.id, f"e{number}", ONE)
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(40))) == 10
    ((spent, held),) = spender.read("ai_spend_counters", "spent_picos", "held_picos")
    assert spent + held == 10 * 10**12


TOP = 10**18  # picos


@pytest.mark.parametrize("act", ["hold", "settle", "record"])
def test_a_call_costs_a_million_dollars_at_most(spender, act):
    """Exactly that is for the limit to judge; a pico more is refused, whatever the limit."""
    spender.limit(spender.world.a1, 10**6)
    prices = TABLES.ai_model_prices
    with spender.world.engine.begin() as connection:
        cheap = sa.update(prices).where(prices.c.model == spender.model).values(output_price=1)
        connection.execute(cheap)
    what = {
        "hold": lambda: (spender.call,),
        "settle": lambda: (spender("hold", spender.call, ONE).id, "e1"),
        "record": lambda: ("e1", spender.call),
    }[act]()
    before = spender.read("ai_spend_counters", "spent_picos", "held_picos")
    with pytest.raises(InvalidInput, match=str(TOP + 1)):
        spender(act, *what, Tokens(input=10**6, output=1))
    assert spender.read("ai_spend_counters", "spent_picos", "held_picos") == before
    spender(act, *what, Tokens(input=10**6))
    taken = spender.read("ai_spend_counters", "spent_picos", "held_picos")
    assert taken == [(0, TOP) if act == "hold" else (TOP, 0)]
    with pytest.raises(BudgetExceeded):
        spender("hold", spender.call, Tokens(input=10**6))
    with pytest.raises(InvalidInput):
        spender("hold", spender.call, Tokens(input=10**6, output=1))


# -- what is not known --

PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")


def priced(spender, *prices):
    """A call of the member to a model of its own, at these prices."""
    row = {"provider": "acme", "model": uuid4().hex, **dict(zip(PRICES, prices, strict=True))}
    with spender.world.engine.begin() as connection:
        connection.execute(sa.insert(TABLES.ai_model_prices), row)
    return replace(spender.call, model=row["model"])


@pytest.mark.parametrize("output_price", [None, 1])
def test_a_custom_price_that_is_not_known_wins_over_the_books(spender, output_price):
    spender.limit(spender.world.a1, 1)
    custom = {"provider": "acme", "model": spender.model, "source": "custom", "input_price": None}
    with spender.world.engine.begin() as connection:
        row = custom | {"output_price": output_price}
        connection.execute(sa.insert(TABLES.ai_model_prices), row)
    with pytest.raises(UnpricedModel, match="for `input`"):
        spender("hold", spender.call, ONE)
    assert spender("record", "e1", spender.call, ONE)[0].cost_picos is None


def test_what_is_known_of_recorded_usage_is_spent_and_flagged(spender):
    """One token without a price does not make a bill of 260 dollars free."""
    spender.limit(spender.world.a1, 1)
    call = priced(spender, 2_500_000, 10_000_000, 1_250_000, None)
    tokens = Tokens(input=10**8, output=10**6, cache_write=1)
    usage, _ = spender("record", "e1", call, tokens)
    assert (usage.cost_picos, usage.unpriced) == (260 * 10**12, ("cache_write",))
    assert spender("record", "e1", call, tokens) == (usage, False)
    assert spender.read("ai_spend_counters", "spent_picos") == [(260 * 10**12,)]
    rollups = spender.read("ai_spend_rollups", "cost_picos", "calls", "unpriced_calls")
    assert rollups == [(260 * 10**12, 1, 1)] * 2
    with pytest.raises(BudgetExceeded):
        spender("hold", spender.call, ONE)


@pytest.mark.parametrize(
    ("tokens", "cost", "unpriced"),
    [
        (Tokens(), 0, ()),
        (Tokens(input=2, output=3), 2 * 10**12, ()),
        (Tokens(input=2, cache_read=1), 2 * 10**12, ("cache_read",)),
        (Tokens(output=3, cache_read=1), 0, ("cache_read",)),
        (Tokens(cache_read=1, cache_write=1), None, ("cache_read", "cache_write")),
    ],
    ids=repr,
)
def test_a_cost_is_what_is_known_of_it_and_null_only_where_nothing_is(
    spender, tokens, cost, unpriced
):
    """By settle, record and hold alike; no limit holds for the member."""
    call = priced(spender, 10**12, 0, None, None)
    found = [spender("record", "e1", call, tokens)[0]]
    hold = spender("hold", replace(call, model="unknown"), ONE)
    assert (hold.cost_picos, hold.unpriced) == (None, ("input",))
    hold = spender("hold", call, Tokens(cache_write=1))
    found += [spender("settle", hold.id, "e2", tokens)]
    if any(tokens.counts):
        found += [spender("hold", call, tokens)]
    assert {(one.cost_picos, one.unpriced) for one in found} == {(cost, unpriced)}


def test_no_tokens_cost_nothing_of_a_model_that_nobody_knows_too(spender):
    unknown = replace(spender.call, model="unknown")
    hold = spender("hold", unknown, ONE)
    usage = spender("settle", hold.id, "e1", Tokens())
    assert (usage.cost_picos, usage.unpriced) == (0, ())
    usage, _ = spender("record", "e2", unknown, Tokens())
    assert (usage.cost_picos, usage.unpriced) == (0, ())
    assert spender.read("ai_spend_rollups", "calls", "unpriced_calls") == [(2, 0)] * 2


@pytest.mark.parametrize("limit", [None, 0, 1])
def test_a_hold_of_no_tokens_is_refused(spender, limit):
    """It would be admitted at limit 0, and then settle anything."""
    if limit is not None:
        spender.limit(spender.world.a1, limit)
    with pytest.raises(InvalidInput, match="at least one token"):
        spender("hold", spender.call, Tokens())
    assert spender.read("ai_holds", "id") == []


@pytest.mark.parametrize(
    ("held", "used", "recorded"),
    [
        (Tokens(input=2), Tokens(input=2, cache_read=1), 2),
        (Tokens(input=2), Tokens(cache_read=1), 2),
        (Tokens(input=2), Tokens(input=3, output=9), 3),
    ],
)
def test_a_call_of_unknown_cost_costs_what_was_held_or_what_is_known(spender, held, used, recorded):
    """Unpriced, and not free: one token of a category without a price frees no money."""
    spender.limit(spender.world.a1, 3)
    hold = spender("hold", spender.call, held)
    usage = spender("settle", hold.id, "e1", used)
    assert usage.cost_picos == recorded * 10**12
    assert "cache_read" in usage.unpriced or "output" in usage.unpriced
    counters = spender.read("ai_spend_counters", "spent_picos", "held_picos")
    assert counters == [(recorded * 10**12, 0)]
    rollups = spender.read("ai_spend_rollups", "cost_picos", "calls", "unpriced_calls")
    assert rollups == [(recorded * 10**12, 1, 1)] * 2
    assert spender("settle", hold.id, "e1", used) == usage
    with pytest.raises(BudgetExceeded):
        spender("hold", spender.call, Tokens(input=4 - recorded))


def test_a_call_of_an_unpriced_hold_is_priced_where_it_can_be(spender):
    """No limit holds for the member: an unpriced call is admitted."""
    hold = spender("hold", spender.call, Tokens(output=1))
    assert (hold.cost_picos, spender("settle", hold.id, "e1", ONE).cost_picos) == (None, 10**12)
    hold = spender("hold", spender.call, Tokens(input=5, output=1))
    assert (hold.cost_picos, hold.unpriced) == (5 * 10**12, ("output",))
    usage = spender("settle", hold.id, "e2", Tokens(input=1, output=1))
    assert (usage.cost_picos, usage.unpriced) == (10**12, ("output",)), "it was never priced whole"


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_under_allow_an_unpriced_call_does_not_pass_an_exhausted_budget(world, limit):
    """It has to find room for a pico at least: it is not known to cost nothing."""
    spender = Spender(world, unpriced=Unpriced.ALLOW)
    spender.limit(world.a1, limit)
    half, few = priced(spender, 0, None, None, None), Tokens(input=1, output=1)
    for number in range(limit):
        assert spender("hold", half, few).unpriced == ("output",)
        spender("record", f"e{number}", spender.call, ONE)
    for call, tokens in ((spender.call, Tokens(output=1)), (half, few)):
        with pytest.raises(BudgetExceeded):
            spender("hold", call, tokens)
    assert spender("hold", half, ONE).cost_picos == 0


def test_under_allow_what_is_known_of_a_call_is_held_and_has_to_fit(world):
    spender = Spender(world, unpriced=Unpriced.ALLOW)
    spender.limit(world.a1, 3)
    hold = spender("hold", spender.call, Tokens(input=2, output=1))
    assert (hold.cost_picos, hold.unpriced) == (2 * 10**12, ("output",))
    assert spender.read("ai_spend_counters", "held_picos") == [(2 * 10**12,)]
    with pytest.raises(BudgetExceeded):
        spender("hold", spender.call, Tokens(input=2, output=1))


@pytest.mark.slow
def test_a_hold_that_waited_expires_from_when_it_is_held(spender):
    """It would be granted expired, and its money be there for the next one."""
    spender.limit(spender.world.a1, 1)
    spender("release", spender("hold", spender.call, ONE).id)
    counter = TABLES.ai_spend_counters
    with ThreadPoolExecutor(1) as pool, spender.world.engine.begin() as connection:
        is_theirs = counter.c.user_id == spender.call.user_id
        connection.execute(sa.select(counter).where(is_theirs).with_for_update())
        waiting = pool.submit(spender, "hold", spender.call, ONE, ttl_seconds=1)
        time.sleep(1.2)
        let_go = connection.scalar(sa.text("SELECT clock_timestamp()"))
        connection.rollback()
        hold = waiting.result()
    assert hold.expires_at > let_go + timedelta(seconds=0.9)


def test_another_body_is_a_conflict_however_much_it_would_cost(spender):
    hold = spender("hold", spender.call, ONE)
    spender("settle", hold.id, "e1", ONE)
    with pytest.raises(EventConflict):
        spender("settle", hold.id, "e1", Tokens(input=10**12))


def test_the_figures_of_a_refusal_are_exact_however_the_host_reads_json(world):
    """Such as by orjson, which takes a number of more than 64 bits for a float."""

    def read_json(text):
        return json.loads(
            text, parse_int=lambda digits: (int if len(digits) < 19 else float)(digits)
        )

    spender = Spender(world)
    spender.limit(world.a1, 1)
    spent = 10**24 + 1
    spender("record", "e1", spender.call, ONE)
    with world.engine.begin() as connection:
        connection.execute(sa.update(TABLES.ai_spend_counters).values(spent_picos=spent))
    engine = sa.create_engine(world.engine.url, json_deserializer=read_json)
    spender.gov = find_gov(engine=engine)
    with pytest.raises(BudgetExceeded) as refused:
        spender("hold", spender.call, ONE)
    engine.dispose()
    assert refused.value.spent_picos == spent
    assert refused.value.limit_micros == 10**6
