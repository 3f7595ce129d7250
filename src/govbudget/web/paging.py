"""Pages: a size, and an opaque token that holds where it ended (so it survives other changes)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, TypeVar

from flask import request

from govbudget.errors import FieldError, GovBudgetError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from werkzeug.datastructures import MultiDict

    from govbudget.identity import Id

T = TypeVar("T")

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 500
MAX_TOKEN = 4096
_SIZE = re.compile(r"[0-9]{1,6}")
PARAMETERS = ("page_size", "page_token")


def read_page(
    query: MultiDict[str, str], organization: Id, read_position: Callable[..., T]
) -> tuple[int, T | None]:
    """Read (page size, position after which the page starts) from a query.

    `read_position` makes the position from its texts and raises ValueError or `invalid-id` for
    texts that are none. Raises `invalid-query`.
    """
    errors = [
        FieldError(name[:60], f"unknown parameter; known are: {', '.join(PARAMETERS)}")
        for name in query
        if name not in PARAMETERS
    ]
    errors += [
        FieldError(name, "given more than once")
        for name in PARAMETERS
        if len(query.getlist(name)) > 1
    ]
    size_text = query.get("page_size", str(DEFAULT_PAGE_SIZE))
    size = int(size_text) if _SIZE.fullmatch(size_text) else 0
    if not 1 <= size <= MAX_PAGE_SIZE:
        errors.append(FieldError("page_size", f"must be a whole number from 1 to {MAX_PAGE_SIZE}"))
    after = None
    token = query.get("page_token")
    if token is not None:
        after = _read_token(token, organization, read_position)
        if after is None:
            sentence = "not a token of this list; take `next_page_token` of the page before"
            errors.append(FieldError("page_token", sentence))
    if errors:
        raise InvalidInput("the query can't be understood", errors, code="invalid-query")
    return size, after


def write_token(organization: Id, *position: object) -> str:
    """Write the token of the page after the one that ends at the position."""
    content = json.dumps([_name_list(organization), *map(str, position)], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def _read_token(token: str, organization: Id, read_position: Callable[..., T]) -> T | None:
    if len(token) > MAX_TOKEN or not token.isascii():
        return None
    try:
        content = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        place, *texts = content
        if not all(isinstance(text, str) for text in texts):
            return None
        position = read_position(*texts)
    except (binascii.Error, ValueError, TypeError, RecursionError, GovBudgetError):
        return None
    # Only the one spelling that `write_token` gives is a token of this list.
    is_ours = place == _name_list(organization) and write_token(organization, *texts) == token
    return position if is_ours else None


def _name_list(place: Id) -> str:
    return f"{request.endpoint} {place}"
