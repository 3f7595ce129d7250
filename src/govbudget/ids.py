"""The type of ids: `uuid`, `bigint` or `text`, the same for users, organizations and groups."""

from __future__ import annotations

import re
from enum import StrEnum
from uuid import UUID

from govbudget.errors import GovBudgetError
from govbudget.identity import Id

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BIGINT = re.compile(r"0|-?[1-9][0-9]{0,18}")
_BIGINT_LIMIT = 2**63
MAX_TEXT_ID = 255
MAX_NAME = 256  # of a provider or a model, in characters
# Text that PostgreSQL can store and a path can carry: no control characters.
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]+$"
PRINTABLE_WITHOUT_SLASH = r"^[^\x00-\x1f\x7f-\x9f/]+$"


class IdType(StrEnum):
    """The kinds of id that a host may have; one id has one spelling in each."""

    UUID = "uuid"
    BIGINT = "bigint"
    TEXT = "text"

    def parse(self, text: str) -> Id:
        """Read an id as it stands in a path or a file; raise `invalid-id` where it is none."""
        if self is IdType.UUID and _UUID.fullmatch(text):
            return UUID(text)
        if self is IdType.BIGINT and _BIGINT.fullmatch(text):
            number = int(text)
            if -_BIGINT_LIMIT <= number < _BIGINT_LIMIT:
                return number
        if (
            self is IdType.TEXT
            and 0 < len(text) <= MAX_TEXT_ID
            and text.isprintable()
            and "\ufffd" not in text
        ):
            return text
        expected = {
            IdType.UUID: "a UUID such as 123e4567-e89b-12d3-a456-426614174000",
            IdType.BIGINT: "a whole number of 64 bits",
            IdType.TEXT: f"1 to {MAX_TEXT_ID} printable characters",
        }
        shown = text[:60].encode("unicode_escape").decode("ascii")
        raise GovBudgetError("invalid-id", f"`{shown}` is not an id; expected {expected[self]}")

    def accept(self, value: object) -> Id:
        """Take an id from the host's code: one of the type itself, or its text.

        Raises TypeError for anything else: that is a mistake in the host's code, not a caller's.
        """
        if self is IdType.UUID and isinstance(value, UUID):
            return value
        if isinstance(value, str) or (self is IdType.BIGINT and type(value) is int):
            try:
                return self.parse(str(value))  # within the bounds of the column, too
            except GovBudgetError as error:
                raise TypeError(error.detail) from None
        raise TypeError(f"expected an id of the type `{self}`, got `{repr(value)[:60]}`")
