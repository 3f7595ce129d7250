"""The OpenAPI 3.1 document, made from the table of routes, their types and the error codes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from govbudget.errors import CATALOGUE
from govbudget.ids import MAX_NAME, MAX_TEXT_ID, IdType
from govbudget.settings import Settings
from govbudget.web.answers import Problem
from govbudget.web.call import ME, Route, Target, load
from govbudget.web.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, MAX_TOKEN, PARAMETERS

REF = "#/components/schemas/"
ID = {"$ref": f"{REF}Id"}
IDS: dict[IdType, dict[str, Any]] = {
    IdType.UUID: {"type": "string", "format": "uuid"},
    IdType.BIGINT: {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    IdType.TEXT: {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_ID},
}
ID_OR_ME = {"anyOf": [ID, {"const": ME}]}
UUID = {"type": "string", "format": "uuid"}
TIME = {"type": "string", "format": "date-time"}
# What can stand in a path, by its name in the routes. Of `model`, slashes may be sent as they are.
NAME = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
IN_PATH: dict[str, dict[str, Any]] = {
    "group": ID,
    "organization": ID,
    "user": ID_OR_ME,
    "hold": UUID,
    "provider": {**NAME, "pattern": "^[^/]+$"},
    "model": NAME,
}
PAGE = {
    "page_size": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_PAGE_SIZE,
        "default": DEFAULT_PAGE_SIZE,
    },
    "page_token": {"type": "string", "maxLength": MAX_TOKEN},
}
ALWAYS = ("bad-request", "unauthenticated", "feature-disabled", "forbidden", "internal-error")
CONDITIONS = ("If-Match", "If-None-Match")
ON_STATUS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "how to say who you are"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "seconds"},
}
BODY_CODES = ("invalid-body", "body-too-large", "unsupported-media-type")
PREFACE = (
    "AI spend budgets per group. Every answer has `Cache-Control: no-store` and an `X-Request-Id`, "
    "the caller's where it sent a plain one. Money is in micros: 1 USD is 1,000,000."
)


def find_codes(route: Route) -> list[str]:
    """Find every code of an error that the route can answer with."""
    names = _names(route)
    codes = [*ALWAYS, "unavailable", *route.codes]
    codes += ["invalid-id"] * any(IN_PATH[name] in (ID, ID_OR_ME, UUID) for name in names)
    codes += [f"{route.target}-not-found"] * bool(names)
    codes += ["organization-unknown"] * (route.target is Target.GROUP)
    codes += BODY_CODES if route.body is not None else ()
    codes += ["invalid-query"] * (route.paged or bool(route.query))
    if route.method != "GET":
        codes += ["precondition-failed"] * route.tagged
        codes += ["group-changed"] * (route.target is Target.GROUP)
    return [code for code in CATALOGUE if code in codes]


def describe(
    settings: Settings, routes: Sequence[Route], challenge: str = "Bearer", root: str = ""
) -> dict[str, Any]:
    """Make the document of one installation: its prefix, its type of ids, its way to log in.

    `root` is the path that the application is mounted at.
    """
    answers = {route.answer for route in routes if route.answer is not None}
    bodies = {route.body for route in routes if route.body is not None}
    adapters: list[Any] = [(Problem, "serialization", TypeAdapter(Problem))]
    adapters += [(name, "serialization", load(name)) for name in answers]
    adapters += [(name, "validation", load(name)) for name in bodies]
    made, shared = TypeAdapter.json_schemas(
        adapters, ref_template=REF + "{model}", schema_generator=_Schemas
    )
    schemas = {key: schema for (key, _), schema in made.items()}
    components = {**shared["$defs"], "Id": IDS[settings.id_type], "Time": TIME, "Uuid": UUID}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(write_path(route), {})[route.method.lower()] = _describe(route, schemas)
    scheme = {"type": "http", "scheme": challenge.partition(" ")[0].lower()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "govbudget", "version": version("govbudget"), "description": PREFACE},
        "servers": [{"url": root + settings.url_prefix}],
        "security": [{"caller": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"caller": scheme},
            "schemas": dict(sorted(components.items())),
        },
    }


def write_path(route: Route) -> str:
    """Write a route's path as OpenAPI has it, with the names of its parts in braces."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.path)


class _Schemas(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's
        """Leave the titles out: they say the names again."""
        return False

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's
        """Keep the docstring of a plain dataclass: pydantic 2.12 leaves it out."""
        made = super().dataclass_schema(schema)
        made.setdefault("description", schema["cls"].__doc__)
        return made


def _describe(route: Route, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.view.__name__,
        "summary": (route.view.__doc__ or "").partition("\n")[0],
        "description": f"Asks the policy for `{route.action}`.",
        "parameters": list(_list_parameters(route)),
        "responses": dict(_list_responses(route, schemas)),
    }
    if route.body is not None:
        content = {"application/json": {"schema": schemas[route.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _list_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in _names(route):
        yield {"name": name, "in": "path", "required": True, "schema": IN_PATH[name]}
    yield from ({"in": "query", **parameter} for parameter in route.query)
    for name in PARAMETERS if route.paged else ():
        yield {"name": name, "in": "query", "required": False, "schema": PAGE[name]}
    for name in CONDITIONS[route.method == "GET" :] if route.tagged else ():
        yield {"name": name, "in": "header", "schema": {"type": "string"}}


def _list_responses(route: Route, schemas: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    headers = {}
    if route.tagged and route.answer is not None:
        headers["ETag"] = _header("new with every change")
    if route.paged:
        headers["Link"] = _header('the next page, `rel="next"`, where there is one')
    for status in route.statuses if route.answer is not None else (204,):
        done: dict[str, Any] = {"description": HTTPStatus(status).phrase, "headers": headers}
        if route.answer is not None:
            done["content"] = {"application/json": {"schema": schemas[route.answer]}}
        if any(parameter["name"] == "format" for parameter in route.query):
            done["content"]["text/csv"] = {"schema": {"type": "string"}}
        yield str(status), done
    if route.tagged and route.method == "GET":
        yield "304", {"description": "Not Modified", "headers": headers}
    codes = find_codes(route)
    for status in sorted({CATALOGUE[code][0] for code in codes}):
        of_status = [code for code in codes if CATALOGUE[code][0] == status]
        schema = {**schemas[Problem], "properties": {"code": {"enum": of_status}}}
        yield (
            str(int(status)),
            {
                "description": "; ".join(f"`{code}`: {CATALOGUE[code][1]}" for code in of_status),
                "headers": {k: _header(v) for k, v in ON_STATUS.get(status, {}).items()},
                "content": {"application/problem+json": {"schema": schema}},
            },
        )


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _names(route: Route) -> list[str]:
    return re.findall(r"(\w+)>", route.path)
