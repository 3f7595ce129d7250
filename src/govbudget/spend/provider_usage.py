"""Tokens from a provider's answer, by the extractors of genai-prices (the extra `genai`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Number
from typing import TYPE_CHECKING, Any

from govbudget.prices.names import PricedAs, find_match, find_provider

if TYPE_CHECKING:
    from genai_prices.types import Provider, UsageExtractor

# What the package reports: all of a kind, and of which it counts a part apart.
KINDS = ("audio", "image", "video")
# Parts that have no key and no price of their own, and stay where they are counted.
WITHIN = (
    *("input_text_tokens", "output_text_tokens", "input_tool_tokens"),
    *(f"input_{kind}_tool_tokens" for kind in ("text", *KINDS)),
    *("output_reasoning_tokens", "output_citation_tokens"),
)
# Sums of others, parts at the price of their whole, what is not a count, and what costs nothing.
PASSED_OVER = (
    *("total", "cost", "num_sources", "text_tokens", "cache_write_tokens_details"),
    *("accepted_prediction", "rejected_prediction", "web_fetch_requests"),
    *("prompt_cache_miss_tokens", "queue_time", "prompt_time", "completion_time"),
)
# Said again, of what is read elsewhere.
SAID_AGAIN = {
    "prompt_cache_hit_tokens": "cache_read_tokens",
    "num_cached_tokens": "cache_read_tokens",
}
# What OpenAI, OpenRouter, and Claude on other clouds say, and the package does not read there.
MORE = (
    (("server_tool_use", "web_search_requests"), "web_searches"),
    (("output_tokens_details", "thinking_tokens"), "output_reasoning_tokens"),
    (("prompt_tokens_details", "image_tokens"), "input_image_tokens"),
    (("prompt_tokens_details", "video_tokens"), "input_video_tokens"),
    (("completion_tokens_details", "image_tokens"), "output_image_tokens"),
    (("input_token_details", "audio_tokens"), "input_audio_tokens"),
)
TOTALS = ("total_tokens", "totalTokens", "totalTokenCount")
# Whose totals leave out what is charged apart.
TOTAL_IS_LESS = ("perplexity",)


def read_usage(provider: str, payload: Mapping[str, Any]) -> dict[str, int]:
    """Read the counts of a provider's answer, by the keys of `tokens`.

    A kind of tokens that genai-prices has no rate for, of the answer's model, is counted as what it
    is charged as there. Raises ValueError that names a field which no key can say, or a provider
    that has no extractor; ImportError without the extra `genai`.
    """
    payload = _unwrap(payload)
    found = _find_provider(provider)
    extractor, model_name, usage = _extract(found, payload)
    counts = _find_counts(extractor, payload)
    _refuse_unread(extractor, counts, usage)
    _compare_with_total(found, counts, usage)
    if payload.get("type") == "message_delta" and usage.get("cache_write_tokens"):
        raise ValueError("an event does not say how long its cache writes live; give the message")
    tokens = _split(usage, _list_rates(found, model_name or ""))
    return tokens | {"web_searches": tokens["web_searches"] + _count_searches(payload)}


def guess_provider(response: object, payload: Mapping[str, Any]) -> str:
    """Say whose answer it is, by the SDK that it comes from or by its shape; raise ValueError."""
    sdk = type(response).__module__.partition(".")[0]
    model, usage = str(payload.get("model", "")), payload.get("usage")
    counts: Mapping[str, Any] = usage if isinstance(usage, Mapping) else {}
    if "usageMetadata" in payload:
        return "google"
    if "inputTokens" in counts:
        return "aws"
    if sdk == "anthropic" or payload.get("type") == "message":
        return "anthropic"
    if "prompt_tokens" in counts or payload.get("object") == "response" or sdk == "openai":
        return "x-ai" if model.startswith("grok") else "openai"
    raise ValueError(
        "it is not clear whose answer this is; use Tokens.from_usage(provider, payload)"
    )


def to_payload(response: object) -> Mapping[str, Any]:
    """Give an answer of an SDK as the JSON that its provider sent; raise ValueError."""
    if isinstance(response, Mapping):
        return _unwrap(response)  # type: ignore[no-any-return]
    dump = getattr(response, "model_dump", None)
    if dump is None:
        message = f"a {type(response).__name__} is not an answer that can be read; give its JSON"
        raise ValueError(message)
    return _unwrap(dump(mode="json", by_alias=True))  # type: ignore[no-any-return]


def _unwrap(payload: Any) -> Any:  # noqa: ANN401 - JSON
    """Give the answer that the last event of OpenAI's streams of responses has."""
    inner = payload.get("response") if isinstance(payload, Mapping) else None
    return inner if isinstance(inner, Mapping) and inner.get("object") == "response" else payload


