"""The how-tos for a host's own code: what they show runs, and comes out so."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from flask_login import LoginManager, UserMixin
from flask_wtf.csrf import CSRFProtect
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from tests.docs.support import ROOT, read_blocks
from tests.support import ROUTES, TABLES, Client, budget_path, make_app, spend_requests

from govbudget import BudgetExceeded, Call, Forbidden, GovBudgetError, NotFound, Tokens

pytestmark = pytest.mark.slow

HOW_TO = ROOT / "docs" / "how-to"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
# A micro for each token.
PARROT = {"provider": "acme", "model": "parrot", "source": "custom"}
PRICE = {**PARROT, "input_price": 10**6, "output_price": 10**6}


def read_page(name):
    """What the Python blocks of a page define."""
    names = {}
    for block in read_blocks(HOW_TO / name, "python"):
        exec(compile(block, name, "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture
def host(engine, world):
    """An application, and a member who may spend 2,500 micros; a token of acme's parrot is one."""
    app = make_app(engine)
    gov = app.extensions["govbudget"]
    with engine.begin() as connection:
        connection.execute(sa.delete(TABLES.ai_model_prices))
        connection.execute(sa.insert(TABLES.ai_model_prices), PRICE)
    limit(gov, world, 2_500)
    call = Call(world.a, world.member, "acme", "parrot")

    def report():
        with gov.unit(world.member) as unit:
            spend = gov.reports.member(unit.authorize("read", member=(world.a, world.member)))
        return spend.spent_picos // 10**6, spend.held_picos // 10**6

    return SimpleNamespace(app=app, gov=gov, world=world, call=call, report=report)


def limit(gov, world, micros):
    with gov.unit(world.owner) as unit:
        return gov.budgets.set(unit.authorize("update", group=world.a1), micros)


@pytest.fixture
def impatient(database_url):
    """An engine whose statements wait for a lock for a moment only."""
    options = {"options": "-c lock_timeout=200"}
    engine = sa.create_engine(database_url, poolclass=sa.NullPool, connect_args=options)
    return make_app(engine).extensions["govbudget"]


# -- stream-answers.md --


@pytest.fixture
def stream(host):
    """Ask the application of the page; the model gives what the test says."""
    log_in, pieces = LoginManager(host.app), []
    host.app.secret_key = "a secret"
    user = UserMixin()
    user.id = host.world.member
    log_in.request_loader(lambda _request: user)

    def ask_model(_question):
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    read_page("stream-answers.md").add_stream(host.app, host.world.gateway, ask_model)

    def ask(*given):
        pieces[:] = given
        form = {"question": "hello"}
        return host.app.test_client().post(f"/organizations/{host.world.a}/ask", data=form)

    return ask


PIECES = [("hello", Tokens(input=100, output=10)), (", hello", Tokens(output=20))]


def test_a_stream_is_charged_what_it_counted(host, stream):
    answer = stream(*PIECES)
    assert (answer.status_code, answer.text) == (200, "hello, hello")
    assert host.report() == (130, 0)


def test_a_stream_that_is_refused_is_a_403_before_it_starts(host, stream):
    limit(host.gov, host.world, 1_999)
    answer = stream(*PIECES)
    assert answer.status_code == 403
    assert "limit 1999, spent 0, held 0, asked 2000 micros" in answer.text


@pytest.mark.parametrize(("read", "spent"), [(1, 110), (2, 130)])
def test_a_stream_that_is_closed_is_charged_what_it_had_counted(host, stream, read, spent):
    answer = stream(*PIECES)  # the client of the tests takes the first piece with the status
    pieces = answer.iter_encoded()
    assert host.report() == (0, 2000)
    for _ in range(read):
        next(pieces)
    answer.close()
    assert host.report() == (spent, 0)


@pytest.mark.parametrize(("counted", "spent"), [(PIECES, 130), ([], 0)])
def test_a_stream_that_raises_is_charged_what_it_had_counted(host, stream, counted, spent):
    with pytest.raises(RuntimeError):
        stream(*counted, RuntimeError("the model is away")).get_data()
    assert host.report() == (spent, 0)


# -- background-workers.md --


def test_threads_hold_and_settle_each_for_itself(host):
    """Without a context of Flask's; one of them does not fit any more."""
    summarize_all = read_page("background-workers.md").summarize_all
    limit(host.gov, host.world, 20_000)

    def ask_model(document):
        return f"{document} in short", Tokens(input=900, output=100)

    place = (host.world.gateway, host.world.a, host.world.member)
    answers = summarize_all(host.gov, *place, ["a", "b", "c"], ask_model)
    assert answers == ["a in short", "b in short", "c in short"]
    assert host.report() == (3000, 0)
    limit(host.gov, host.world, 3_001)
    (answer,) = summarize_all(host.gov, *place, ["d"], ask_model)
    assert answer.startswith("not summarized: this call does not fit")


