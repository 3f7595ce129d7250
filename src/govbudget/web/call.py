"""What every view is given, and what a route says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Generic
from urllib.parse import quote, urlencode

from flask import Response, request
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from govbudget.authz.authorize import ObjectT
from govbudget.errors import GovBudgetError
from govbudget.strict_json import parse_json
from govbudget.web.problems import answer_empty

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from govbudget.db.unit import Grant
    from govbudget.identity import Action, Id
    from govbudget.installation import Installation

MIB = 1024 * 1024
# What is done when the connection is given back, in this order.
Later = list[Callable[[], None]]
# What can stand for an id in a path, for the caller's own.
ME = "me"


class Target(StrEnum):
    """What a route is about, and so what is loaded before the decision; its name in the log."""

    GROUP = "group"
    GROUPS_OF_ORGANIZATION = "organization"
    MEMBER = "member"
    PRICE_BOOK = "price book"
    LEDGER = "ledger"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class AuthorizedRequest(Generic[ObjectT]):
    """A request that was allowed: the grant, and what its view needs to do the work."""

    gov: Installation
    grant: Grant[ObjectT]
    path: dict[str, str]
    # The ids that are in the path, read; `me` is the caller's own.
    ids: dict[str, Id]
    # As the route's body is read; None where the route takes none.
    body: Any

    @property
    def object(self) -> ObjectT:
        """What the request is about."""
        return self.grant.object


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: method and path, what is authorized, and the view that runs after it.

    - `view` gives the value that `answer` is made of, or a response of its own.
    - `answer` names the model of the answer, as `module:NAME`; none: 204.
    - `body` names what reads the body, likewise: of at most `max_body` bytes, which hold at most
      `max_values` values.
    - `codes` are the errors that are this endpoint's own.
    - `statuses` are those of success: the first, and the one of what was known before.
    - `tagged`: it has an `ETag` and heeds preconditions; `paged`: it answers in pages.
    - `query` are the parameters of its own, as OpenAPI describes them. One of the name `format`
      may ask for CSV.
    - `turn` gives what is entered before a connection is taken, and left when it is given back: of
      what takes long, few are done at a time.
    - `note_error` gets the installation, the record of the log, an error and what reads the body.
    """

    method: str
    path: str
    target: Target
    action: Action
    view: Callable[[Any], object]
    answer: str | None = None
    body: str | None = None
    max_body: int = MIB
    max_values: int = 2000
    codes: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)
    tagged: bool = False
    paged: bool = False
    query: tuple[Mapping[str, Any], ...] = ()
    turn: Callable[[], AbstractContextManager[object]] = nullcontext
    note_error: Callable[[Any, dict[str, Any], Exception, Callable[[], Any]], Later] | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What a view gives where the thing was known before; the second status of its route."""

    value: object


@cache
def load(name: str) -> TypeAdapter[Any]:
    """Give what reads a body or makes an answer. Loads pydantic with the first one."""
    from pydantic import TypeAdapter  # noqa: PLC0415 - which is half of a start's time

    found = resolve_name(f"govbudget.{name}")
    return found if isinstance(found, TypeAdapter) else TypeAdapter(found)


def respond(route: Route, value: Any) -> Response:  # noqa: ANN401 - what its model is made of
    """Answer with what a view gave."""
    if isinstance(value, Response):
        return value
    if route.answer is None:
        return answer_empty()
    is_known = isinstance(value, Known)
    adapter = load(route.answer)
    answer = adapter.validate_python(value.value if is_known else value)
    content = adapter.dump_json(answer, ensure_ascii=True) + b"\n"
    response = Response(content, route.statuses[is_known], mimetype="application/json")
    if route.tagged:
        response.set_etag(value.etag)
    if route.paged and answer.next_page_token is not None:
        path = quote(request.script_root + request.path)
        query = urlencode({**request.args, "page_token": answer.next_page_token})
        response.headers["Link"] = f'<{path}?{query}>; rel="next"'  # RFC 8288
    return response


def _receive(max_bytes: int) -> bytes:
    """Receive a JSON body; raise `unsupported-media-type`, 413, or 400 for half a body."""
    # An empty one is left out of the parameters.
    default = "" if "charset" in request.headers.get("Content-Type", "").lower() else "utf-8"
    charset = request.mimetype_params.get("charset", default).lower()
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if request.mimetype != "application/json" or charset != "utf-8" or encoding != "identity":
        raise GovBudgetError(
            "unsupported-media-type", "send `Content-Type: application/json`, UTF-8, not compressed"
        )
    # One byte more than is taken: of a body without a length Flask reads this much and no more, and
    # does not say that there was more. The host may also have read the body, under its own limit.
    request.max_content_length = max_bytes + 1
    try:
        content = request.get_data()
    except HTTPException:
        raise
    except Exception as error:  # of the server, for chunks that are not well formed
        raise BadRequest("the body could not be received") from error
    if len(content) > max_bytes:
        raise RequestEntityTooLarge
    # Some servers end the stream where the connection ended.
    if len(content) < (request.content_length or 0):
        raise BadRequest("the body ended before its `Content-Length`")
    return content


def receive(route: Route) -> bytes | Exception | None:
    """Receive the body, of any but a large one, or why it can't be.

    However long that takes, no connection to the database is held meanwhile. A large one waits
    for the decision, since not everybody may fill the memory.
    """
    if route.body is None or route.max_body > MIB:
        return None
    try:
        return _receive(route.max_body)
    except (GovBudgetError, HTTPException) as error:
        return error


def read_body(
    gov: Installation, route: Route, received: Callable[[], bytes | Exception | None]
) -> Any:  # noqa: ANN401 - what the adapter makes of it
    """Read the body, after the decision; raise what is wrong with it."""
    if route.body is None:
        return None
    body = received()
    if isinstance(body, Exception):
        raise body
    content = _receive(route.max_body) if body is None else body
    return parse_json(content, load(route.body), gov.settings.id_type, route.max_values)
