"""Tokens by category, as a checked value."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from govbudget.db.tables import MAX_TOKENS

Count = Annotated[int, Field(ge=0, le=MAX_TOKENS)]


class Tokens(BaseModel):
    """How many tokens a call takes, by category: 0 to 10^12 each; what is left out is 0."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    input: Count = 0
    output: Count = 0
    cache_read: Count = 0
    cache_write: Count = 0

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """The counts in the order of a price's columns."""
        return self.input, self.output, self.cache_read, self.cache_write

    def __add__(self, more: Self) -> Self:
        """Give the sums by category; raise ValueError where one leaves the bounds."""
        sums = (a + b for a, b in zip(self.counts, more.counts, strict=True))
        return type(self)(**dict(zip(type(self).model_fields, sums, strict=True)))