def test_an_event_of_a_job_that_is_run_again_is_recorded_once(host):
    """And is a conflict with other tokens."""
    record = read_page("python-by-task.md").record
    event = uuid4().hex
    first, again = (
        record(host.gov, host.world.gateway, event, host.call, Tokens(input=5)) for _ in range(2)
    )
    assert again[0] == first[0]
    with pytest.raises(GovBudgetError) as conflict:
        record(host.gov, host.world.gateway, event, host.call, Tokens(input=6))
    assert conflict.value.code == "event-conflict"
    assert host.report() == (5, 0)


# -- settle-from-an-answer.md --

USED = {"prompt_tokens": 1_800, "completion_tokens": 200, "total_tokens": 2_000}
SDK, CONVERSE, JSON, IMAGES, RATED, COUNTED = read_blocks(
    HOW_TO / "settle-from-an-answer.md", "python"
)


class Completion:
    """Stands for an answer of an SDK: an object that gives the JSON of its provider."""

    service_tier = "default"

    def __init__(self, **answer):
        self.answer = answer

    def model_dump(self, **_options):
        return {"object": "chat.completion", "usage": USED, **self.answer}


@pytest.fixture
def names(host):
    """What the blocks of the page find: a host's own clients, its call and its messages."""

    def create(*, model, messages, max_tokens):
        assert (messages, max_tokens) == (["hello"], 500)
        return Completion(model=model)

    def converse(**asked):
        assert asked == {"modelId": "parrot", "messages": ["hello"]}
        return {"usage": {"inputTokens": 1_800, "outputTokens": 200, "totalTokens": 2_000}}

    chat = SimpleNamespace(completions=SimpleNamespace(create=create))
    ours = {"gov": host.gov, "gateway_id": host.world.gateway, "call": host.call, "Tokens": Tokens}
    clients = {"client": SimpleNamespace(chat=chat), "bedrock": SimpleNamespace(converse=converse)}
    return {**ours, **clients, "messages": ["hello"]}


@pytest.mark.parametrize("block", [SDK, CONVERSE, COUNTED], ids=["an SDK", "Bedrock", "counted"])
def test_an_answer_is_charged_what_it_says_that_it_took(host, names, block):
    pytest.importorskip("genai_prices")
    exec(compile(block, "settle-from-an-answer.md", "exec"), names)
    assert host.report() == (2_000, 0)


@pytest.mark.parametrize(("tier", "rate"), [("default", ""), ("flex", "@flex")])
def test_an_answer_is_charged_at_the_rate_that_it_names(host, names, monkeypatch, tier, rate):
    pytest.importorskip("genai_prices")
    monkeypatch.setattr(Completion, "service_tier", tier)
    exec(compile(RATED, "settle-from-an-answer.md", "exec"), names)
    assert names["hold"].usage.model == host.call.model + rate


def test_an_answer_that_cannot_be_read_is_charged_what_was_set_aside(host, names, monkeypatch):
    pytest.importorskip("genai_prices")
    monkeypatch.setitem(USED, "parts_of_a_new_kind", 7)
    with pytest.raises(ValueError, match="parts_of_a_new_kind"):
        exec(compile(COUNTED, "settle-from-an-answer.md", "exec"), names)
    assert host.report() == (2_500, 0)


def test_of_an_answer_as_json_the_page_says_whose_it_is():
    """What xAI reasoned is beside the output."""
    pytest.importorskip("genai_prices")
    details = {"completion_tokens_details": {"reasoning_tokens": 50}}
    usage = {**USED, **details, "total_tokens": 2_050}
    names = {"Tokens": Tokens, "payload": {"model": "grok-4.5", "usage": usage}}
    exec(compile(JSON, "settle-from-an-answer.md", "exec"), names)
    assert names["tokens"] == Tokens(input=1_800, output=250)


def test_of_an_answer_of_images_the_page_says_the_model():
    pytest.importorskip("genai_prices")
    of_input, of_output = {"text_tokens": 10, "image_tokens": 40}, {"image_tokens": 1_056}
    usage = {"input_tokens": 50, "input_tokens_details": of_input, "output_tokens": 1_056}
    answer = Completion(usage={**usage, "output_tokens_details": of_output})
    names = {"Tokens": Tokens, "response": answer}
    exec(compile(IMAGES, "settle-from-an-answer.md", "exec"), names)
    assert names["tokens"] == Tokens(input=10, input_image=40, output_image=1_056)


