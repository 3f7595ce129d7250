"""Who calls, and whether the feature is on: what the host tells us, and what we make of it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from flask import Response, abort, make_response, redirect, request
from tests.support import Client, budget_path, count_statements, list_path, make_app
from tests.web.helpers import outcome, put_limit, read_problem
from werkzeug.exceptions import HTTPException, Unauthorized

ROUTES = (
    ("GET", budget_path(uuid4())),
    ("PUT", budget_path(uuid4())),
    ("DELETE", budget_path(uuid4())),
    ("GET", list_path(uuid4())),
    ("GET", "/ai/prices/a/b"),
    ("PUT", "/ai/prices"),
)


@pytest.fixture(scope="module")
def host(engine, policy):
    """An application whose `identify` and `features` each test sets as it likes."""
    parts = SimpleNamespace(identify=None, features=None)
    app = make_app(
        engine,
        policy=policy,
        identify=lambda: parts.identify(),  # noqa: PLW0108 - asked late
        features=lambda: parts.features(),  # noqa: PLW0108 - as above
        challenge='Basic realm="budgets"',
    )
    parts.send = Client(app)
    return parts


@pytest.fixture
def identified(host):
    """Sends requests to an application with this `identify`."""

    def client(identify):
        host.identify, host.features = identify, lambda: {"aibridge"}
        return host.send

    return client


@pytest.fixture
def featured(host):
    """Sends requests to an application with these features."""

    def client(features):
        host.identify, host.features = lambda: request.headers.get("X-User"), features
        return host.send

    return client


def test_none_is_nobody_401_with_the_hosts_challenge(engine, identified):
    send = identified(lambda: None)
    with count_statements(engine) as sent:
        for method, path in ROUTES:
            response = send(method, path)
            assert outcome(response) == (401, "unauthenticated")
            assert response.headers["WWW-Authenticate"] == 'Basic realm="budgets"'
    assert sent == []


def test_the_id_itself_or_its_text_says_who_calls(identified, town):
    for caller in (town.owner, str(town.owner), str(town.owner).upper()):
        send = identified(lambda caller=caller: caller)
        assert put_limit(send, town.a1, None).status_code == 200


@pytest.mark.parametrize(
    "caller",
    ["", "root", "0", 0, 7, True, False, b"x", 1.5, [], {}, (), object(), UUID, "\x00", "x\ny"],
    ids=lambda value: ascii(value)[:20],
)
def test_anything_else_is_a_mistake_of_the_host_500_and_logged(
    engine, identified, town, caplog, caller
):
    """An empty text or a zero is no "nobody": it would hide a mistake behind a 401."""
    send = identified(lambda: caller)
    with count_statements(engine) as sent:
        response = send("GET", budget_path(town.a1))
    assert outcome(response) == (500, "internal-error")
    assert sent == []
    failed = [record for record in caplog.records if record.name == "govbudget"]
    assert [record.levelno for record in failed] == [logging.ERROR]
    assert isinstance(failed[0].exc_info[1].__cause__, TypeError)
    assert "`identify=` ended in `TypeError`; let it give the id" in failed[0].message


def test_a_caller_without_a_row_anywhere_is_known_and_may_do_nothing(identified, town):
    send = identified(uuid4)
    assert outcome(send("GET", budget_path(town.a1))) == (404, "group-not-found")
    assert outcome(send("GET", "/ai/prices/a/b")) == (403, "forbidden")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad-request"),
        (401, "unauthenticated"),
        (403, "forbidden"),
        (404, "not-found"),
        (429, "too-many-requests"),
        (503, "unavailable"),
        (418, "i'm-a-teapot"),
    ],
)
def test_an_abort_of_the_hosts_keeps_its_status_in_the_one_shape(
    engine, identified, town, status, code
):
    send = identified(lambda: abort(status))
    with count_statements(engine) as sent:
        assert outcome(send("GET", budget_path(town.a1))) == (status, code)
    assert sent == []


def test_the_headers_of_an_abort_are_kept(identified, town):
    class TooMany(HTTPException):
        code = 429
        description = "slow down"

        def get_headers(self, *_arguments):
            return [("Content-Type", "text/html"), ("Retry-After", "30")]

    def identify():
        raise TooMany

    response = identified(identify)("GET", budget_path(town.a1))
    assert response.headers["Retry-After"] == "30"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json["detail"] == "slow down"


def test_a_401_of_the_hosts_has_a_challenge(identified, town):
    def identify():
        raise Unauthorized("the session has ended")

    problem = read_problem(identified(identify)("GET", budget_path(town.a1)))
    assert problem["detail"] == "the session has ended"


def test_an_abort_with_a_response_is_the_hosts_own_answer(identified, town):
    def make_own():
        response = make_response("log in first", 401)
        response.headers["X-Host"] = "yes"
        abort(response)

    response = identified(make_own)("GET", budget_path(town.a1))
    assert (response.status_code, response.data) == (401, b"log in first")
    assert response.headers["X-Host"] == "yes"
    away = identified(lambda: abort(redirect("/login")))("GET", budget_path(town.a1))
    assert (away.status_code, away.headers["Location"]) == (302, "/login")


def test_an_abort_with_a_page_for_a_text_is_still_json(identified, town):
    send = identified(lambda: abort(403, "<script>alert(1)</script>\nforged"))
    response = send("GET", budget_path(town.a1))
    assert outcome(response) == (403, "forbidden")
    assert response.data.count(b"\n") == 1


def test_identify_that_raises_is_a_500_and_never_an_allow(engine, identified, town):
    def identify():
        raise RuntimeError("the session store is full of eels")

    with count_statements(engine) as sent:
        response = identified(identify)("GET", budget_path(town.a1))
    assert outcome(response) == (500, "internal-error")
    assert b"eels" not in response.data
    assert sent == []


def test_identify_that_takes_the_id_of_an_anonymous_user_is_told_what_to_give(
    caplog, identified, town
):
    """`current_user.id` where nobody is signed in is the host's mistake, and easily made."""
    send = identified(lambda: SimpleNamespace().id)
    assert outcome(send("GET", budget_path(town.a1))) == (500, "internal-error")
    (failed,) = (record for record in caplog.records if record.name == "govbudget")
    assert failed.message == (
        "a request failed: `identify=` ended in `AttributeError`; let it give the id of the user "
        "who is signed in, and None where nobody is"
    )
    assert "has no attribute 'id'" in caplog.text


