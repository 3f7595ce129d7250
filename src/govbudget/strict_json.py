"""Read JSON strictly: UTF-8, no duplicate keys, no NaN, no nesting that exhausts the stack."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

from govbudget.errors import MAX_ERRORS, FieldError, InvalidInput
from govbudget.ids import PRINTABLE, PRINTABLE_WITHOUT_SLASH

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

T = TypeVar("T")

MAX_DIGITS = 100
MAX_KEYS = 100
# Of the names and sentences that an error repeats.
MAX_SHOWN = 200

# There is one for each value, give or take one in a list or an object.
_STARTS = (b",", b"[", b"{")

# Where pydantic's own words would name a class, a pattern or nothing that one could do.
_SENTENCES = {
    "bool_type": "must be true or false",
    "extra_forbidden": "is not known here; correct or remove it",
    "int_type": "must be a whole number",
    "list_type": "must be an array",
    "missing": "is missing; add it",
    "model_type": "must be an object",
    "string_type": "must be text in quotes",
    "tuple_type": "must be an array",
    PRINTABLE: "must be text without control characters, and not empty",
    PRINTABLE_WITHOUT_SLASH: "must be text without control characters and `/`, and not empty",
}


def parse_json(
    content: bytes, adapter: TypeAdapter[T], context: object = None, max_values: int | None = None
) -> T:
    """Read and validate JSON; raise InvalidInput, with a JSON pointer for each wrong place.

    `context` is for the validators. `max_values` is how many values JSON from a stranger may hold:
    values take time and fifty times the memory of their text, so that they are counted in it. A
    comma in a string counts as one more.
    """
    if max_values is not None and sum(map(content.count, _STARTS)) > max_values:
        raise InvalidInput(f"the JSON holds more than {max_values} values; send fewer")
    if content.startswith(BOM_UTF8):
        raise InvalidInput("not JSON: it starts with a byte order mark; save it as UTF-8 without")
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
        raise _explain(_cut(error, value, adapter, context), error.error_count()) from None


def _cut(
    error: ValidationError, value: object, adapter: TypeAdapter[T], context: object
) -> ValidationError:
    """Give the error of a list's first rows where that is long enough.

    To describe an error takes far longer than to find it.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - loaded when first needed

    size = 1
    while isinstance(value, list) and error.error_count() > MAX_ERRORS and size < len(value):
        try:
            adapter.validate_python(value[:size], context=context)
        except ValidationError as part:
            if part.error_count() > MAX_ERRORS:
                return part
        size *= 2
    return error


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object has {len(pairs)} keys; here none has more than {MAX_KEYS}")
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {json.dumps(twice)[:80]} is twice in one object")
    return result


def _read_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits, which no value here has")
    return int(digits)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _explain(error: ValidationError, count: int) -> InvalidInput:
    found = error.errors(include_url=False, include_input=False)
    errors = [FieldError(_pointer(item["loc"]), _sentence(item)) for item in found[:MAX_ERRORS]]
    more = f" (the first {MAX_ERRORS} are listed)" if count > MAX_ERRORS else ""
    return InvalidInput(
        f"the JSON has {'1 error' if count == 1 else f'{count} errors'}{more}", errors
    )


def _pointer(location: tuple[int | str, ...]) -> str:
    """Write a location as a JSON pointer (RFC 6901)."""
    escaped = (str(part)[:MAX_SHOWN].replace("~", "~0").replace("/", "~1") for part in location)
    return "".join(f"/{part}" for part in escaped)


def _sentence(item: ErrorDetails) -> str:
    key = item.get("ctx", {}).get("pattern", item["type"])
    message = item["msg"].removeprefix("Value error, ").replace(" after validation", "")
    message = message.replace("Input should", "must", 1)
    return _SENTENCES.get(key, message[:1].lower() + message[1:MAX_SHOWN])
