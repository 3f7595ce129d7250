"""Ids and times as JSON has them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from govbudget.identity import Id


def write_id(value: Id) -> int | str:
    """Write an id as JSON has it."""
    return value if isinstance(value, int) else str(value)


def write_time(time: datetime) -> str:
    """Write a time as RFC 3339 has it, in UTC."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
