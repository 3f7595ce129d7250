"""Tokens by category, as a checked value."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from govbudget.money import MAX_TOKENS

Count = Annotated[int, Field(ge=0, le=MAX_TOKENS)]


class Tokens(BaseModel):
    """How many tokens a call takes, by category: 0 to 10^12 each; what is left out is 0.

    No token is counted under two keys. `input` holds no cached tokens, and `output` holds those of
    reasoning. A chat answer of OpenAI with `prompt_tokens` 62,394, of which `cached_tokens` 60,024,
    and `completion_tokens` 214 is `{"input": 2370, "cache_read": 60024, "output": 214}`. So is an
    answer of Anthropic with `input_tokens` 2,370, `cache_read_input_tokens` 60,024 and
    `output_tokens` 214.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"input": 2370, "cache_read": 60024, "output": 214}]},
    )

    input: Count = Field(
        default=0,
        description="tokens of the prompt, without cached ones. OpenAI: `prompt_tokens` minus"
        " `prompt_tokens_details.cached_tokens`. Anthropic: `input_tokens`",
    )
    output: Count = Field(
        default=0,
        description="tokens of the answer, with those of reasoning. OpenAI: `completion_tokens`."
        " Anthropic: `output_tokens`",
    )
    cache_read: Count = Field(
        default=0,
        description="tokens of the prompt that were read from the provider's cache. OpenAI:"
        " `prompt_tokens_details.cached_tokens`. Anthropic: `cache_read_input_tokens`",
    )
    cache_write: Count = Field(
        default=0,
        description="tokens of the prompt that were written to the provider's cache. OpenAI: 0."
        " Anthropic: `cache_creation_input_tokens`",
    )

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """The counts in the order of a price's columns."""
        return self.input, self.output, self.cache_read, self.cache_write

    def __add__(self, more: Self) -> Self:
        """Give the sums by category; raise ValueError where one leaves the bounds."""
        sums = (a + b for a, b in zip(self.counts, more.counts, strict=True))
        return type(self)(**dict(zip(type(self).model_fields, sums, strict=True)))