# -- async-hosts.md --


@pytest.mark.parametrize("end", ["well", "raised", "cancelled"])
@pytest.mark.parametrize("counted", [0, 40])
def test_an_async_call_settles_or_releases_however_it_ends(host, end, counted):
    page = read_page("async-hosts.md")
    most, waits = Tokens(input=2_000), asyncio.Event()

    async def ask_model():
        async with page.hold_async(host.gov, host.world.gateway, host.call, most) as hold:
            if counted or end == "well":
                hold.count(Tokens(input=counted))
            waits.set()
            if end == "raised":
                raise RuntimeError
            if end == "cancelled":
                await asyncio.sleep(60)

    async def run():
        task = asyncio.create_task(ask_model())
        await waits.wait()
        if end == "cancelled":
            task.cancel()
        with suppress(RuntimeError, asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert host.report() == (counted, 0)


def test_the_async_calls_of_the_page_run(host):
    page = read_page("async-hosts.md")

    async def ask_model():
        return "hello", Tokens(input=7)

    async def run():
        await page.set_limit(host.gov, host.world.owner, host.world.a1, 100)
        place = (host.gov, host.world.gateway, host.call)
        assert await page.ask(*place, Tokens(input=100), ask_model) == "hello"
        with pytest.raises(BudgetExceeded):
            await page.ask(*place, Tokens(input=100), ask_model)

    asyncio.run(run())
    assert host.report() == (7, 0)


def test_an_async_session_shares_its_transaction_inside_run_sync(host, database_url):
    world = host.world

    def work(session):
        with host.gov.unit(world.owner, connection=session.connection()) as unit:
            host.gov.budgets.set(unit.authorize("update", group=world.a1), 6)

    async def run():
        engine = create_async_engine(database_url, poolclass=sa.NullPool)
        async with AsyncSession(engine) as session:
            await session.run_sync(work)
            await session.rollback()

    asyncio.run(run())
    assert read_page("python-by-task.md").show_limit(host.gov, world.member, world.a1) == 2_500


# -- your-own-transaction.md --


def test_a_name_and_a_limit_change_together_or_not_at_all(host, engine):
    """The team is a row of the host's; here one of ours."""
    page, world = read_page("your-own-transaction.md"), host.world
    with Session(engine) as session:
        team = SimpleNamespace(id=world.a1, name="before")
        with pytest.raises(Forbidden):
            page.rename_and_limit(host.gov, session, world.member, team, "after", 7)
        session.rollback()
        assert team.name == "before"
        page.rename_and_limit(host.gov, session, world.org_admin, team, "after", 7)
    tasks = read_page("python-by-task.md")
    assert tasks.show_limit(host.gov, world.member, world.a1) == 7


def test_a_savepoint_keeps_its_grant_where_the_connection_is_taken_inside(host, engine):
    page, world = read_page("your-own-transaction.md"), host.world
    with Session(engine) as session:
        page.try_limit(host.gov, session, world.org_admin, world.a1, 8)
        with suppress(ZeroDivisionError), session.begin_nested():
            with host.gov.unit(world.owner, connection=session.connection()) as unit:
                grant = unit.authorize("update", group=world.a1)
                host.gov.budgets.set(grant, 9)
            raise ZeroDivisionError
        session.commit()
    assert read_page("python-by-task.md").show_limit(host.gov, world.member, world.a1) == 8


def test_a_limit_that_is_not_committed_keeps_only_who_changes_it_waiting(host, engine, impatient):
    world = host.world
    with engine.connect() as connection, host.gov.unit(world.owner, connection=connection) as unit:
        host.gov.budgets.set(unit.authorize("update", group=world.a1), 1)
        with impatient.hold(world.gateway, host.call, Tokens(input=2_000)) as hold:
            hold.settle(Tokens(input=2_000))  # by the limit before
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            limit(impatient, world, 2)
    assert read_page("python-by-task.md").show_limit(host.gov, world.member, world.a1) == 2_500


def test_spend_that_is_not_committed_keeps_each_hold_of_that_member_waiting(
    host, engine, impatient
):
    """Of that member alone."""
    page, world = read_page("your-own-transaction.md"), host.world
    other = replace(host.call, user_id=world.joined)
    events = [(uuid4().hex, call, Tokens(input=1)) for call in (host.call, other)]
    with Session(engine) as session:
        commit, session.commit = session.commit, lambda: None
        page.record_all(host.gov, session, world.gateway, events[:1])
        with impatient.hold(world.gateway, other, Tokens(input=1)) as hold:
            hold.release()
        with (
            pytest.raises(GovBudgetError) as refused,
            impatient.hold(world.gateway, host.call, Tokens(input=1)),
        ):
            pytest.fail("the block was entered")
        assert refused.value.code == "unavailable"
        session.commit = commit
        page.record_all(host.gov, session, world.gateway, reversed(events[1:]))
    assert host.report() == (1, 0)


# -- csrf-and-cookies.md --


@pytest.fixture
def writes(host):
    """Method, path and body of each route that takes a body."""
    world = host.world
    world.hold = uuid4()
    found = [(m, path, body) for m, path, body in spend_requests(world, "parrot").values() if body]
    found += [("PUT", budget_path(world.a1), {}), ("PUT", "/ai/prices", [])]
    assert len(found) == len([route for route in ROUTES if route.body])
    return found


def test_nothing_that_a_form_can_send_is_taken(host, writes):
    """Whatever it holds, and whoever sends it; and no POST goes without a body."""
    send = Client(host.app)
    assert all(route.body for route in ROUTES if route.method == "POST")
    for method, path, body in writes:
        for form in FORMS:
            callers = (host.world.owner, host.world.gateway)
            answers = [
                send(method, path, caller, json=body, headers={"Content-Type": form})
                for caller in callers
            ]
            statuses = {answer.status_code for answer in answers}
            assert 415 in statuses, (method, path)
            assert statuses <= {415, 403, 404}


def test_a_browser_that_asks_for_another_site_is_given_no_permission(host, writes):
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    for _, path, _ in writes:
        answer = host.app.test_client().options(f"/api/v2{path}", headers=asked)
        assert not any(name.startswith("Access-Control") for name, _ in answer.headers)


def test_flask_wtf_protects_the_endpoints_until_they_are_exempt(host):
    host.app.secret_key, csrf = "a secret", CSRFProtect(host.app)
    send, body = Client(host.app), {"spend_limit_micros": 3}
    path = budget_path(host.world.a1)
    assert send("PUT", path, host.world.owner, json=body).status_code == 400
    read_page("csrf-and-cookies.md").exempt_budgets(host.app, csrf)
    assert send("PUT", path, host.world.owner, json=body).status_code == 200


# -- python-by-task.md --


def test_one_handler_answers_the_refusals_of_all_views(host):
    page, world = read_page("python-by-task.md"), host.world
    page.answer_refusals(host.app)
    clear = partial(page.clear_limit, host.gov)
    host.app.get("/clear/<caller>/<group>")(lambda caller, group: clear(caller, group) or "done")
    send = host.app.test_client().get
    asked = [(world.member, world.a1), (world.owner, UUID(int=1)), (world.owner, world.a1)]
    answers = [send(f"/clear/{caller}/{group}") for caller, group in asked]
    assert [answer.status_code for answer in answers] == [403, 404, 200]
    assert "this needs the action `update`" in answers[0].text


def test_each_task_is_done_by_its_lines(host, engine):
    page, gov, world = read_page("python-by-task.md"), host.gov, host.world
    owner, member = world.owner, world.member
    page.set_limit(gov, owner, world.a1, 2_000)
    assert page.show_limit(gov, member, world.a1) == 2_000
    assert [b.group_id for b in page.list_limits(gov, owner, world.a)] == [world.a1]
    place = (gov, world.gateway, world.a, member)
    assert page.ask(*place, lambda: ("hello", Tokens(input=1000))) == "hello"
    assert page.ask(*place, None) == "2000 micros a month are not enough"
    page.raise_for_one(gov, owner, world.a, member, world.a1, 9_000)
    assert page.show_spend(gov, member, world.a, member) == (9_000, 8_000)
    page.end_raise(gov, owner, world.a, member)
    assert page.show_spend(gov, member, world.a, member) == (2_000, 1_000)
    assert page.show_group_spend(gov, owner, world.a1) == 1000 * 10**6
    assert page.show_trail(gov, owner, world.a)[0].receipt["actor"] == str(owner)
    assert page.may_set_limit(gov, owner, world.a1)
    assert not page.may_set_limit(gov, member, world.a1)
    assert not page.may_set_limit(gov, owner, UUID(int=1))
    assert page.may_members_read(gov)
    page.reload_policy(gov)
    page.clear_limit(gov, owner, world.a1)
    with pytest.raises(NotFound):
        page.show_limit(gov, member, world.a1)
