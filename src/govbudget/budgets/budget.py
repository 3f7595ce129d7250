"""The budget of a group, as a value, and the preconditions of a change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from govbudget.identity import Id


class LimitSource(StrEnum):
    """What set a member's limit."""

    GROUP = "group"
    OVERRIDE = "user_override"


@dataclass(frozen=True, slots=True)
class Budget:
    """What each member of a group may spend in a period, in micros (1 USD = 1,000,000 micros)."""

    group_id: Id
    spend_limit_micros: int
    created_at: datetime
    updated_at: datetime
    revision: UUID

    @property
    def etag(self) -> str:
        """The strong entity tag, without quotes: new with every change, re-creation included."""
        return self.revision.hex


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of the stored budget for a change to be made (RFC 9110, 13.1).

    `must_exist` is `If-Match: *`; `must_be` the revisions of an `If-Match`; `must_not_exist` is
    `If-None-Match: *`; `must_not_be` the revisions of an `If-None-Match`.
    """

    must_exist: bool = False
    must_be: tuple[UUID, ...] | None = None
    must_not_exist: bool = False
    must_not_be: tuple[UUID, ...] = ()


UNCONDITIONAL = Condition()