def test_identify_that_its_own_database_fails_is_still_a_503(identified, town):
    def identify():
        raise sa.exc.OperationalError("SELECT", {}, Exception("the server is away"))

    assert outcome(identified(identify)("GET", budget_path(town.a1))) == (503, "unavailable")


def test_identify_is_asked_once_a_request_and_not_for_unknown_paths(identified, town):
    asked = []

    def identify():
        asked.append(request.path)
        return town.owner

    send = identified(identify)
    put_limit(send, town.a1, None)
    assert len(asked) == 1
    send("GET", "/nowhere")
    send("POST", "/ai/prices")
    send("OPTIONS", "/ai/prices")
    assert len(asked) == 1


# -- the feature gate --


def test_off_is_403_for_everyone_alike_on_every_route_without_a_statement(engine, policy, town):
    send = Client(make_app(engine, policy=policy, features=frozenset()))
    answers = set()
    with count_statements(engine) as sent:
        for method, path in (*ROUTES, ("GET", budget_path(town.a1)), ("GET", list_path(town.a))):
            for person in (town.owner, town.member, town.nobody, town.stranger):
                response = send(method, path, person)
                assert outcome(response) == (403, "feature-disabled")
                answers.add(response.data)
            assert outcome(send(method, path)) == (401, "unauthenticated")
    assert sent == []
    assert len(answers) == 1


@pytest.mark.parametrize("features", [{"aibridge"}, frozenset({"aibridge"}), None])
def test_on_is_the_default_and_any_set_with_the_name(engine, policy, town, features):
    send = Client(make_app(engine, policy=policy, features=features))
    assert put_limit(send, town.a1, town.owner).status_code == 200


def test_the_setting_switches_it_off_too_and_the_argument_wins(engine, policy, town):
    config = {"GOVBUDGET_FEATURES": ""}
    send = Client(make_app(engine, config, policy=policy))
    assert outcome(put_limit(send, town.a1, town.owner)) == (403, "feature-disabled")
    send = Client(make_app(engine, config, policy=policy, features={"aibridge"}))
    assert put_limit(send, town.a1, town.owner).status_code == 200


def test_a_callable_is_asked_at_each_request(featured, town):
    on = {"aibridge"}
    asked = []

    def features():
        asked.append(request.path)
        return frozenset(on)

    send = featured(features)
    assert put_limit(send, town.a1, town.owner).status_code == 200
    on.clear()
    assert outcome(put_limit(send, town.a1, town.owner)) == (403, "feature-disabled")
    on.add("aibridge")
    assert put_limit(send, town.a1, town.owner).status_code == 200
    assert len(asked) == 3


@pytest.mark.parametrize("answer", [None, True, 1, {"aibrigde"}, {"aibridge", "more"}, {None}])
def test_a_callable_that_gives_no_set_of_known_features_is_a_500(engine, featured, town, answer):
    """A misspelt feature is neither on nor off: it is a mistake, and fails closed."""
    send = featured(lambda: answer)
    with count_statements(engine) as sent:
        assert outcome(put_limit(send, town.a1, town.owner)) == (500, "internal-error")
    assert sent == []


def test_a_callable_that_raises_fails_closed(featured, town):
    def features():
        raise KeyError("flag store")

    send = featured(features)
    assert outcome(put_limit(send, town.a1, town.owner)) == (500, "internal-error")


def test_a_hosts_before_request_may_answer_first(engine, policy, town):
    app = make_app(engine, policy=policy)
    app.before_request(lambda: Response("closed for repairs", 503))
    with count_statements(engine) as sent:
        response = Client(app)("GET", budget_path(town.a1), town.owner)
    assert (response.status_code, response.data) == (503, b"closed for repairs")
    assert sent == []


def test_a_hosts_abort_before_a_request_is_answered_by_its_own_handler_where_it_has_one(
    engine, policy, town
):
    app = make_app(engine, policy=policy)
    app.before_request(lambda: abort(403))
    send = Client(app)
    assert outcome(send("GET", budget_path(town.a1), town.owner)) == (403, "forbidden")
    app = make_app(engine, policy=policy)
    app.before_request(lambda: abort(403))
    app.register_error_handler(403, lambda _: ("the host's page", 403))
    response = app.test_client().get(f"/api/v2{budget_path(town.a1)}")
    assert (response.status_code, response.data) == (403, b"the host's page")
