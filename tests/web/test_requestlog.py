"""The log: one line a request, that says what was decided and why, and that nobody can forge."""

from __future__ import annotations

import json
import logging
import shutil
from functools import partial
from uuid import UUID, uuid4

import casbin
import pytest
from tests.spend.test_store import Spender
from tests.support import Client, World, budget_path, list_path, make_app
from tests.web.helpers import FIGURES, MeddlingDirectory, put_limit

from govbudget import Policy
from govbudget.authz.files import packaged_policy_dir

LOGGER = "govbudget.request"


@pytest.fixture
def world(clean_town):
    """These tests change budgets and nothing else, so one world does for all."""
    return clean_town


@pytest.fixture
def log(caplog):
    """Gives the records since it was last asked, read as JSON, once their form is right."""
    caplog.set_level(logging.INFO, LOGGER)

    def read():
        lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
        caplog.clear()
        assert all(line.isascii() and line.isprintable() for line in lines)
        return [json.loads(line) for line in lines]

    return read


def only(records):
    assert len(records) == 1, records
    return records[0]


def test_an_allowed_request_leaves_one_record_with_the_decision(send, world, log, policy):
    response = put_limit(send, world.a1, world.org_admin)
    record = only(log())
    assert record.pop("ms") > 0
    assert record == {
        "request_id": response.headers["X-Request-Id"],
        "caller": str(world.org_admin),
        "method": "PUT",
        "route": "/api/v2/groups/<group>/ai/budget",
        "action": "update",
        "object": "group",
        "id": str(world.a1),
        "decision": "allow",
        "roles": ["org-admin"],
        "lines": list(policy.decide({"org-admin"}, "group", "update").lines),
        "digest": policy.digest,
        "status": 200,
    }


@pytest.mark.parametrize(
    ("person", "code", "status"),
    [("member", "forbidden", 403), ("outsider", "group-not-found", 404)],
)
def test_a_denial_carries_what_would_have_allowed_it(  # noqa: PLR0917 - a case
    send, world, log, policy, person, code, status
):
    """That is for the operator; the answer itself never says it."""
    put_limit(send, world.a1, getattr(world, person))
    record = only(log())
    assert (record["decision"], record["code"], record["status"]) == ("deny", code, status)
    assert record["digest"] == policy.digest
    lines = [
        line
        for role in ("owner", "org-admin", "user-admin")
        for line in policy.decide({role}, "group", "update").lines
    ]
    assert [text.split(" ")[0] for text in record["would_allow"]] == lines
    assert "(org-admin in its organization)" in record["would_allow"][1]


def test_a_refused_call_is_never_an_allowed_one(engine, send, world, log):
    """Who asked, for whom, why not, by which figures."""
    spender = Spender(World(engine))
    town = spender.world
    spender.limit(town.a1, 3)
    ids = {"organization_id": str(town.a), "user_id": str(town.member)}
    call = {**ids, "provider": "acme", "model": spender.model}
    put_hold = partial(send, "POST", "/ai/holds", town.gateway)
    answer = put_hold(json={**call, "tokens": {"input": 4}})
    record = only(log())
    assert (record["decision"], record["code"], record["status"]) == (
        "deny",
        answer.json["code"],
        403,
    )
    assert (record["caller"], record["lines"], record["roles"]) == (str(town.gateway), [], [])
    assert (record["organization"], record["user"]) == (str(town.a), str(town.member))
    assert (record["provider"], record["model"]) == ("acme", spender.model)
    for figure in (*FIGURES, "code"):
        assert record[figure] == answer.json[figure]
    for wrong, code in (
        ({"user_id": str(town.outsider)}, "not-a-member"),
        ({"model": "m"}, "unpriced-model"),
    ):
        put_hold(json={**call, **wrong, "tokens": {"input": 1}})
        record = only(log())
        assert (record["decision"], record["code"]) == ("deny", code)
        assert record["user"] == {**call, **wrong}["user_id"]


