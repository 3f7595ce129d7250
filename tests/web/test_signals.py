"""Signals: sent once all is done, to every receiver, whatever one of them does."""

from __future__ import annotations

import logging
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.spend.test_store import Spender
from tests.support import Client, World, budget_path, make_app
from tests.web.helpers import outcome, put_limit, read_row

from govbudget import Policy, PolicyError
from govbudget.db.own_pool import find_own
from govbudget.identity import OPERATOR
from govbudget.spend.tokens import Tokens
from govbudget.web.signals import (
    access_denied,
    budget_changed,
    call_refused,
    override_changed,
    policy_reloaded,
    threshold_crossed,
)

POLICY = Path(__file__).parents[2] / "policy"
FORBIDDEN = (403, "forbidden")
NOT_FOUND = (404, "group-not-found")


@contextmanager
def listen(app, *signals):
    """Collect what the signals of an application tell."""
    told = []

    def receive(sender, **facts):
        assert sender is app
        told.append(facts)

    with ExitStack() as stack:
        for signal in signals:
            stack.enter_context(signal.connected_to(receive, app))
        yield told


def test_setting_and_clearing_a_budget_is_told(app, send, world):
    with listen(app, budget_changed) as told:
        asked = {"X-Request-Id": "r-1"}
        assert put_limit(send, world.a1, world.owner, 7, headers=asked).status_code == 200
        assert send("DELETE", budget_path(world.a1), world.org_admin).status_code == 204
    was_set, was_cleared = told
    assert was_set.keys() == was_cleared.keys() == {"subject", "group", "budget", "request_id"}
    assert (was_set["subject"].id, was_set["group"].id) == (world.owner, world.a1)
    assert (was_set["budget"].spend_limit_micros, was_set["request_id"]) == (7, "r-1")
    assert (was_cleared["subject"].id, was_cleared["group"].id) == (world.org_admin, world.a1)
    assert was_cleared["budget"] is None


def test_what_changes_no_budget_is_not_told(app, send, world):
    with listen(app, budget_changed) as told:
        assert send("DELETE", budget_path(world.a1), world.owner).status_code == 404
        unmet = put_limit(send, world.a1, world.owner, headers={"If-Match": "*"})
        assert unmet.status_code == 412
        assert outcome(put_limit(send, world.a1, world.member)) == FORBIDDEN
        assert send("GET", budget_path(world.a1), world.owner).status_code == 404
    assert told == []


def test_a_denial_is_told_whether_it_is_shown_as_403_or_as_404(app, send, world, policy):
    with listen(app, access_denied) as told:
        assert outcome(put_limit(send, world.a1, world.member)) == FORBIDDEN
        assert outcome(send("GET", budget_path(world.a1), world.outsider)) == NOT_FOUND
        assert put_limit(send, world.a1, world.owner).status_code == 200
    for facts, caller, action, code in (
        (told[0], world.member, "update", "forbidden"),
        (told[1], world.outsider, "read", "group-not-found"),
    ):
        assert facts.pop("request_id")
        assert facts.pop("would_allow") == policy.table.would_allow("group", action)
        assert facts == {
            "caller": caller,
            "action": action,
            "object": "group",
            "id": world.a1,
            "code": code,
            "policy_digest": policy.digest,
        }
    assert len(told) == 2


def test_a_call_that_is_refused_is_told_with_whose_it_was_and_why(app, engine, send, world):
    """Also before its body was read: by who may not ask for it, or where the feature is off."""
    spender = Spender(world)
    spender.limit(world.a1, 3)
    off = make_app(engine, features=set())
    ids = {"organization_id": str(world.a), "user_id": str(world.member)}
    body = {**ids, "provider": "acme", "model": spender.model, "tokens": {"input": 4}}
    stranger = {**body, "user_id": str(world.outsider)}
    for code, told_by, person, asked in (
        ("budget-exceeded", app, world.gateway, body),
        ("not-a-member", app, world.gateway, stranger),
        ("unpriced-model", app, world.gateway, body | {"model": "unknown"}),
        ("forbidden", app, world.member, body),
        ("forbidden", app, world.member, {"organization_id": 5}),
        ("feature-disabled", off, world.gateway, body),
    ):
        with listen(told_by, call_refused) as told:
            headers = {"X-Request-Id": "r-1"}
            answer = Client(told_by)("POST", "/ai/holds", person, json=asked, headers=headers)
            assert outcome(answer)[1] == code
        (facts,) = told
        assert facts.keys() == {"caller", "call", "refusal", "request_id"}
        assert (facts["caller"], facts["request_id"]) == (person, "r-1")
        assert facts["refusal"].code == code
        expected = asked is not body and "user_id" not in asked
        assert (facts["call"] is None) == expected
        if not expected:
            assert str(facts["call"].user_id) == asked["user_id"]
    assert told[0]["refusal"].detail in answer.json["detail"]


def test_a_call_that_is_admitted_or_asked_for_wrongly_is_not_told(app, world, send):
    spender = Spender(world)
    ids = {"organization_id": str(world.a), "user_id": str(world.member)}
    body = {**ids, "provider": "acme", "model": spender.model, "tokens": {"input": 4}}
    with listen(app, call_refused) as told:
        assert send("POST", "/ai/holds", world.gateway, json=body).status_code == 201
        assert send("POST", "/ai/holds", world.gateway, json={}).status_code == 400
        assert send("POST", "/ai/holds", json=body).status_code == 401
        assert put_limit(send, world.a1, world.member).status_code == 403
    assert told == []


