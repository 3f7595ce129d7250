"""`with govbudget.hold(...)`: what becomes of the money, however the block ends."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from uuid import uuid4

import pytest
import sqlalchemy as sa
from flask import Flask, current_app
from tests.policy.helpers import LINES, load
from tests.spend.test_store import Spender
from tests.support import TABLES, packaged_policy

from govbudget import (
    BudgetExceeded,
    Forbidden,
    GovBudget,
    GovBudgetError,
    NotAMember,
    SqlDirectory,
    Tokens,
)
from govbudget.identity import OPERATOR
from govbudget.spend.errors import EventConflict
from govbudget.spend.usage import Call
from govbudget.web.signals import call_refused

ONE, TWO = Tokens(input=1), Tokens(input=2)
DOLLAR = 10**12
GIVE_GATEWAY = (
    "give `{}`, on the site, the role of a line that allows it: policy.csv:16 (gateway in its site)"
)
UNMAPPED = "; `roles=` of the SqlDirectory maps none of yours to it"
NAIVE = datetime(2026, 11, 28)  # noqa: DTZ001 - that is what is wrong with it


@lru_cache(maxsize=1)
def install(engine):
    """Give the host's application, which is made once for these tests, and its extension."""
    app = Flask(__name__)
    options = {"identify": lambda: None, "policy": packaged_policy()}
    return app, GovBudget().init_app(app, engine=engine, **options)


