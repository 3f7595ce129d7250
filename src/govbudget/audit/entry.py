"""An entry of the audit trail, and the receipt that a change carries into it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from govbudget.identity import Cause, Id

# What a receipt says, to whoever reads it.
TEXTS = ("actor", "cause", "policy_digest", "request_id")
LISTS = ("roles", "lines")


@dataclass(frozen=True, slots=True)
class Entry:
    """One change: `before` and `after` are its values, None where there was or is nothing.

    `receipt` says who and why: actor, roles, lines, policy_digest, request_id and cause (see
    `Cause`).
    """

    id: UUID
    at: datetime
    organization_id: Id | None
    object_type: str
    object_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    receipt: dict[str, Any]


def read_values(stored: Any) -> dict[str, Any] | None:  # noqa: ANN401 - any JSON
    """Read the values before or after a change; None: not an object, so written by hand."""
    return stored if isinstance(stored, dict) else None


def read_receipt(stored: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """Read a receipt, whatever was stored: what is missing, or is of another type, is None.

    One that has no cause was written by hand: its cause is `direct`.
    """
    found = stored if isinstance(stored, dict) else {}
    receipt = {**dict.fromkeys((*TEXTS, *LISTS)), "cause": Cause.DIRECT}
    for name, value in found.items():
        texts = [value] if name in TEXTS else value if name in LISTS else None
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            receipt[name] = value
    return receipt
