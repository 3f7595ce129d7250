"""The OpenAPI document: committed, served and generated are one, and the answers are as it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flask import Flask, Response
from jsonschema_rs import ValidationError
from tests.support import ROUTES, Client, budget_path, count_statements, make_app
from tests.web.conformance import compare
from tests.web.helpers import outcome, put_limit
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client as MountedClient

from govbudget import IdType
from govbudget.errors import CATALOGUE
from govbudget.settings import Settings
from govbudget.web.openapi import describe

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
PATH = "/openapi.json"


def test_what_is_committed_is_what_the_code_says():
    """`python tools/write_openapi.py` writes it anew."""
    assert json.loads(COMMITTED.read_text()) == describe(Settings(), ROUTES)


def test_what_is_served_is_what_is_committed(send):
    assert send("GET", PATH).json == json.loads(COMMITTED.read_text())


def test_it_is_for_anyone_and_asks_no_database(engine, policy):
    send = Client(make_app(engine, policy=policy, features=set()))
    with count_statements(engine) as sent:
        shown = send("GET", PATH)
    assert (shown.status_code, shown.mimetype, sent) == (200, "application/json", [])
    assert shown.headers["Cache-Control"] == "no-store"
    assert shown.headers["X-Request-Id"]


def test_it_has_the_methods_of_a_document(send):
    assert send("HEAD", PATH).data == b""
    assert send("OPTIONS", PATH).headers["Allow"] == "GET, HEAD, OPTIONS"
    assert outcome(send("POST", PATH)) == (405, "method-not-allowed")


def test_each_installation_tells_of_its_own_prefix_ids_mount_and_log_in(engine, policy):
    config = {"GOVBUDGET_URL_PREFIX": "/money", "GOVBUDGET_ID_TYPE": "bigint"}
    app = make_app(engine, config, policy=policy, challenge='Basic realm="here"')
    mounted = MountedClient(DispatcherMiddleware(Flask("outside"), {"/inside": app}))
    shown = mounted.get("/inside/money/openapi.json").json
    settings = Settings(url_prefix="/money", id_type=IdType.BIGINT)
    assert shown == describe(settings, ROUTES, "Basic", "/inside")
    assert shown["servers"] == [{"url": "/inside/money"}]
    assert shown["components"]["schemas"]["Id"]["type"] == "integer"
    assert shown["components"]["securitySchemes"]["caller"]["scheme"] == "basic"
    assert app.test_client().get("/money/openapi.json").json["servers"] == [{"url": "/money"}]


def test_every_route_is_in_it_under_a_name_of_its_own():
    operations = [
        operation
        for path in describe(Settings(), ROUTES)["paths"].values()
        for operation in path.values()
    ]
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES)
    assert all(operation["summary"] for operation in operations)


def test_every_code_of_the_routes_is_known():
    assert {code for route in ROUTES for code in route.codes} <= CATALOGUE.keys()


@pytest.fixture
def budget_route():
    return next(route for route in ROUTES if route.view.__name__ == "get_budget")


def test_an_answer_that_is_other_than_the_document_says_fails_the_tests(
    send, clean_town, budget_route
):
    """The clients of the tests compare every answer; this is what they would not let pass."""
    right = put_limit(send, clean_town.a1, clean_town.owner)
    compare(budget_route, right)
    for change in ({"more": 1}, {"spend_limit_micros": "5"}, {"group_id": None}):
        wrong = Response(json.dumps({**right.json, **change}), headers={"ETag": '"1"'})
        with pytest.raises(ValidationError):
            compare(budget_route, wrong)
    missing = send("GET", budget_path(clean_town.a1), clean_town.stranger)
    problem = Response(
        json.dumps({**missing.json, "code": "price-not-found"}),
        status=404,
        mimetype=missing.mimetype,
    )
    with pytest.raises(AssertionError):
        compare(budget_route, problem)
