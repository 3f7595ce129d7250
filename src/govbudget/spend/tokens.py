"""Tokens by category, as a checked value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from govbudget.money import FURTHER, MAX_TOKENS, UNITS

Count = Annotated[int, Field(ge=0, le=MAX_TOKENS)]


class Tokens(BaseModel):
    """How many tokens a call takes, by category: 0 to 10^12 each; what is left out is 0.

    No token is counted under two keys. `input` holds no cached tokens and none of audio, image or
    video, and `output` holds those of reasoning. A chat answer of OpenAI with `prompt_tokens`
    62,394, of which `cached_tokens` 60,024, and `completion_tokens` 214 is
    `{"input": 2370, "cache_read": 60024, "output": 214}`. So is an answer of Anthropic with
    `input_tokens` 2,370, `cache_read_input_tokens` 60,024 and `output_tokens` 214.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"input": 2370, "cache_read": 60024, "output": 214}]},
    )

    input: Count = Field(
        default=0,
        description="plain tokens of the prompt, without cached ones and those of audio, image or"
        " video. OpenAI: `prompt_tokens` minus `prompt_tokens_details.cached_tokens`. Anthropic:"
        " `input_tokens`",
    )
    output: Count = Field(
        default=0,
        description="plain tokens of the answer, with those of reasoning. OpenAI:"
        " `completion_tokens`. Anthropic: `output_tokens`",
    )
    cache_read: Count = Field(
        default=0,
        description="tokens of the prompt that were read from the provider's cache. OpenAI:"
        " `prompt_tokens_details.cached_tokens`. Anthropic: `cache_read_input_tokens`",
    )
    cache_write: Count = Field(
        default=0,
        description="tokens of the prompt that were written to the provider's cache, for five"
        " minutes where there is a choice. OpenAI: 0. Anthropic: `cache_creation_input_tokens`,"
        " less those of an hour",
    )
    cache_write_1h: Count = Field(
        default=0,
        description="tokens of the prompt that were written to it for an hour. Anthropic:"
        " `cache_creation.ephemeral_1h_input_tokens`",
    )
    input_audio: Count = Field(default=0, description="audio of the prompt, without cached")
    cache_read_audio: Count = Field(default=0, description="cached audio of the prompt")
    output_audio: Count = Field(default=0, description="audio of the answer")
    input_image: Count = Field(default=0, description="images of the prompt, without cached")
    cache_read_image: Count = Field(default=0, description="cached images of the prompt")
    output_image: Count = Field(default=0, description="images of the answer")
    input_video: Count = Field(default=0, description="video of the prompt")
    output_video: Count = Field(default=0, description="video of the answer")
    web_searches: Count = Field(
        default=0, description="calls of the provider's web search, which are not tokens"
    )

    @classmethod
    def from_response(cls, response: object) -> Self:
        """Read what a provider's answer took: an object of its SDK, or its JSON.

        Knows OpenAI's chat and responses, Anthropic, Gemini, Bedrock's converse and xAI. Needs the
        extra `genai`. Raises ValueError that names what can't be read; see `from_usage`.
        """
        from govbudget.spend import provider_usage  # noqa: PLC0415 - an extra

        payload = provider_usage.to_payload(response)
        return cls.from_usage(provider_usage.guess_provider(response, payload), payload)

    @classmethod
    def from_usage(cls, provider: str, payload: Mapping[str, Any]) -> Self:
        """Read what the answer of a provider took: the whole JSON of it, as it was sent.

        `provider` is an id of the price book or an alias. Each token is counted under one key,
        however the provider counts. A kind of tokens that genai-prices has no rate for, of the
        answer's model, is counted as what it is charged as. Needs the extra `genai`. Raises
        ValueError that names a field which no key can say.
        """
        from govbudget.spend import provider_usage  # noqa: PLC0415 - an extra

        return cls(**provider_usage.read_usage(provider, payload))

    @property
    def counts(self) -> tuple[int, ...]:
        """All counts, in the order of the keys."""
        return tuple(self.__dict__.values())

    @property
    def plain(self) -> tuple[int, ...]:
        """The counts in the order of a price's columns."""
        return tuple(getattr(self, unit) for unit in UNITS)

    @property
    def further(self) -> dict[str, int]:
        """The counts of further units that are not 0, by their names."""
        return {unit: count for unit in FURTHER if (count := getattr(self, unit))}

    def __add__(self, more: Self) -> Self:
        """Give the sums by category; raise ValueError where one leaves the bounds."""
        sums = (a + b for a, b in zip(self.counts, more.counts, strict=True))
        return type(self)(**dict(zip(type(self).model_fields, sums, strict=True)))
