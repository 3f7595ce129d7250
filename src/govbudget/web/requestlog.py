"""One structured log line a request: who, what, which decision, by which lines of which policy.

A line is one JSON object in ASCII: no name can forge a second one. It goes to the logger
`govbudget.request`, which is not below a logger of Casbin's.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any
from uuid import uuid4

from flask import Response, g, request

from govbudget.authz.authorize import Allowed
from govbudget.errors import GovBudgetError

logger = logging.getLogger("govbudget.request")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def start_record() -> dict[str, Any]:
    """Start the record of this request; a plain request id that the caller sent is kept."""
    asked = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - documented
    given = asked.headers.get("X-Request-Id", "")
    record = {
        "request_id": given if _REQUEST_ID.fullmatch(given) else uuid4().hex,
        "caller": None,
        "method": asked.method,
        "route": str(asked.url_rule) if asked.url_rule else None,
    }
    g.govbudget_record = record, time.perf_counter()
    return record


def find_record() -> dict[str, Any]:
    """Find the record of this request, to add facts that JSON can hold or `str` can write."""
    record: dict[str, Any] = g.govbudget_record[0]
    return record


def request_id() -> str:
    """Give the id of this request: the caller's, or one made for it."""
    return str(find_record()["request_id"])


def note_allowed(record: dict[str, Any], allowed: Allowed[Any]) -> None:
    """Note an allowed decision."""
    record["decision"] = "allow"
    record["roles"], record["lines"] = allowed.roles, allowed.lines


def note_refused(record: dict[str, Any], error: GovBudgetError) -> None:
    """Note a denial: its code, and the lines that would have allowed it."""
    record.update(
        decision="deny",
        roles=(),
        code=error.code,
        lines=getattr(error, "lines", ()),
        would_allow=getattr(error, "would_allow", ()),
    )


def finish_record(response: Response) -> Response:
    """Put the request id into the answer and send the line."""
    if "govbudget_record" not in g:  # the host answered before the blueprint was asked
        start_record()
    record, started = g.pop("govbudget_record")  # a test's requests may share one `g`
    response.headers["X-Request-Id"] = record["request_id"]
    milliseconds = (time.perf_counter() - started) * 1000
    write_line({**record, "status": response.status_code, "ms": round(milliseconds, 3)})
    return response


def write_line(line: dict[str, Any]) -> None:
    """Send a line to the log: a warning for a denial."""
    level = logging.WARNING if line.get("decision") == "deny" else logging.INFO
    if logger.isEnabledFor(level):
        # In ASCII, so that a newline in a name can't forge a line; spaced as `serve` writes it.
        logger.log(level, json.dumps(line, default=str), extra={"govbudget": line})
