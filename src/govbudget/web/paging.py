"""Queries: flags, and pages: a size, and an opaque token that holds where it ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flask import request
from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from govbudget.errors import FieldError, GovBudgetError, InvalidInput
from govbudget.identity import Id
from govbudget.ids import PRINTABLE, IdType

T = TypeVar("T")
RowT = TypeVar("RowT")

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 500
MAX_TOKEN = 4096
_SIZE = re.compile(r"[0-9]{1,6}")
PARAMETERS = ("page_size", "page_token")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """What a query asks for: at most `size` rows of a list, those after a position."""

    # That of the organization or group whose list it is.
    list_id: Id
    size: int
    after: T | None

    @property
    def limit(self) -> int:
        """How many rows to fetch: the one too many says that there is a next page."""
        return self.size + 1

    def cut(
        self, rows: Sequence[RowT], give_position: Callable[[RowT], tuple[object, ...]], name: str
    ) -> dict[str, Any]:
        """Give the rows of the page under a name, and the token of the next one, if any."""
        page = rows[: self.size]
        more = len(rows) > self.size
        token = _write_token(self.list_id, *give_position(page[-1])) if more else None
        return {name: page, "next_page_token": token}


def read_id_page(list_id: Id, id_type: IdType, more: tuple[str, ...] = ()) -> Page[Id]:
    """Read the query of a list whose rows are ordered by an id; raise `invalid-query`.

    `more` are parameters that are read elsewhere.
    """

    def read_id(text: str) -> Id:
        found = id_type.parse(text)
        if str(found) != text:
            raise ValueError(text)
        return found

    return read_page(list_id, read_id, more)


def read_page(
    list_id: Id,
    read_position: Callable[..., T],
    more: tuple[str, ...] = (),
    found: Sequence[FieldError] = (),
) -> Page[T]:
    """Read the query of a page; raise `invalid-query`.

    `read_position` makes the position from its texts and raises ValueError or `invalid-id` for
    texts that are not a position, or are another spelling of one. `more` are the list's own
    parameters, and `found` is what is wrong with them.
    """
    query, errors = request.args, [*_check_names((*more, *PARAMETERS)), *found]
    size_text = query.get("page_size", str(DEFAULT_PAGE_SIZE))
    size = int(size_text) if _SIZE.fullmatch(size_text) else 0
    if not 1 <= size <= MAX_PAGE_SIZE:
        errors.append(FieldError("page_size", f"must be a whole number from 1 to {MAX_PAGE_SIZE}"))
    token = query.get("page_token")
    after = None if token is None else _read_token(token, list_id, read_position)
    if token is not None and after is None:
        sentence = "not a token of this list; take `next_page_token` of the page before"
        errors.append(FieldError("page_token", sentence))
    refuse_query(errors)
    return Page(list_id, size, after)


def read_name(text: str) -> str:
    """Read a name that may be one of the database's; ValueError: it can't be."""
    if not re.fullmatch(PRINTABLE, text):
        raise ValueError("must be a text without control characters")
    text.encode()  # a lone surrogate is not a character: a ValueError
    return text


def read_flag(name: str) -> bool:
    """Read a query that may have one parameter, `true` or `false`; raise `invalid-query`."""
    text, errors = request.args.get(name, "false"), _check_names((name,))
    if text not in {"true", "false"}:
        errors.append(FieldError(name, "must be `true` or `false`"))
    refuse_query(errors)
    return text == "true"


def _check_names(known: tuple[str, ...]) -> list[FieldError]:
    query = request.args
    errors = [
        FieldError(name[:60], f"unknown parameter; known are: {', '.join(known)}")
        for name in query
        if name not in known
    ]
    errors += [
        FieldError(name, "given more than once") for name in known if len(query.getlist(name)) > 1
    ]
    return errors


def refuse_query(errors: Sequence[FieldError]) -> None:
    """Raise `invalid-query` where there are errors."""
    if errors:
        raise InvalidInput("the query can't be understood", errors, code="invalid-query")


def _write_token(list_id: Id, *position: object) -> str:
    """Write the token of the page after the one that ends at the position: below MAX_TOKEN."""
    # Not as `URLSafeSerializer`, which takes what is compressed: megabytes in a token of any size.
    content = json.dumps([*map(str, position)], ensure_ascii=False, separators=(",", ":"))
    return _sign(list_id).sign(base64_encode(content)).decode()


def _read_token(token: str, list_id: Id, read_position: Callable[..., T]) -> T | None:
    if len(token) > MAX_TOKEN:
        return None
    try:
        texts = json.loads(base64_decode(_sign(list_id).unsign(token)))
        position = read_position(*texts)
        # Only the one spelling that is written is a token of this list.
        return position if _write_token(list_id, *texts) == token else None
    except (BadData, ValueError, TypeError, AttributeError, RecursionError, GovBudgetError):
        return None


def _sign(list_id: Id) -> Signer:
    """Give what signs the tokens of this list. It holds no secret: a token opens nothing."""
    return Signer(f"{request.endpoint} {list_id}", salt="govbudget.page")
