"""What a provider's answer took, read from its real shape: each token under one key."""

from __future__ import annotations

from functools import cache

import pytest
from tests.spend.costs import INPUT

from govbudget import Tokens
from govbudget.prices.names import find_match
from govbudget.prices.price import parse_prices, read_shipped_prices

pytest.importorskip("genai_prices")

CHAT = {
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "usage": {
        "prompt_tokens": 62_394,
        "completion_tokens": 214,
        "total_tokens": 62_608,
        "prompt_tokens_details": {"cached_tokens": 60_024, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 128,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 3,
            "rejected_prediction_tokens": 1,
        },
    },
}
RESPONSES = {
    "object": "response",
    "model": "gpt-5.4",
    "usage": {
        "input_tokens": 300_000,
        "input_tokens_details": {"cached_tokens": 1_000},
        "output_tokens": 5_000,
        "output_tokens_details": {"reasoning_tokens": 4_000},
        "total_tokens": 305_000,
    },
}
MESSAGE = {
    "type": "message",
    "model": "claude-sonnet-4-5-20250929",
    "usage": {
        "input_tokens": 3,
        "cache_creation_input_tokens": 112_304,
        "cache_read_input_tokens": 7,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 304,
            "ephemeral_1h_input_tokens": 112_000,
        },
        "output_tokens": 550,
        "service_tier": "standard",
        "server_tool_use": {"web_search_requests": 2},
    },
}
GEMINI = {
    "modelVersion": "gemini-2.5-flash",
    "usageMetadata": {
        "promptTokenCount": 1_000,
        "candidatesTokenCount": 50,
        "thoughtsTokenCount": 200,
        "cachedContentTokenCount": 400,
        "totalTokenCount": 1_250,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 700},
            {"modality": "AUDIO", "tokenCount": 200},
            {"modality": "IMAGE", "tokenCount": 100},
        ],
        "cacheTokensDetails": [
            {"modality": "TEXT", "tokenCount": 350},
            {"modality": "AUDIO", "tokenCount": 50},
        ],
    },
}
CONVERSE = {
    "output": {"message": {"role": "assistant", "content": []}},
    "stopReason": "end_turn",
    "usage": {
        "inputTokens": 5,
        "outputTokens": 9,
        "totalTokens": 144,
        "cacheReadInputTokens": 100,
        "cacheWriteInputTokens": 30,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 10}, {"ttl": "5m", "inputTokens": 20}],
    },
    "metrics": {"latencyMs": 912},
}
GROK = {
    "object": "chat.completion",
    "model": "grok-4.5",
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 9,
        "total_tokens": 159,
        "prompt_tokens_details": {"text_tokens": 100, "audio_tokens": 0, "cached_tokens": 60},
        "completion_tokens_details": {"reasoning_tokens": 50, "audio_tokens": 0},
        "num_sources_used": 3,
    },
}

AUDIO = {"modality": "AUDIO", "tokenCount": 100}


def change(payload, **counts):
    """Give an answer with other counts."""
    key = "usage" if "usage" in payload else "usageMetadata"
    return payload | {key: payload[key] | counts}


@cache
def read_prices():
    """The last row of each name."""
    return {price.key[:2]: price for price in parse_prices(read_shipped_prices())}


def cost_at(provider, model, tokens):
    counts = {unit: count for unit, count in tokens.model_dump().items() if count}
    match = find_match(provider, model)
    price = read_prices()[match.priced_as if match else (provider, model)]
    rates = price.find_rates(sum(counts.get(unit, 0) for unit in INPUT) - 1)
    return sum(count * rates[unit] for unit, count in counts.items())


