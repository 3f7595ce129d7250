"""One shape for every failure of a route of ours, whatever the method and the host."""

from __future__ import annotations

from copy import copy
from uuid import UUID, uuid4

import pytest
from flask import Response
from hypothesis import given, strategies as st
from tests.support import Client, budget_path, count_statements, list_path, make_app
from tests.web.helpers import exchange, is_of_the_host, outcome, put_limit, read_problem, serve

from govbudget.server.app import create_app

JUNK = [
    "",
    "/",
    "//",
    "///",
    "/nowhere",
    "/groups",
    "/groups/",
    "/groups//ai/budget",
    "//groups/x/ai/budget",
    "/groups/x/ai/budget/",
    "/groups/x//ai/budget",
    "/groups/x/ai",
    "/groups/x/y/ai/budget",
    "/groups/x%2Fy/ai/budget",
    "/organizations/x/ai/budgets/",
    "/ai",
    "/ai/prices/",
    "/ai/prices/openai",
    "/ai/prices//model",
    "/AI/PRICES",
    "/%",
    "/%zz",
    "/%00",
    "/%0A",
    "/x%0Ay",
    "/x%0D%0ASet-Cookie:%20a=b",
    "/%FF%FE",
    "/%C0%AF",
    "/%F0%9F%92%B8",
    "/..",
    "/../..",
    "/%2e%2e/%2e%2e",
    "/;x=1",
    "/<script>",
    "/?",
    "/a?b=%FF",
    "/" + "a" * 60_000,
    "/" + "a/" * 30_000,
    "/groups/" + "a" * 60_000,
]


@pytest.fixture(scope="module")
def serving(engine):
    """Sends requests to what `serve` serves."""
    return Client(create_app(engine, {}))


@pytest.mark.parametrize("path", JUNK, ids=lambda path: path[:30] or "(bare)")
def test_an_unknown_path_is_the_hosts_and_in_serve_a_problem(engine, send, serving, town, path):
    with count_statements(engine) as sent:
        for method, person in (("GET", town.owner), ("PUT", None), ("PROPFIND", None)):
            assert is_of_the_host(send(method, path, person)), (method, path)
            response = serving(method, path, person)
            assert outcome(response) == (404, "not-found"), (method, path)
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["X-Request-Id"]
    assert sent == []


@given(raw=st.binary(max_size=30))
def test_any_bytes_in_a_path_get_a_problem(serving, raw):
    encoded = "".join(f"%{byte:02X}" for byte in raw)
    for prefix in ("/", "/groups/", "/ai/prices/acme/"):
        response = serving("GET", prefix + encoded)
        assert response.status_code in {401, 404}
        read_problem(response)


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (budget_path(UUID(int=4)), "DELETE, GET, HEAD, OPTIONS, PUT"),
        (list_path(UUID(int=4)), "GET, HEAD, OPTIONS"),
        ("/ai/prices/openai/gpt-4o", "GET, HEAD, OPTIONS"),
        ("/ai/prices", "OPTIONS, PUT"),
    ],
)
def test_a_wrong_method_is_405_with_allow_before_anything_else(engine, send, path, allow):
    with count_statements(engine) as sent:
        for method in ("POST", "PATCH", "TRACE", "CONNECT", "PROPFIND", "X-ODD", "GETT"):
            response = send(method, path)
            assert outcome(response) == (405, "method-not-allowed")
            assert response.headers["Allow"] == allow
        options = send("OPTIONS", path)
        assert (options.status_code, options.data) == (204, b"")
        assert options.headers["Allow"] == allow
        assert "Content-Type" not in options.headers
        for method in {"GET", "PUT", "DELETE", "HEAD"} - set(allow.split(", ")):
            assert send(method, path).status_code == 405
    assert sent == []


def test_every_kind_of_failure_has_the_one_shape(engine, policy, clean_town):
    """One request for each line of the error table; `read_problem` pins the shape."""
    send = Client(make_app(engine, policy=policy))
    off = Client(make_app(engine, policy=policy, features=set()))
    town, path = clean_town, budget_path(clean_town.a1)
    put_limit(send, town.a1, town.owner)
    json_type = {"content_type": "application/json"}
    seen = {
        outcome(response)
        for response in (
            send("POST", path),
            send("GET", path),
            send("GET", budget_path("x"), town.owner),
            off("GET", path, town.owner),
            send("GET", path, town.stranger),
            send("GET", list_path(town.a), town.stranger),
            send("DELETE", path, town.member),
            send("GET", "/ai/prices/a/b", town.member),
            send("PUT", path, town.owner, data=b"x"),
            send("PUT", path, town.owner, data=b" " * (1024 * 1024 + 1), **json_type),
            send("PUT", path, town.owner, data=b"x", **json_type),
            put_limit(send, town.a1, town.owner, headers={"If-Match": '"x"'}),
            send("GET", budget_path(town.b1), town.owner),
            send("GET", "/ai/prices/a/none", town.owner),
            send("GET", list_path(town.a) + "?page_size=x", town.owner),
        )
    }
    assert seen == {
        (405, "method-not-allowed"),
        (401, "unauthenticated"),
        (400, "invalid-id"),
        (403, "feature-disabled"),
        (404, "group-not-found"),
        (404, "organization-not-found"),
        (403, "forbidden"),
        (415, "unsupported-media-type"),
        (413, "body-too-large"),
        (400, "invalid-body"),
        (412, "precondition-failed"),
        (404, "budget-not-set"),
        (404, "price-not-found"),
        (400, "invalid-query"),
    }


