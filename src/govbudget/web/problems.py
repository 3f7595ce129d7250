"""Answers: JSON, and RFC 9457 problem details for every failure."""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING, Any

from flask import Response

from govbudget.errors import BudgetExceeded, GovBudgetError, InvalidInput
from govbudget.spend.cost import round_up_to_micros
from govbudget.web.units import RETRY_AFTER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from werkzeug.exceptions import HTTPException

    from govbudget.identity import Id

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


def answer(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - any JSON
    """Answer with JSON. The host's JSON provider has no say: the bytes are the contract's."""
    return Response(dump_json(value), status=status, mimetype="application/json")


def answer_empty(status: int = 204, headers: Mapping[str, str] | None = None) -> Response:
    """Answer without a body, and so without the type of one."""
    response = Response(status=status, headers=headers)
    del response.headers["Content-Type"]
    return response


def dump_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Write JSON on one line, in ASCII: a newline in a name can't forge a line."""
    return _encode(value).encode("ascii") + b"\n"


def write_id(value: Id) -> int | str:
    """Write an id as JSON has it."""
    return value if isinstance(value, int) else str(value)


def write_time(time: datetime) -> str:
    """Write a time as RFC 3339 has it, in UTC."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def explain(error: GovBudgetError, challenge: str) -> Response:
    """Answer with an error of ours."""
    problem: dict[str, Any] = {}
    if isinstance(error, InvalidInput):
        problem["errors"] = [
            {"pointer": item.pointer, "detail": item.detail} for item in error.errors
        ]
    if isinstance(error, BudgetExceeded):
        problem = tell_excess(error)
    response = _problem(error.code, error.title, int(error.status), error.detail, problem)
    if error.code == "unauthenticated":
        response.headers["WWW-Authenticate"] = challenge
    if error.code == "unavailable":
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def explain_http(error: HTTPException, challenge: str) -> Response:
    """Answer with an error of Flask's or the host's (an `abort`), in the same shape."""
    status = error.code or 500
    if status in CODES:
        response = explain(GovBudgetError(CODES[status], _detail(error)), challenge)
    else:
        name = error.name.lower()
        response = _problem(name.replace(" ", "-"), name, status, _detail(error), {})
    for key, value in error.get_headers():
        if key.lower() not in {"content-type", "content-length"}:
            response.headers[key] = value
    return response


def tell_excess(error: BudgetExceeded) -> dict[str, Any]:
    """Give the figures of a refusal, as answers and the log have them."""
    return {
        "spend_limit_micros": error.limit_micros,
        "limit_source": error.limit_source,
        "group_id": write_id(error.group_id),
        "current_spend_micros": round_up_to_micros(error.spent_picos),
        "held_micros": round_up_to_micros(error.held_picos),
        "cost_micros": round_up_to_micros(error.cost_picos),
        "period_end": write_time(error.period_end),
    }


def _detail(error: HTTPException) -> str:
    details = {
        404: "there is nothing at this path; the endpoints are listed in the documentation",
        413: "the body is larger than this endpoint takes",
    }
    return details.get(error.code or 500, error.description or error.name)


def _problem(code: str, title: str, status: int, detail: str, more: dict[str, Any]) -> Response:
    body = {
        "type": f"urn:govbudget:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    return Response(dump_json(body), status=status, mimetype="application/problem+json")