@pytest.mark.parametrize(
    ("provider", "payload", "tokens", "model", "picos"),
    [
        (
            *("openai", CHAT, Tokens(input=2_370, cache_read=60_024, output=214), "gpt-4o"),
            2_370 * 2_500_000 + 60_024 * 1_250_000 + 214 * 10_000_000,
        ),
        (
            *("openai", RESPONSES, Tokens(input=299_000, cache_read=1_000, output=5_000)),
            *("gpt-5.4", 299_000 * 5_000_000 + 1_000 * 500_000 + 5_000 * 22_500_000),
        ),
        (
            *("anthropic", MESSAGE),
            Tokens(
                input=3,
                output=550,
                cache_read=7,
                cache_write=304,
                cache_write_1h=112_000,
                web_searches=2,
            ),
            "claude-sonnet-4-5-20250929",
            3 * 3_000_000
            + 550 * 15_000_000
            + 7 * 300_000
            + 304 * 3_750_000
            + 112_000 * 6_000_000
            + 2 * 10**10,
        ),
        (
            *("google", GEMINI),
            Tokens(input=450, cache_read=350, output=250, input_audio=150, cache_read_audio=50),
            "gemini-2.5-flash",
            450 * 300_000 + 350 * 30_000 + 250 * 2_500_000 + 150 * 1_000_000 + 50 * 100_000,
        ),
        (
            *("aws", CONVERSE),
            Tokens(input=5, output=9, cache_read=100, cache_write=20, cache_write_1h=10),
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            5 * 3_300_000 + 9 * 16_500_000 + 100 * 330_000 + 20 * 4_125_000 + 10 * 6_600_000,
        ),
        (
            *("x-ai", GROK, Tokens(input=40, cache_read=60, output=59), "grok-4.5"),
            40 * 2_000_000 + 60 * 300_000 + 59 * 6_000_000,
        ),
    ],
    ids=["chat", "responses", "message", "gemini", "converse", "grok"],
)
def test_an_answer_is_read_and_costs_what_its_provider_charges(
    provider, payload, tokens, model, picos
):
    """By name of the provider, and by its shape."""
    assert Tokens.from_usage(provider, payload) == tokens
    assert Tokens.from_response(payload) == tokens
    assert cost_at(provider, model, tokens) == picos


@pytest.mark.parametrize("cloud", ["aws", "azure", "google"])
def test_an_answer_of_claude_is_read_on_every_cloud_as_from_its_maker(cloud):
    payload = change(MESSAGE, output_tokens_details={"thinking_tokens": 100})
    assert Tokens.from_usage(cloud, payload) == Tokens.from_response(MESSAGE)


def test_images_of_the_answer_are_a_kind_of_their_own_where_the_model_has_a_rate():
    """Or where the model is not known: a sibling's rates are not its own."""
    counts = {"promptTokenCount": 300, "candidatesTokenCount": 1_290}
    details = [{"modality": "IMAGE", "tokenCount": 1_290}]
    usage = {**counts, "candidatesTokensDetails": details}
    image, text, unknown = (
        Tokens.from_usage("gemini", {"modelVersion": model, "usageMetadata": usage})
        for model in ("gemini-2.5-flash-image", "gemini-2.5-pro", "gemini-2.5-pro-image")
    )
    assert image == unknown == Tokens(input=300, output_image=1_290)
    assert text == Tokens(input=300, output=1_290)


@pytest.mark.parametrize(
    ("provider", "payload", "named"),
    [
        ("openai", {"model": "whisper-1", "usage": {"type": "duration", "seconds": 9}}, "seconds"),
        (
            "openai",
            {"usage": {"prompt_tokens": 5, "completion_tokens": 1, "video_tokens": 4}},
            "video_tokens",
        ),
        (
            "openai",
            {
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 1,
                    "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 3},
                }
            },
            "audio",
        ),
        ("openai", {"usage": {"prompt_tokens": 5, "completion_tokens": 1.5}}, "output_tokens"),
        ("openai", {"usage": None}, "usage"),
        ("openai", {}, "usage"),
        (
            "openai",
            {
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 1,
                    "prompt_tokens_details": {"cached_tokens": 9},
                }
            },
            "input",
        ),
        ("nobody", CHAT, "nobody"),
        ("anthropic", change(MESSAGE, foo_tokens=1.0), "foo_tokens"),
        ("anthropic", change(MESSAGE, foo_tokens=True, bar_tokens="1"), "bar_tokens"),
        ("anthropic", change(MESSAGE, cache_read_input_tokens="7"), "cache_read_input_tokens"),
        ("anthropic", change(MESSAGE, cache_creation_input_tokens=112_000), "more than its whole"),
        (
            "anthropic",
            change(MESSAGE, iterations=[{"type": "compaction", "output_tokens": 5}]),
            "iterations.output_tokens",
        ),
        ("anthropic", {"type": "message_delta", "usage": MESSAGE["usage"]}, "give the message"),
        (
            "aws",
            change(CONVERSE, cacheDetails=[{"ttl": "1h", "inputTokens": n} for n in (5, 9)]),
            "cacheDetails",
        ),
        ("google", change(GEMINI, promptTokensDetails=[AUDIO, dict(AUDIO)]), "promptTokensDetails"),
        ("google", change(GEMINI, totalTokenCount=1_300), "1300.* 1250"),
        ("google", change(GEMINI, cacheTokensDetails=[AUDIO | {"modality": "TEXT"}]), "audio"),
        (
            "openai",
            RESPONSES | {"tool_usage": {"image_gen": {"output_tokens": 1_056}}},
            "image_gen",
        ),
        ("openai", RESPONSES | {"svg_usage": {"output_tokens": 6}}, "svg_usage"),
    ],
    ids=range(20),
)
def test_what_cannot_be_read_is_named(provider, payload, named):
    with pytest.raises(ValueError, match=named):
        Tokens.from_usage(provider, payload)