class Meter:
    """A host that makes calls for the member of a world, whose limit is three dollars."""

    def __init__(self, world):
        self.world, self.spender = world, Spender(world)
        self.spender.limit(world.a1, 3)
        self.call = self.spender.call
        self.app, self.govbudget = install(world.engine)

    def hold(self, tokens=TWO, gateway=None, call=None, **options):
        gateway = gateway or self.world.gateway
        return self.govbudget.hold(gateway, call or self.call, tokens, **options)

    @property
    def spent_and_held(self):
        rows = self.spender.read("ai_spend_counters", "spent_picos", "held_picos")
        return tuple(int(value) // DOLLAR for value in rows[0]) if rows else (0, 0)


@pytest.fixture
def meter(world):
    meter = Meter(world)
    with meter.app.app_context():
        yield meter


def test_a_block_settles_what_the_call_took_and_frees_the_rest(meter):
    with meter.hold() as hold:
        assert meter.spent_and_held == (0, 2)
        usage = hold.settle(ONE)
    assert meter.spent_and_held == (1, 0)
    assert (usage.event_id, usage.cost_picos) == (str(hold.hold.id), DOLLAR)


def test_settling_again_after_a_lost_answer_books_once(meter):
    with meter.hold() as hold:
        assert hold.settle(ONE) == hold.settle(ONE)
    assert meter.spent_and_held == (1, 0)


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("counted", [0, 1, 2])
def test_a_block_that_raises_settles_what_it_counted_and_else_releases(meter, ending, counted):
    with pytest.raises(ending), meter.hold() as hold:
        for _ in range(counted):
            hold.count(ONE)
        raise ending
    assert meter.spent_and_held == (counted, 0)


def test_a_generator_that_is_closed_or_forgotten_settles_what_was_counted(meter):
    """A client that leaves in the midst of a stream has had what was streamed until then."""

    def stream():
        with meter.hold() as hold:
            while True:
                hold.count(ONE)
                yield "a token"

    for end, spent in ((lambda s: s.close(), 1), (lambda s: None, 2)):
        streamed = stream()
        next(streamed)
        assert meter.spent_and_held[1] == 2
        end(streamed)
        del streamed
        assert meter.spent_and_held == (spent, 0)


def test_an_async_generator_that_is_closed_settles_too(meter):
    async def stream():
        with meter.hold() as hold:
            hold.count(ONE)
            yield "a token"

    async def read_one():
        async with aclosing(stream()) as streamed:
            await anext(streamed)

    asyncio.run(read_one())
    assert meter.spent_and_held == (1, 0)


def test_holds_within_holds_end_each_for_itself(meter):
    with meter.hold(ONE) as outer:
        with pytest.raises(ValueError, match="inner"), meter.hold(ONE):
            assert meter.spent_and_held == (0, 2)
            raise ValueError("inner")
        assert meter.spent_and_held == (0, 1)
        outer.settle(ONE)
    assert meter.spent_and_held == (1, 0)


@pytest.mark.slow
def test_a_hold_that_expires_within_its_block_is_settled_all_the_same(meter):
    with meter.hold(ttl_seconds=1) as hold:
        time.sleep(1.1)
        hold.count(ONE)
    assert meter.spent_and_held == (1, 0)


def test_settling_again_with_other_tokens_is_a_conflict_and_books_once(meter):
    with pytest.raises(EventConflict), meter.hold() as hold:
        hold.settle(ONE)
        hold.settle(TWO)
    assert meter.spent_and_held == (1, 0)


NO_TIMES = [
    *("2026-01-01T00:00:00Z", NAIVE.date(), NAIVE),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
]


@pytest.mark.parametrize(
    "wrong",
    [{"event_id": ""}, {"event_id": 5}, *({"occurred_at": time} for time in NO_TIMES)],
    ids=str,
)
def test_tokens_that_were_told_are_spent_though_the_rest_cannot_be_taken(meter, wrong):
    with pytest.raises(GovBudgetError) as refused, meter.hold() as hold:
        hold.settle(ONE, **wrong)
    assert refused.value.code == "input-invalid"
    assert meter.spent_and_held == (1, 0)


def test_what_was_settled_stays_settled_when_the_block_raises_afterwards(meter):
    with pytest.raises(ValueError, match="late"), meter.hold() as hold:
        hold.settle(TWO)
        raise ValueError("late")
    assert meter.spent_and_held == (2, 0)


def test_what_was_counted_is_settled_at_the_end(meter):
    with meter.hold() as hold:
        hold.count(ONE)
        hold.count(ONE)
    assert hold.usage.tokens == TWO
    assert meter.spent_and_held == (2, 0)


def test_a_block_can_release_and_must_not_forget(meter):
    with meter.hold() as hold:
        hold.release()
    assert meter.spent_and_held == (0, 0)
    forgot = pytest.raises(GovBudgetError, match=r"without settle\(\), count\(\) or release\(\)")
    with forgot, meter.hold():
        pass
    assert meter.spent_and_held == (0, 2)


def test_a_refused_call_never_enters_its_block(meter):
    stranger = Call(meter.world.a, meter.world.outsider, "acme", meter.spender.model)
    for error, options in (
        (BudgetExceeded, {"tokens": Tokens(input=4)}),
        (NotAMember, {"call": stranger}),
        (Forbidden, {"gateway": meter.world.owner}),
    ):
        with pytest.raises(error), meter.hold(**options):
            pytest.fail("the block was entered")
    assert meter.spent_and_held == (0, 0)


@pytest.mark.parametrize(
    ("lines", "roles", "hint"),
    [
        (LINES, None, GIVE_GATEWAY),
        (LINES, {"boss": "gateway"}, GIVE_GATEWAY),
        (LINES, {"boss": "owner"}, GIVE_GATEWAY + UNMAPPED),
        (
            LINES + b"p, owner, site, ai_usage, create, deny\n",
            None,
            "policy.csv:31 denies it to a role of `{}`",
        ),
        (
            re.sub(b"p, gateway.*", b"", LINES),
            None,
            "no line allows it; add `p, gateway, site, ai_usage, create, allow`",
        ),
    ],
)
def test_who_may_not_hold_is_told_which_line_role_and_place_would_allow_it(
    meter, lines, roles, hint
):
    app, tables = Flask(__name__), TABLES
    directory = SqlDirectory(
        groups=tables.groups,
        group_members=tables.group_members,
        organization_members=tables.organization_members,
        role_assignments=tables.role_assignments,
        roles=roles,
    )
    govbudget = GovBudget().init_app(
        app,
        engine=meter.world.engine,
        identify=lambda: None,
        policy=load(lines=lines),
        directory=directory,
    )
    owner = meter.world.owner
    with pytest.raises(Forbidden) as caught, govbudget.hold(owner, meter.call, ONE):
        pytest.fail("the block was entered")
    assert str(caught.value).endswith(f"here; {hint.format(owner)}")


def test_a_role_taken_away_within_the_block_books_nothing(meter):
    """Each step asks the policy anew; the hold expires by itself."""
    with pytest.raises(Forbidden), meter.hold() as hold:
        roles = TABLES.role_assignments
        with meter.world.engine.begin() as connection:
            connection.execute(sa.delete(roles).where(roles.c.user_id == meter.world.gateway))
        hold.settle(ONE)
    assert meter.spent_and_held == (0, 2)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"gateway": "nobody"}, "input-invalid"),
        ({"gateway": 5}, "input-invalid"),
        ({"gateway": OPERATOR}, "input-invalid"),  # who may do all that the site may
        ({"ttl_seconds": 0}, "input-invalid"),
        ({"ttl_seconds": "600"}, "input-invalid"),
        ({"tokens": {"input": -1}}, "input-invalid"),
        ({"tokens": 5}, "input-invalid"),
        ({"tokens": Tokens(input=10**12)}, "invalid-body"),  # costs more than a call may
        ({"call": Call(1, 2, "acme", "m")}, "input-invalid"),
        ({"call": ("a", "b")}, "internal-error"),
        ({"nul": True}, "input-invalid"),
    ],
)
def test_what_is_wrong_with_a_hold_is_an_error_of_ours_and_holds_nothing(meter, wrong, code):
    if wrong.pop("nul", False):
        wrong["call"] = replace(meter.call, model="a\x00b")
    with pytest.raises(GovBudgetError) as refused, meter.hold(**wrong):
        pytest.fail("the block was entered")
    assert refused.value.code == code
    assert meter.spent_and_held == (0, 0)


