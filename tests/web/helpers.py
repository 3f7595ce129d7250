"""What the tests of the web share: reading problems, a real server, directories that meddle."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager

import sqlalchemy as sa
from tests.support import TABLES
from werkzeug.serving import WSGIRequestHandler, make_server

BUDGET_KEYS = {"group_id", "spend_limit_micros", "created_at", "updated_at"}
FIGURES = {
    *("spend_limit_micros", "limit_source", "group_id", "period_end"),
    *("current_spend_micros", "held_micros", "cost_micros"),
}
PROBLEM_KEYS = {"type", "title", "status", "detail", "code"}
OWN_KEYS = {"budget-exceeded": FIGURES, "event-corrected": {"event_id"}}


def read_problem(response):
    """Give the code of a problem, once its shape is what every problem's shape is."""
    assert response.status_code >= 400, response.get_data()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "Location" not in response.headers
    problem = json.loads(response.get_data().decode("ascii"))
    keys = PROBLEM_KEYS | OWN_KEYS.get(problem["code"], set())
    if problem.get("limit_source") == "user_override":  # which may have an end
        keys |= {"limit_expires_at"} & problem.keys()
    assert set(problem) - {"errors"} == keys
    assert problem["type"] == f"urn:govbudget:problem:{problem['code']}"
    assert problem["status"] == response.status_code
    for text in ("title", "detail", "code"):
        assert isinstance(problem[text], str)
        assert problem[text]
    for item in problem.get("errors", ()):
        assert set(item) == {"pointer", "detail"}
        assert isinstance(item["pointer"], str)
        assert item["detail"]
    assert (response.status_code == 401) == ("WWW-Authenticate" in response.headers)
    assert (response.status_code == 503) == ("Retry-After" in response.headers)
    assert (response.status_code == 405) == ("Allow" in response.headers)
    return problem


def outcome(response):
    """Give (status, code of the problem or None)."""
    code = read_problem(response)["code"] if response.status_code >= 400 else None
    return response.status_code, code


def is_of_the_host(response):
    """Whether an answer is Flask's own 404, without a trace of govbudget."""
    ours = {"X-Request-Id", "Cache-Control"} & set(response.headers.keys())
    return response.status_code == 404 and response.mimetype == "text/html" and not ours


def put_limit(send, group, person, limit=5, **options):
    """PUT a limit."""
    path = f"/groups/{group}/ai/budget"
    return send("PUT", path, person, json={"spend_limit_micros": limit}, **options)


def read_row(engine, group):
    """Give the stored limit of a group, or None."""
    budgets = TABLES.group_ai_budgets
    with engine.connect() as connection:
        query = sa.select(budgets.c.spend_limit_micros).where(budgets.c.group_id == group)
        return connection.execute(query).scalar()


def clear_budgets(engine, town):
    """Take away the budgets of a world's groups."""
    budgets = TABLES.group_ai_budgets
    groups = (town.a, town.b, town.a1, town.a2, town.b1)
    with engine.begin() as connection:
        connection.execute(budgets.delete().where(budgets.c.group_id.in_(groups)))


class MeddlingDirectory:
    """A directory that lets something happen between the look-up and the budget's statement."""

    def __init__(self, inner, meddle):
        self.inner, self.meddle = inner, meddle

    @property
    def groups(self):
        return self.inner.groups

    @property
    def group_members(self):
        return self.inner.group_members

    @property
    def organization_members(self):
        return self.inner.organization_members

    def load_subject(self, connection, subject_id):
        return self.inner.load_subject(connection, subject_id)

    def load_group(self, connection, subject_id, group_id):
        loaded = self.inner.load_group(connection, subject_id, group_id)
        self.meddle(group_id)
        return loaded

    def load_organization(self, connection, subject_id, organization_id):
        return self.inner.load_organization(connection, subject_id, organization_id)

    def load_member(self, connection, subject_id, organization_id, user_id):
        return self.inner.load_member(connection, subject_id, organization_id, user_id)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_arguments):
        pass


@contextmanager
def serve(app, *, waits=True):
    """Serve an application on a free port, with threads; at the end wait until each has answered.

    Not for a browser, which opens connections before it needs them.
    """
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    server.daemon_threads = not waits
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def exchange(port, method, path, *, headers=None, body=None, chunked=False):
    """Send one request over a socket; give (status, headers, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Connection": "close", **(headers or {})}
        connection.request(method, path, body=body, headers=headers, encode_chunked=chunked)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def together(count, act):
    """Run `act(index)` in threads that start at one moment; give the results in order."""
    barrier = threading.Barrier(count)
    results = [None] * count

    def run(index):
        barrier.wait(10)
        results[index] = act(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results
