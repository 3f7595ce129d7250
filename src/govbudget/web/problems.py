"""Answers: JSON, and RFC 9457 problem details for every failure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Response
from werkzeug.exceptions import HTTPException

from govbudget.db.retries import RETRY_AFTER_SECONDS
from govbudget.errors import GovBudgetError

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode
# What an error of Flask's or the host's is called, by its status.
CODES = {
    400: "bad-request",
    401: "unauthenticated",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "unsupported-media-type",
    503: "unavailable",
}


def answer_empty(status: int = 204, headers: Mapping[str, str] | None = None) -> Response:
    """Answer without a body, and so without the type of one."""
    response = Response(status=status, headers=headers)
    del response.headers["Content-Type"]
    return response


def dump_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Write JSON on one line, in ASCII: a newline in a name can't forge a line."""
    return _encode(value).encode("ascii") + b"\n"


def answer_error(error: GovBudgetError, challenge: str) -> Response:
    """Answer with an error of ours."""
    response = _problem(error.code, error.title, int(error.status), error.detail, error.members)
    if error.code == "unauthenticated":
        response.headers["WWW-Authenticate"] = challenge
    if error.code == "unavailable":
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def answer_http_error(error: HTTPException, challenge: str) -> Response:
    """Answer with an error of Flask's or the host's (an `abort`), in the same shape."""
    status = error.code or 500
    if status in CODES:
        response = answer_error(GovBudgetError(CODES[status], _detail(error)), challenge)
    else:
        name = error.name.lower()
        response = _problem(name.replace(" ", "-"), name, status, _detail(error), {})
    for key, value in error.get_headers():
        if key.lower() not in {"content-type", "content-length"}:
            response.headers[key] = value
    return response


def _detail(error: HTTPException) -> str:
    details = {
        404: "there is nothing at this path; the endpoints are listed in the documentation",
        413: "the body is larger than this endpoint takes",
    }
    return details.get(error.code or 500, error.description or error.name)


def _problem(code: str, title: str, status: int, detail: str, more: Mapping[str, Any]) -> Response:
    body = {
        "type": f"urn:govbudget:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    return Response(dump_json(body), status=status, mimetype="application/problem+json")