@pytest.mark.parametrize("wrong", [{"provider": None}, {"model": None}, {"model": 5}], ids=str)
def test_a_call_names_its_provider_and_model(meter, wrong):
    with pytest.raises(TypeError, match="the provider and the model of a call are texts"):
        replace(meter.call, **wrong)


@pytest.mark.parametrize("tokens", [5, {"input": -1}, Tokens(input=10**12)])
def test_what_cannot_be_counted_is_an_error_of_ours_and_the_rest_is_settled(meter, tokens):
    with pytest.raises(GovBudgetError) as refused, meter.hold() as hold:
        hold.count(ONE)
        hold.count(tokens)
    assert refused.value.code == "input-invalid"
    assert meter.spent_and_held == (1, 0)


def test_the_text_of_a_refusal_has_all_figures_in_one_unit(meter):
    with meter.hold(ONE) as hold:
        hold.settle(ONE)
    end = meter.spender.report()[0].period.end.astimezone(UTC)
    with meter.hold(ONE) as hold, pytest.raises(BudgetExceeded) as refused:
        hold.count(ONE)
        with meter.hold(TWO):
            pytest.fail("the block was entered")
    assert str(refused.value) == (
        "this call does not fit under the member's limit: limit 3000000, spent 1000000, "
        f"held 1000000, asked 2000000 micros; the period ends at {end:%Y-%m-%dT%H:%M:%SZ}"
    )


@contextmanager
def failing(meter, table):
    """Let every statement on a table fail for the length of the block."""
    with meter.world.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE govbudget.{table} RENAME TO gone")
    try:
        yield
    finally:
        with meter.world.engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE govbudget.gone RENAME TO {table}")


def test_what_was_told_is_settled_at_the_end_where_the_database_had_failed(meter):
    """The call was made: its hold is never released."""
    failed = pytest.raises(GovBudgetError, match="db upgrade")
    with failed, meter.hold() as hold, failing(meter, "ai_usage"):
        hold.settle(ONE)
    assert meter.spent_and_held == (1, 0)


def test_what_cannot_be_settled_at_all_is_left_to_expire(meter, caplog):
    """The block's own exception is the one that is raised."""
    raised = pytest.raises(KeyError, match="of the block")
    with failing(meter, "ai_usage"), raised, meter.hold() as hold:
        hold.count(ONE)
        raise KeyError("of the block")
    assert meter.spent_and_held == (0, 2)
    assert "left to expire" in caplog.text