def test_the_detail_of_a_403_names_the_missing_action_and_no_more(send, town):
    problem = read_problem(put_limit(send, town.a1, town.member))
    assert problem == {
        "type": "urn:govbudget:problem:forbidden",
        "title": "the caller may not do this",
        "status": 403,
        "detail": "this needs the action `update`, which you do not have here",
        "code": "forbidden",
    }


def test_the_hosts_own_error_pages_never_stand_in_for_a_problem(engine, policy, town):
    """Flask asks an application's handler for a status before a blueprint's handler for all."""
    app = make_app(engine, policy=policy)
    page = "<h1>the host's page</h1>"
    for status in (400, 401, 403, 404, 405, 413, 415, 500, 503):
        app.register_error_handler(status, lambda error: (page, error.code))
    app.register_error_handler(Exception, lambda error: ("<h1>the host's page</h1>", 500))
    send = Client(app)
    read_problem(send("POST", "/ai/prices"))
    read_problem(send("GET", "/ai/prices/a/b"))
    read_problem(send("GET", budget_path("x"), town.owner))
    read_problem(send("GET", "/ai/prices/a/b", town.member))
    large = {"data": b" " * (1024 * 1024 + 1), "content_type": "application/json"}
    assert outcome(send("PUT", budget_path(town.a1), town.owner, **large))[0] == 413
    for path in ("/elsewhere", "/api/v2/nowhere"):
        assert app.test_client().get(path).data == b"<h1>the host's page</h1>"


def test_an_error_nobody_thought_of_is_a_500_without_its_text(engine, policy, town, caplog):
    def load_group(connection, subject_id, group_id):
        raise KeyError("the secret of the house")

    broken = copy(town.directory)
    broken.load_group = load_group
    send = Client(make_app(engine, policy=policy, directory=broken))
    response = send("GET", budget_path(town.a1), town.owner)
    assert outcome(response) == (500, "internal-error")
    assert b"secret" not in response.data
    failed = [record for record in caplog.records if record.name == "govbudget"]
    assert [record.exc_info[0] for record in failed] == [KeyError]


def strip(response):
    """Give all that a caller can see, but for what differs with every request."""
    passing = {"Date", "X-Request-Id"}
    headers = sorted((k, v) for k, v in response.headers if k not in passing)
    return response.status_code, headers, response.get_data()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b'{"spend_limit_micros": 1}'),
        ({"If-Match": '"x"', "If-None-Match": "*"}, b"not JSON"),
    ],
)
def test_unknown_and_forbidden_groups_get_identical_answers(  # noqa: PLR0917 - a case
    engine, send, clean_town, method, headers, body
):
    """Whether a group is absent, another's, budgeted or not, its answer is one string of bytes."""
    assert put_limit(send, clean_town.b1, clean_town.owner).status_code == 200
    options = {"headers": headers, "data": body, "content_type": "application/json"}
    answers, statements = [], []
    for group in (uuid4(), clean_town.b1, clean_town.b, clean_town.a1):
        for person in (clean_town.stranger, clean_town.nobody):
            with count_statements(engine) as sent:
                answers.append(strip(send(method, budget_path(group), person, **options)))
            statements.append(list(sent))
    with count_statements(engine) as sent:
        answers.append(
            strip(send(method, budget_path(clean_town.b1), clean_town.org_admin, **options))
        )
    statements.append(list(sent))
    assert answers[0][0] == 404
    assert all(answer == answers[0] for answer in answers)
    assert all(sent == statements[0] for sent in statements)
    assert len(statements[0]) == 1


@pytest.mark.parametrize("query", ["", "?page_size=0"])
def test_unknown_and_forbidden_organizations_get_identical_answers(engine, send, clean_town, query):
    answers, statements = [], []
    for organization in (uuid4(), clean_town.a, clean_town.b, clean_town.a1):
        for person in (clean_town.stranger, clean_town.nobody):
            with count_statements(engine) as sent:
                answers.append(strip(send("GET", list_path(organization) + query, person)))
            statements.append(list(sent))
    answers.append(strip(send("GET", list_path(clean_town.b) + query, clean_town.org_admin)))
    assert answers[0][0] == 404
    assert all(answer == answers[0] for answer in answers)
    assert all(sent == statements[0] for sent in statements)
    assert len(statements[0]) == 1


def test_over_a_socket_the_failures_have_the_same_shape(engine, town):
    """A real server: headers that a test client would not send, and the bytes as they arrive."""
    with serve(create_app(engine, {})) as port:
        for method, path, status in (
            ("GET", "/api/v2", 404),
            ("GET", "/api/v2//", 404),
            ("BREW", "/api/v2/ai/prices", 405),
            ("GET", "/api/v2/%FF%00%0A", 404),
            ("GET", f"/api/v2{budget_path(town.a1)}", 401),
        ):
            answered, headers, body = exchange(port, method, path)
            assert answered == status
            fake = Response(body, status=answered, headers=list(headers.items()))
            read_problem(fake)
