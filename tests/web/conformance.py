"""Holds every answer that a test gets to what the OpenAPI document says of its endpoint."""

from __future__ import annotations

import json
from functools import cache

import jsonschema_rs
from werkzeug.exceptions import HTTPException

from govbudget.errors import CATALOGUE
from govbudget.settings import Settings
from govbudget.web.openapi import REF, describe, find_codes
from govbudget.web.routes import list_routes

# Of paths that are no endpoint's, and of hosts that abort.
ELSEWHERE = {"not-found", "method-not-allowed"}
ROUTES = list_routes()


@cache
def _schemas():
    """The document's schemas, with their keys and no other."""
    components = describe(Settings(), ROUTES)["components"]
    schemas = components["schemas"] | {"Id": {"type": ["integer", "string"]}}
    for schema in schemas.values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return schemas


@cache
def _validator(name):
    """What holds a body to a schema of the document."""
    document = {"$ref": f"{REF}{name}", "components": {"schemas": _schemas()}}
    return jsonschema_rs.validator_for(document)


def read_as(name, body):
    """Read a body that is as the document says; raise jsonschema_rs.ValidationError if not."""
    value = json.loads(body)
    _validator(name).validate(value)
    return value


def check_answer(app, response):
    """Compare an answer of one of the routes with the types and codes that its row names."""
    prefix = app.extensions["govbudget"].settings.url_prefix
    method, path = response.request.method, response.request.path
    try:
        rule, _ = app.url_map.bind("").match(path, method, return_rule=True)
    except HTTPException:
        return  # the path is no route's
    wanted = ("GET" if method == "HEAD" else method, rule.rule.removeprefix(prefix))
    for route in ROUTES:
        if (route.method, route.path) == wanted:
            compare(route, response, whole=method != "HEAD")


def compare(route, response, *, whole=True):
    """Compare an answer with its route: status, code, and all keys and types of the body."""
    status, body = response.status_code, response.get_data()
    if response.mimetype == "application/problem+json":
        if not whole:
            return
        problem = read_as("Problem", body)
        if problem["code"] in CATALOGUE.keys() - ELSEWHERE:
            assert problem["code"] in find_codes(route), problem
    elif response.mimetype == "text/csv":
        assert status == 200
        assert "format" in {parameter["name"] for parameter in route.query}
    elif status == 304:
        assert route.tagged
        assert route.method == "GET"
    elif status < 300:
        assert status in (route.statuses if route.answer else (204,))
        assert bool(route.tagged and route.answer) == ("ETag" in response.headers)
        if route.answer and whole:
            read_as(route.answer.partition(":")[2], body)