def test_a_database_that_is_away_is_an_error_of_ours(meter):
    away = sa.create_engine("postgresql+psycopg://x@127.0.0.1:1/x")
    host = GovBudget().init_app(Flask(__name__), engine=away, identify=lambda: None)
    with pytest.raises(GovBudgetError) as refused, host.hold(meter.world.gateway, meter.call, ONE):
        pytest.fail("the block was entered")
    assert refused.value.code == "unavailable"


def test_a_call_refused_because_the_database_is_away_leaves_a_line_and_a_signal(meter, caplog):
    """As every refusal does: who asked, for whom and why not."""
    caplog.set_level(logging.INFO, "govbudget.request")
    away = sa.create_engine("postgresql+psycopg://x@127.0.0.1:1/x")
    app, told = Flask(__name__), []
    host = GovBudget().init_app(app, engine=away, identify=lambda: None)

    def receive(_app, **facts):
        told.append(facts)

    ask = host.hold(meter.world.gateway, meter.call, ONE)
    with call_refused.connected_to(receive, app), pytest.raises(GovBudgetError) as refused, ask:
        pytest.fail("the block was entered")
    (facts,) = told
    assert (facts["caller"], facts["call"]) == (meter.world.gateway, meter.call)
    assert facts["refusal"].code == refused.value.code == "unavailable"
    (line,) = (r.govbudget for r in caplog.records if r.name == "govbudget.request")
    assert (line["decision"], line["code"]) == ("deny", "unavailable")
    assert (line["organization"], line["user"]) == (meter.call.organization_id, meter.call.user_id)
    assert (line["caller"], line["request_id"]) == (facts["caller"], facts["request_id"])
    assert line["digest"] == host.policy.digest


def test_a_host_whose_own_code_fails_in_a_hold_gets_an_error_of_ours(meter):
    def fail():
        raise KeyError("the host's")

    gateway = meter.world.gateway
    for broken, code in (("engine", "settings-invalid"), ("features", "internal-error")):
        arguments = {"engine": meter.world.engine, "identify": fail, broken: fail}
        host = GovBudget().init_app(Flask(__name__), **arguments)
        with pytest.raises(GovBudgetError) as refused, host.hold(gateway, meter.call, ONE):
            pytest.fail("the block was entered")
        assert refused.value.code == code
        assert isinstance(refused.value.__cause__, KeyError)


# -- the feature, the context, and the trace of a refusal --


def test_a_feature_that_is_off_holds_nothing_and_what_was_held_is_ended(meter):
    on = {"aibridge"}
    arguments = {"engine": meter.world.engine, "identify": lambda: None, "features": lambda: on}
    host = GovBudget().init_app(Flask(__name__), **arguments)
    ask = meter.world.gateway, meter.call, ONE
    with host.hold(*ask) as settled, host.hold(*ask) as released:
        on.clear()
        with pytest.raises(GovBudgetError) as refused, host.hold(*ask):
            pytest.fail("the block was entered")
        settled.settle(ONE)
        released.release()
    assert refused.value.code == "feature-disabled"
    assert meter.spent_and_held == (1, 0)


def test_it_needs_no_context_of_flasks(world):
    """Not even where the host's engine is found by its application's context."""
    meter = Meter(world)
    host, other = Flask(__name__), Flask("other")
    host.extensions["engine"] = world.engine
    find = lambda: current_app.extensions["engine"]  # noqa: E731
    installed = GovBudget().init_app(host, engine=find, identify=lambda: None)
    with installed.hold(world.gateway, meter.call, ONE) as opened:
        opened.settle(ONE)
    with other.app_context(), installed.hold(world.gateway, meter.call, ONE) as opened:
        opened.settle(ONE)
    assert meter.spent_and_held == (2, 0)


@pytest.fixture
def refusals(meter):
    """What the signal tells, whatever another of its receivers does."""
    told = []

    def receive(_app, **facts):
        told.append(facts)

    def fail(_app, **_facts):
        raise RuntimeError("a receiver's")

    with call_refused.connected_to(fail, meter.app), call_refused.connected_to(receive, meter.app):
        yield told


