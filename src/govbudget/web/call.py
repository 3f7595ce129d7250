"""What every view is given, and what a route says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from flask import Response, request
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from govbudget.authz.grant import Grant, ListGrant
from govbudget.errors import GovBudgetError
from govbudget.identity import Group, Ledger, Member, Organization, PriceBook
from govbudget.web.problems import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from govbudget.identity import Action, Id
    from govbudget.installation import Installation

MIB = 1024 * 1024
# What can stand for an id in a path, for the caller's own.
ME = "me"

GrantT = TypeVar("GrantT", Grant, ListGrant)
ObjectT = TypeVar("ObjectT", Group, Organization, Member, PriceBook, Ledger)


class Target(StrEnum):
    """What a route is about, and so what is loaded before the decision."""

    GROUP = "group"
    GROUPS_OF_ORGANIZATION = "organization"
    MEMBER = "member"
    PRICE_BOOK = "price book"
    LEDGER = "ledger"


@dataclass(frozen=True, slots=True)
class Call(Generic[GrantT, ObjectT]):
    """An authorized request: the grant, and what its view needs to do the work."""

    home: Installation
    connection: Connection
    grant: GrantT
    object: ObjectT
    path: dict[str, str]
    # The ids that are in the path, read; `me` is the caller's own.
    ids: dict[str, Id]
    # As `web/bodies.py` reads it; None where the route takes none.
    body: Any
    # What is done when the connection is given back, in this order.
    later: list[Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: method and path, what is authorized, and the view that runs after it.

    `body` names what is read of a body, in `web/bodies.py`: of at most `max_body` bytes, which hold
    at most `max_values` values. The rest is for the OpenAPI document (`web/openapi.py`): the type
    of the answer (None: 204); the codes of errors that are this endpoint's own; its statuses when
    all is well; whether it has an `ETag` and heeds preconditions; whether it answers in pages;
    the names of the query's flags.
    """

    method: str
    path: str
    target: Target
    action: Action
    view: Callable[[Any], Response]
    answer: type | None = None
    body: str | None = None
    max_body: int = MIB
    max_values: int = 2000
    codes: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)
    tagged: bool = False
    paged: bool = False
    flags: tuple[str, ...] = ()


def receive_body(max_bytes: int) -> bytes:
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
    except Exception as error:  # each server has its own for chunks that are none
        raise BadRequest("the body could not be received") from error
    if len(content) > max_bytes:
        raise RequestEntityTooLarge
    # Some servers end the stream where the connection ended.
    if len(content) < (request.content_length or 0):
        raise BadRequest("the body ended before its `Content-Length`")
    return content


def answer_page(page: Mapping[str, Any]) -> Response:
    """Answer with a page; where there is a next one, the `Link` header names it too (RFC 8288)."""
    response = answer(page)
    if (token := page["next_page_token"]) is not None:
        path = quote(request.script_root + request.path)
        query = urlencode({**request.args, "page_token": token})
        response.headers["Link"] = f'<{path}?{query}>; rel="next"'
    return response