@pytest.mark.parametrize(
    ("payload", "more", "tokens"),
    [
        (
            MESSAGE,
            {"server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 3}},
            {},
        ),
        (MESSAGE, {"iterations": [MESSAGE["usage"] | {"type": "message"}] * 2}, {}),
        (
            GEMINI,
            {"cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 400}]},
            {"input": 400, "cache_read": 400, "input_audio": 200, "cache_read_audio": 0},
        ),
        (CHAT, {"prompt_tokens_details": {"cached_tokens": 60_024, "image_tokens": 2_000}}, {}),
        (
            RESPONSES,
            {
                "input_tokens_details": {
                    "cached_tokens": 1_000,
                    "cache_write_tokens": 30,
                    "cache_write_tokens_details": {"ttl_30m_tokens": 10, "ttl_12h_tokens": 20},
                }
            },
            {},
        ),
        (CHAT, {"prompt_cache_hit_tokens": 60_024, "prompt_cache_miss_tokens": 2_370}, {}),
        (CHAT, {"queue_time": 0.018, "cost": 0.00095}, {}),
        # Among the output, as by proxies, and beside it.
        (
            GROK,
            {"total_tokens": 109, "completion_tokens_details": {"reasoning_tokens": 5}},
            {"output": 9},
        ),
        (CHAT, {"total_tokens": 62_736}, {"output": 342}),
    ],
    ids=["fetch", "turns", "cached", "image", "written", "again", "times", "among", "beside"],
)
def test_what_the_same_answer_says_besides_is_counted_once(payload, more, tokens):
    """What is a part of a whole, or costs nothing, changes no count."""
    expected = Tokens.from_response(payload).model_dump() | tokens
    assert Tokens.from_response(change(payload, **more)).model_dump() == expected


def test_an_image_of_a_chat_is_a_kind_of_its_own_where_the_model_has_a_rate():
    usage = {"prompt_tokens": 300, "completion_tokens": 1_300}
    usage["completion_tokens_details"] = {"image_tokens": 1_290}
    of_image, of_text = (
        Tokens.from_usage("google", {"model": model, "usage": usage})
        for model in ("gemini-2.5-flash-image", "gemini-2.5-pro")
    )
    assert of_image == Tokens(input=300, output=10, output_image=1_290)
    assert of_text == Tokens(input=300, output=1_300)


def test_audio_that_was_written_down_is_a_kind_of_its_own():
    details = {"text_tokens": 4, "audio_tokens": 10}
    usage = {"input_tokens": 14, "input_token_details": details, "output_tokens": 45}
    tokens = Tokens.from_usage("openai", {"model": "gpt-4o-transcribe", "usage": usage})
    assert tokens == Tokens(input=4, input_audio=10, output=45)


def test_searches_of_openai_are_counted_as_they_are_charged():
    """The tool's own figure goes first; an opened page is not a search."""
    kinds = (
        {"type": "search", "query": "x"},
        {"type": "open_page"},
        {"type": "find_in_page"},
        None,
    )
    calls = [{"type": "web_search_call", "action": action} for action in kinds]
    answer = RESPONSES | {"output": [*calls, {"type": "message", "content": []}]}
    assert Tokens.from_response(answer).web_searches == 2
    assert Tokens.from_response(answer | {"tool_usage": None}).web_searches == 2
    event = {"type": "response.completed", "response": answer}
    assert Tokens.from_response(event) == Tokens.from_usage("openai", event)
    assert Tokens.from_response(event) == Tokens.from_response(answer)
    for figure in (0, 1):
        told = {"web_search": {"num_requests": figure}, "image_gen": {"output_tokens": 0}}
        assert Tokens.from_response(answer | {"tool_usage": told}).web_searches == figure


def test_an_answer_of_nobody_knows_whom_asks_for_the_provider():
    with pytest.raises(ValueError, match="from_usage"):
        Tokens.from_response({"usage": {"input_tokens": 1, "output_tokens": 1}})
    with pytest.raises(ValueError, match="its JSON"):
        Tokens.from_response(object())