def test_a_refused_call_leaves_a_line_and_a_signal(meter, refusals, caplog):
    """Who asked, for whom, why not, and by what figures; never that it was allowed."""
    caplog.set_level(logging.INFO, "govbudget.request")
    world = meter.world
    stranger = replace(meter.call, user_id=world.outsider)
    unknown = replace(meter.call, model="unknown")
    for code, options in (
        ("budget-exceeded", {"tokens": Tokens(input=4)}),
        ("not-a-member", {"call": stranger}),
        ("unpriced-model", {"call": unknown}),
        ("forbidden", {"gateway": world.owner}),
    ):
        with pytest.raises(GovBudgetError) as refused, meter.hold(**options):
            pytest.fail("the block was entered")
        facts = refusals.pop()
        call = options.get("call", meter.call)
        assert facts.keys() == {"caller", "call", "refusal", "request_id"}
        assert facts["refusal"] is refused.value
        assert (facts["refusal"].code, facts["call"]) == (code, call)
        assert facts["caller"] == options.get("gateway", world.gateway)
        lines = [r.govbudget for r in caplog.records if r.name == "govbudget.request"]
        caplog.clear()
        (line,) = lines
        assert (line["decision"], line["code"]) == ("deny", code)
        assert (line["organization"], line["user"]) == (world.a, call.user_id)
        assert (line["caller"], line["request_id"]) == (facts["caller"], facts["request_id"])
        if code == "budget-exceeded":
            assert (line["spend_limit_micros"], line["cost_micros"]) == (3_000_000, 4_000_000)
    assert refusals == []


def test_what_is_only_asked_wrongly_is_no_refusal(meter, refusals):
    with pytest.raises(GovBudgetError), meter.hold(ttl_seconds=0):
        pytest.fail("the block was entered")
    assert refusals == []


# -- a hold of one's own --


def test_a_block_that_is_entered_again_has_the_hold_that_it_had(meter):
    """As after a crash; the money is set aside once."""
    own = uuid4()
    for _ in range(2):
        with suppress(ProcessEnded), meter.hold(hold_id=own) as hold:
            hold.end = crash
            assert (hold.hold.id, meter.spent_and_held) == (own, (0, 2))
            raise ProcessEnded
    with meter.hold(hold_id=str(own)) as hold:
        hold.settle(ONE)
    assert meter.spent_and_held == (1, 0)
    with pytest.raises(GovBudgetError, match="settled"), meter.hold(hold_id=own):
        pytest.fail("the call was made already")
    with pytest.raises(GovBudgetError, match="asked for otherwise"), meter.hold(ONE, hold_id=own):
        pytest.fail("another call has another id")
    with pytest.raises(GovBudgetError) as refused, meter.hold(hold_id="7"):
        pytest.fail("an id is a UUID")
    assert refused.value.code == "input-invalid"


class ProcessEnded(BaseException):
    """What no block outlives."""


def crash(**_):
    """End nothing."""


def test_a_block_extends_its_hold_and_one_that_expired_where_it_fits(meter):
    own = uuid4()
    with meter.hold(ttl_seconds=1, hold_id=own) as hold:
        before = hold.hold.expires_at
        assert hold.extend(60).expires_at == hold.hold.expires_at > before
        change = sa.update(TABLES.ai_holds).values(expires_at=datetime(2026, 1, 1, tzinfo=UTC))
        with meter.world.engine.begin() as connection:
            connection.execute(change.where(TABLES.ai_holds.c.id == own))
        assert hold.extend(60).state == "open"
        with meter.world.engine.begin() as connection:
            connection.execute(change.where(TABLES.ai_holds.c.id == own))
        with meter.hold() as other:
            told = []
            listening = call_refused.connected_to(lambda _app, **facts: told.append(facts))
            with listening, pytest.raises(BudgetExceeded):
                hold.extend(60)
            other.release()
            assert [facts["refusal"].code for facts in told] == ["budget-exceeded"]
        with pytest.raises(GovBudgetError) as refused:
            hold.extend(0)
        assert refused.value.code == "input-invalid"
        hold.release()
    with pytest.raises(GovBudgetError, match="released"), meter.hold(ttl_seconds=1, hold_id=own):
        pytest.fail("it was released")


def test_a_block_settles_by_the_model_that_answered(meter):
    with meter.hold() as hold:
        usage = hold.settle(ONE, provider="other", model="unknown")
    assert (usage.provider, usage.model, usage.unpriced) == ("other", "unknown", ("input",))