def _find_provider(name: str) -> Provider:
    try:
        from genai_prices.data import providers  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "reading a provider's answer needs a package: `pip install genai-prices`"
        raise ImportError(message) from error
    known = {provider.id: provider for provider in providers if provider.extractors}
    found = known.get(find_provider(name))
    if found is None:
        raise ValueError(f"`{name}` is not a provider whose answers can be read")
    return found


def _extract(
    provider: Provider, payload: Mapping[str, Any]
) -> tuple[UsageExtractor, str | None, dict[str, int]]:
    """Extract the counts by the flavor of the provider's API that reads most of them."""
    best: tuple[UsageExtractor, str | None, dict[str, int]] | None = None
    failure: Exception | None = None
    for extractor in map(_add_mappings, provider.extractors or ()):
        try:
            model, usage = extractor.extract(payload)
        except (ValueError, AttributeError) as error:  # the latter of a kind that is not a text
            failure = failure or error
            continue
        counts = {key: value for key, value in vars(usage).items() if value}
        if broken := [key for key, value in counts.items() if not isinstance(value, int)]:
            raise ValueError(f"`{broken[0]}` is not a whole number: {counts[broken[0]]}")
        if best is None or len(counts) > len(best[2]):
            best = extractor, model, counts
    if best is None:
        raise ValueError(f"no counts are found in the answer: {failure}")
    return best


def _list_rates(provider: Provider, name: str) -> set[str] | None:
    """List the rates of a model, on whatever day; None: the model is not known.

    Known by the rules of the price book: the package's own would take a sibling's.
    """
    from genai_prices.data import providers  # noqa: PLC0415 - an extra

    match = find_match(provider.id, name)
    own = PricedAs(provider.id, name) if match is None else match.priced_as
    models = (model for one in providers if one.id == own.provider for model in one.models)
    model = next((model for model in models if model.id == own.model), None)
    if model is None:
        return None
    entries = model.prices if isinstance(model.prices, list) else [model]
    prices = [entry.prices for entry in entries]
    return {rate for one in prices for rate, value in vars(one).items() if value is not None}


def _split(usage: dict[str, int], rates: set[str] | None) -> dict[str, int]:
    """Give each token to one key: the package counts every kind among the whole."""
    left = {key: count for key, count in usage.items() if key not in WITHIN}
    inputs, outputs = _split_kinds(left, rates)
    read = left.pop("cache_read_tokens", 0)
    for_an_hour = left.pop("cache_write_1h_tokens", 0)
    written = left.pop("cache_write_tokens", 0)
    if left.pop("cache_write_5m_tokens", 0) > written - for_an_hour:
        raise ValueError(f"the parts of the answer are more than its whole, {written} cache writes")
    inputs["cache_read"] = read - sum(
        count for key, count in inputs.items() if key.startswith("cache_read")
    )
    inputs["cache_write_1h"] = for_an_hour
    if _is_apart("cache_write", rates):
        inputs["cache_write"] = written - for_an_hour
    tokens = {
        "input": left.pop("input_tokens", 0) - sum(inputs.values()),
        "output": left.pop("output_tokens", 0) - sum(outputs.values()),
        "web_searches": left.pop("web_searches", 0),
        **inputs,
        **outputs,
    }
    if left:
        raise ValueError(f"no key of `tokens` counts {', '.join(f'`{key}`' for key in left)}")
    for key, count in tokens.items():
        if count < 0:
            raise ValueError(f"the parts of the answer are more than its whole: `{key}` is {count}")
    return tokens


def _split_kinds(
    left: dict[str, int], rates: set[str] | None
) -> tuple[dict[str, int], dict[str, int]]:
    """Take the kinds of tokens that are charged apart, of the input and of the output."""
    inputs, outputs = {}, {}
    cached_kinds = sum(left.get(f"cache_{kind}_read_tokens", 0) for kind in ("text", *KINDS))
    says_all = left.get("cache_read_tokens", 0) == cached_kinds
    left.pop("cache_text_read_tokens", None)
    for kind in KINDS:
        cached = left.pop(f"cache_{kind}_read_tokens", None)
        among_input = left.pop(f"input_{kind}_tokens", 0)
        if among_input and _is_apart(f"input_{kind}", rates):
            if cached is None and not says_all:
                raise ValueError(f"the answer does not say how many `{kind}` tokens were cached")
            inputs[f"input_{kind}"] = among_input - (cached or 0)
        if cached and _is_apart(f"cache_{kind}_read", rates):
            inputs[f"cache_read_{kind}"] = cached
        if _is_apart(f"output_{kind}", rates):
            outputs[f"output_{kind}"] = left.pop(f"output_{kind}_tokens", 0)
        left.pop(f"output_{kind}_tokens", None)
    return inputs, outputs


