"""Read JSON strictly: UTF-8, no duplicate keys, no NaN, no nesting that exhausts the stack."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

from govbudget.errors import FieldError, InvalidInput
from govbudget.ids import PRINTABLE, PRINTABLE_WITHOUT_SLASH

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

T = TypeVar("T")

MAX_ERRORS = 50
MAX_DIGITS = 100

# Where pydantic's own words would name a class or a pattern.
_SENTENCES = {
    "model_type": "must be an object",
    PRINTABLE: "must be text without control characters, and not empty",
    PRINTABLE_WITHOUT_SLASH: "must be text without control characters and `/`, and not empty",
}


def parse_json(content: bytes, adapter: TypeAdapter[T], context: object = None) -> T:
    """Read and validate JSON; raise InvalidInput, with a JSON pointer for each wrong place.

    `context` is for the validators.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_refuse_duplicates,
            parse_constant=_refuse,
            parse_int=_read_int,
        )
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"not JSON: {error.msg[0].lower()}{error.msg[1:]} at line {error.lineno}, "
            f"column {error.colno}"
        ) from None
    except RecursionError:
        raise InvalidInput("not accepted: nested too deeply") from None
    except ValueError as error:
        raise InvalidInput(f"not accepted: {error}") from None
    from pydantic import ValidationError  # noqa: PLC0415 - loaded when first needed

    try:
        return adapter.validate_python(value, context=context)
    except ValidationError as error:
        raise _explain(error) from None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        message = f"the key {json.dumps(twice)[:80]} stands twice in one object"
        raise ValueError(message)
    return result


def _read_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        message = f"an integer has {len(digits)} digits, which no value here has"
        raise ValueError(message)
    return int(digits)


def _refuse(constant: str) -> None:
    message = f"{constant} is not JSON"
    raise ValueError(message)


def _explain(error: ValidationError) -> InvalidInput:
    found = error.errors(include_url=False, include_input=False)
    errors = [FieldError(_pointer(item["loc"]), _sentence(item)) for item in found]
    more = f" (the first {MAX_ERRORS} are listed)" if len(errors) > MAX_ERRORS else ""
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    return InvalidInput(f"the JSON has {count}{more}", errors[:MAX_ERRORS])


def _pointer(location: tuple[int | str, ...]) -> str:
    """Write a location as a JSON pointer (RFC 6901)."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    return "".join(f"/{part}" for part in escaped)


def _sentence(item: ErrorDetails) -> str:
    key = item.get("ctx", {}).get("pattern", item["type"])
    message = item["msg"].removeprefix("Value error, ")
    return _SENTENCES.get(key, message[:1].lower() + message[1:])