def test_a_denial_is_a_warning_and_everything_else_an_info(send, world, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    put_limit(send, world.a1, world.owner)
    put_limit(send, world.a1, world.stranger)
    send("GET", list_path(world.a))
    levels = [record.levelname for record in caplog.records if record.name == LOGGER]
    assert levels == ["INFO", "WARNING", "INFO"]


def test_every_request_to_a_route_of_ours_leaves_exactly_one_record(
    engine, policy, send, world, log
):
    def broken(_group):
        raise KeyError("broken")

    breaking = Client(
        make_app(engine, policy=policy, directory=MeddlingDirectory(world.directory, broken))
    )
    path = budget_path(world.a2)
    for ask, status, decision in (
        (lambda: send("POST", path), 405, None),
        (lambda: send("OPTIONS", path), 204, None),
        (lambda: send("GET", path), 401, None),
        (lambda: send("GET", budget_path("x"), world.owner), 400, None),
        (lambda: send("GET", budget_path(uuid4()), world.owner), 404, "deny"),
        (lambda: send("GET", path, world.owner), 404, "allow"),
        (lambda: send("HEAD", path, world.owner), 404, "allow"),
        (lambda: send("PUT", path, world.owner, data=b"x"), 415, "allow"),
        (lambda: send("GET", list_path(world.a), world.member), 200, "allow"),
        (lambda: send("GET", list_path(world.a), world.stranger), 404, "deny"),
        (lambda: send("GET", "/ai/prices/a/b", world.owner), 404, "allow"),
        (lambda: send("GET", "/ai/prices/a/b", world.member), 403, "deny"),
        (lambda: breaking("GET", path, world.owner), 500, None),
    ):
        response = ask()
        record = only(log())
        assert (record["status"], record.get("decision")) == (status, decision)
        assert response.status_code == status
        assert record["request_id"] == response.headers["X-Request-Id"]


def test_a_request_that_the_host_answered_first_is_recorded_too(engine, policy, world, log):
    from flask import abort

    app = make_app(engine, policy=policy)
    app.before_request(lambda: abort(403))
    response = Client(app)("GET", budget_path(world.a1), world.owner)
    assert response.status_code == 403
    record = only(log())
    assert (record["status"], record["caller"]) == (403, None)
    assert record["request_id"] == response.headers["X-Request-Id"]


def test_a_request_that_the_host_answered_has_nothing_of_the_one_before(engine, policy, world, log):
    """Where both are in one application context, as with pytest-flask."""
    from flask import abort, request

    app = make_app(engine, policy=policy)
    app.before_request(lambda: None if request.method == "GET" else abort(403))
    send, path = Client(app), budget_path(world.a1)
    with app.app_context():
        answers = [send(method, path, world.owner) for method in ("GET", "DELETE")]
    before, record = log()
    assert [before["request_id"], record["request_id"]] == [
        answer.headers["X-Request-Id"] for answer in answers
    ]
    assert before["request_id"] != record["request_id"]
    assert (record["method"], record["caller"], record["status"]) == ("DELETE", None, 403)


@pytest.mark.parametrize("path", ["/elsewhere", "/api/v2/nowhere"])
def test_requests_that_are_the_hosts_leave_none(app, log, path):
    assert app.test_client().get(path).status_code == 404
    assert log() == []


def test_a_plain_request_id_of_the_callers_is_kept(send, world, log):
    for given in ("abc", "7f2c:1/2.3_4-5+6=", "x" * 128):
        response = put_limit(send, world.a1, world.owner, headers={"X-Request-Id": given})
        assert response.headers["X-Request-Id"] == given
        assert only(log())["request_id"] == given


@pytest.mark.parametrize(
    "given",
    ["", "a b", "x" * 129, 'a"b', "a\\b", "{}", "a,b", "\u00e9", "a\x7f", "<b>", "a\x00b", "a\nb"],
    ids=ascii,
)
def test_any_other_request_id_is_replaced(send, world, log, given):
    response = put_limit(
        send, world.a1, world.owner, environ_overrides={"HTTP_X_REQUEST_ID": given}
    )
    made = response.headers["X-Request-Id"]
    assert made != given
    assert UUID(hex=made).hex == made
    assert only(log())["request_id"] == made


def test_a_newline_anywhere_in_a_request_makes_no_second_line(send, world, log):
    forged = '\n{"decision":"allow","caller":"mallory"}'
    quoted = "%0A%7B%22decision%22:%22allow%22%7D"
    send("GET", budget_path(quoted), world.owner)
    send("GET", f"/ai/prices/a{quoted}/b{quoted}", world.owner)
    send("GET", list_path(world.a) + f"?page_token={quoted}", world.owner)
    send("GET", budget_path(world.a1), world.owner, environ_overrides={"REQUEST_METHOD": forged})
    send(
        "GET",
        budget_path(world.a1),
        world.owner,
        environ_overrides={"HTTP_USER_AGENT": forged, "HTTP_X_REQUEST_ID": forged},
    )
    records = log()
    assert len(records) == 5
    assert all(record["caller"] in {str(world.owner), None} for record in records)


def test_neither_credentials_nor_bodies_nor_queries_are_ever_logged(
    engine, policy, send, world, caplog
):
    caplog.set_level(logging.DEBUG)
    secret = "sk-live-0123456789"
    headers = {"Authorization": f"Bearer {secret}", "Cookie": f"session={secret}"}
    path = budget_path(world.a1)
    json_type = {"content_type": "application/json"}
    for body in (secret, f'{{"{secret}": 1}}', f'{{"spend_limit_micros": "{secret}"}}'):
        send("PUT", path, world.owner, data=body, headers=headers, **json_type)
    send("GET", list_path(world.a) + f"?page_token={secret}", world.owner, headers=headers)
    send("PUT", path, headers=headers, json={"spend_limit_micros": 1})
    rows = [{"provider": secret, "model": secret}]
    send("PUT", "/ai/prices", world.owner, json=rows, headers=headers)
    assert put_limit(send, world.a1, world.owner, 424_242_424, headers=headers).status_code == 200
    assert caplog.records
    assert secret not in caplog.text
    assert "424242424" not in caplog.text


def test_code_that_switches_off_casbins_loggers_does_not_silence_it(send, world, log, policy):
    folder = packaged_policy_dir()
    casbin.Enforcer(str(folder / "model.conf"), str(folder / "policy.csv"))
    names = [name for name in logging.root.manager.loggerDict if name.startswith("casbin")]
    assert names
    before = {name: logging.getLogger(name).disabled for name in names}
    try:
        for name in names:
            logging.getLogger(name).disabled = True
        put_limit(send, world.a1, world.owner)
        put_limit(send, world.a1, world.stranger)
    finally:
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled
    assert [record["decision"] for record in log()] == ["allow", "deny"]


def test_the_record_names_the_digest_of_the_policy_that_decided(engine, world, log, tmp_path):
    """After a reload the next record has the new digest and the new numbers of lines."""
    folder = tmp_path / "policy"
    shutil.copytree(packaged_policy_dir(), folder)
    policy = Policy.load(folder)
    send = Client(make_app(engine, policy=policy))
    put_limit(send, world.a1, world.owner)
    first = only(log())
    lines = folder / "policy.csv"
    lines.write_text("# one more comment\n" + lines.read_text())
    policy.reload()
    put_limit(send, world.a1, world.owner)
    second = only(log())
    assert first["digest"] != second["digest"] == policy.digest
    number = int(first["lines"][0].split(":")[1])
    assert second["lines"] == [f"policy.csv:{number + 1}"]


def test_a_record_is_there_as_a_value_too_for_handlers_that_want_no_text(send, world, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    put_limit(send, world.a1, world.owner)
    record = next(record for record in caplog.records if record.name == LOGGER)
    assert record.govbudget["decision"] == "allow"


def test_a_logger_that_is_off_costs_no_answer(send, world):
    logger = logging.getLogger(LOGGER)
    logger.disabled = True
    try:
        response = put_limit(send, world.a1, world.owner)
    finally:
        logger.disabled = False
    assert response.status_code == 200
    assert response.headers["X-Request-Id"]