def test_a_reload_is_told_and_one_that_fails_is_not(engine, tmp_path):
    folder = shutil.copytree(POLICY, tmp_path / "policy")
    app = make_app(engine, policy=Policy.load(folder))
    gov = app.extensions["govbudget"]
    with listen(app, policy_reloaded) as told:
        gov.reload_policy()
        (folder / "policy.csv").write_text("")
        with pytest.raises(PolicyError):
            gov.reload_policy()
    assert told == [{"policy": gov.policy}]


def test_a_receiver_that_raises_changes_nothing_and_the_others_are_called(
    app, engine, send, world, caplog
):
    """Both raise, so neither is called only because it came first."""
    called = []

    def fail(_sender, **_facts):
        called.append("one")
        raise RuntimeError("one")

    def fail_too(_sender, **_facts):
        called.append("the other")
        raise RuntimeError("the other")

    with ExitStack() as stack:
        for signal in (budget_changed, access_denied):
            for receiver in (fail, fail_too):
                stack.enter_context(signal.connected_to(receiver, app))
        assert put_limit(send, world.a1, world.owner, 7).status_code == 200
        assert outcome(put_limit(send, world.a1, world.member)) == FORBIDDEN
    assert sorted(called) == ["one", "one", "the other", "the other"]
    assert read_row(engine, world.a1) == 7
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert sorted(str(record.exc_info[1]) for record in errors) == sorted(called)
    assert {record.getMessage() for record in errors} == {
        "a receiver of the signal `govbudget.budget-changed` failed",
        "a receiver of the signal `govbudget.access-denied` failed",
    }


def test_a_signal_is_sent_when_the_connection_is_given_back(database_url, policy):
    """A receiver may take the only connection there is of ours, and sees what was done."""
    engine = sa.create_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    town = World(engine)
    app = make_app(engine, policy=policy)
    send, seen = Client(app), []

    def look(_sender, **_facts):
        seen.append(read_row(find_own(engine), town.a1))

    with budget_changed.connected_to(look, app), access_denied.connected_to(look, app):
        assert put_limit(send, town.a1, town.owner, 7).status_code == 200
        assert outcome(put_limit(send, town.a1, town.member)) == FORBIDDEN
        assert send("DELETE", budget_path(town.a1), town.owner).status_code == 204
        assert outcome(put_limit(send, town.a1, town.outsider)) == NOT_FOUND
    engine.dispose()
    assert seen == [7, 7, None, None]


def test_a_threshold_is_told_once_over_http_in_python_and_by_a_sweep(app, send, world):
    spender = Spender(world)
    spender.limit(world.a1, 100)
    gov = app.extensions["govbudget"]
    ids = {"organization_id": str(world.a), "user_id": str(world.member)}
    usage = {**ids, "provider": "acme", "model": spender.model, "event_id": "e1"}
    with listen(app, threshold_crossed) as told:
        for _ in range(2):
            asked = {"json": {**usage, "tokens": {"input": 80}}, "headers": {"X-Request-Id": "r-1"}}
            assert send("POST", "/ai/usage", world.gateway, **asked).status_code < 300
        (facts,) = told
        assert facts.keys() == {"subject", "notice", "request_id"}
        assert (facts["subject"].id, facts["request_id"]) == (world.gateway, "r-1")
        assert (facts["notice"].threshold, facts["notice"].user_id) == (75, world.member)
        with gov.hold(world.gateway, spender.call, Tokens(input=12)) as hold:
            hold.settle(Tokens(input=12))
            assert [facts["notice"].threshold for facts in told] == [75, 90]
        with gov.unit(world.owner, atomic=True) as unit:
            gov.budgets.set(unit.authorize("update", group=world.a1), 92 * 10**6)
        with gov.unit(OPERATOR) as unit:
            gov.notices.sweep(unit.authorize("create", ledger=True), world.a)
            assert len(told) == 2  # not before the connection is given back
        assert len(told) == 5
        assert {facts["notice"].limit_micros for facts in told[2:]} == {92 * 10**6}


def test_a_change_is_told_once_it_is_committed_by_us_and_never_of_a_hosts_connection(
    app, engine, world
):
    """A unit that commits each statement has done what it did, even where its block raises."""
    gov = app.extensions["govbudget"]

    def change(unit):
        gov.budgets.set(unit.authorize("update", group=world.a1), 7)
        grant = unit.authorize("update", organization=world.a)
        gov.overrides.set(grant, world.member, world.a1, 5)
        gov.overrides.delete(grant, world.member)

    with listen(app, budget_changed, override_changed) as told:
        with engine.begin() as connection, gov.unit(world.owner, connection=connection) as unit:
            change(unit)
        with pytest.raises(ZeroDivisionError), gov.unit(world.owner, atomic=True) as unit:
            change(unit)
            raise ZeroDivisionError
        assert told == []
        with gov.unit(world.owner, atomic=True) as unit:
            change(unit)
            assert told == []
        assert len(told) == 3
        _, was_set, was_cleared = told
        assert was_set.keys() == {
            *("subject", "organization_id", "user_id", "override", "request_id")
        }
        assert was_set["override"].spend_limit_micros == 5
        assert was_cleared["override"] is None
        assert (was_set["organization_id"], was_set["user_id"]) == (world.a, world.member)
        with pytest.raises(ZeroDivisionError), gov.unit(world.owner) as unit:
            change(unit)
            raise ZeroDivisionError
        assert len(told) == 6