def _is_apart(rate: str, rates: set[str] | None) -> bool:
    return rates is None or f"{rate}_mtok" in rates


def _add_mappings(extractor: UsageExtractor) -> UsageExtractor:
    """Give an extractor that reads what the package leaves out, too."""
    from genai_prices.types import UsageExtractorMapping  # noqa: PLC0415 - an extra

    known = [mapping.path for mapping in extractor.mappings]
    more = [
        UsageExtractorMapping(path=list(path), dest=dest, required=False)
        for path, dest in MORE
        if list(path) not in known
    ]
    return replace(extractor, mappings=[*extractor.mappings, *more])


def _find_counts(extractor: UsageExtractor, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the object of an answer that the paths of the extractor start at."""
    counts: Any = payload
    for step in [extractor.root] if isinstance(extractor.root, str) else extractor.root:
        counts = counts[step]
    return counts  # type: ignore[no-any-return]


def _refuse_unread(
    extractor: UsageExtractor, counts: Mapping[str, Any], usage: Mapping[str, int]
) -> None:
    """Raise ValueError that names a count which the extractor did not read, or not as a count."""
    read = {_find_field(mapping.path, counts) for mapping in extractor.mappings}
    for path, item, value in _list_numbers(counts, ()):
        is_again = path[-1] in SAID_AGAIN and usage.get(SAID_AGAIN[path[-1]]) == value
        if is_again or any(word in name for word in PASSED_OVER for name in path):
            continue
        if (id(item), path[-1]) not in read:
            raise ValueError(f"no key of `tokens` counts `{'.'.join(path)}`")
        if type(value) is not int:
            raise ValueError(f"`{'.'.join(path)}` is not a whole number: {value!r}")


def _list_numbers(
    value: Any,  # noqa: ANN401 - JSON
    path: tuple[str, ...],
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any], object]]:
    """Give each number that is not 0, also one in a text: its path, its object, and the number.

    What Anthropic says of a single turn is in the whole already.
    """
    if isinstance(value, list):
        for item in value:
            yield from _list_numbers(item, path)
    elif isinstance(value, Mapping) and not (
        path == ("iterations",) and value.get("type") == "message"
    ):
        for key, inner in value.items():
            if isinstance(inner, Mapping | list):
                yield from _list_numbers(inner, (*path, key))
            elif _is_number(inner):
                yield (*path, key), value, inner


def _is_number(value: Any) -> bool:  # noqa: ANN401 - JSON
    if isinstance(value, str):
        return value.strip("-").isdecimal() and value.strip("-0") != ""
    return bool(value) and value is not True and isinstance(value, Number)


def _find_field(steps: Any, value: Any) -> tuple[int, str] | None:  # noqa: ANN401 - as the package has it
    """Find the object that the path of a mapping leads to, by its id, and the name of its field."""
    *names, last = [steps] if isinstance(steps, str) else steps
    for name in names:
        if isinstance(name, str):
            value = value.get(name) if isinstance(value, Mapping) else None
        else:
            value = name.extract(value) if isinstance(value, list) else None
    return id(value), last


def _compare_with_total(
    provider: Provider, counts: Mapping[str, Any], usage: dict[str, int]
) -> None:
    """Count reasoning once, as the total says; raise ValueError where the total says more.

    Some count it in the output and some beside it, and a proxy may change that.
    """
    total = next((counts[key] for key in TOTALS if type(counts.get(key)) is int), 0)
    beyond = total - usage.get("input_tokens", 0) - usage.get("output_tokens", 0)
    if total == 0 or (beyond < 0 and provider.id in TOTAL_IS_LESS):
        return
    if abs(beyond) == usage.get("output_reasoning_tokens", 0):
        usage["output_tokens"] = usage.get("output_tokens", 0) + beyond
    elif beyond > 0:
        raise ValueError(f"the total of the answer is {total}, and its parts are {total - beyond}")


def _count_searches(payload: Mapping[str, Any]) -> int:
    """Count the searches of OpenAI's tool, which are beside the usage; refuse other tools' tokens.

    Only a search is charged, not the opening of a page. Raises ValueError that names the tokens
    of another model that a tool has used.
    """
    tools = {name: payload.get(name) for name in ("tool_usage", "svg_usage")}
    searches: int | None = None
    for path, _item, value in _list_numbers(tools, ()):
        if path != ("tool_usage", "web_search", "num_requests") or not isinstance(value, int):
            raise ValueError(f"no key of `tokens` counts `{'.'.join(path)}`, of another model")
        searches = value
    if tools["tool_usage"] is not None:
        return searches or 0
    output = payload.get("output")
    calls = [item for item in output if isinstance(item, Mapping)] if type(output) is list else []
    actions = (item.get("action") for item in calls if item.get("type") == "web_search_call")
    return sum((action or {}).get("type", "search") == "search" for action in actions)
