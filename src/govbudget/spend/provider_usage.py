"""Tokens from a provider's answer, by the extractors of genai-prices (the extra `genai`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider, UsageExtractor

# What the package reports: all of a kind, and of which it counts a part apart.
KINDS = ("audio", "image", "video")
# Parts that have no key and no price of their own, and stay where they are counted.
WITHIN = (
    *("input_text_tokens", "output_text_tokens", "cache_text_read_tokens", "input_tool_tokens"),
    *(f"input_{kind}_tool_tokens" for kind in ("text", *KINDS)),
    *("output_reasoning_tokens", "output_citation_tokens", "cache_write_5m_tokens"),
)
# Sums of others, parts at the price of their whole, and what is not a count.
PASSED_OVER = (
    *("total", "cost", "num_sources", "text_tokens"),
    *("accepted_prediction", "rejected_prediction"),
)


def read_usage(provider: str, payload: Mapping[str, Any]) -> dict[str, int]:
    """Read the counts of a provider's answer, by the keys of `tokens`.

    A kind of tokens that genai-prices has no rate for, of the answer's model, is counted as what it
    is charged as there. Raises ValueError that names a field which no key can say, or a provider
    that has no extractor; ImportError without the extra `genai`.
    """
    found = _find_provider(provider)
    extractor, model_name, usage = _extract(found, payload)
    _refuse_unread(extractor, payload)
    model = found.find_model(model_name) if model_name else None
    return _split(usage, _list_rates(model))


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
        return response
    dump = getattr(response, "model_dump", None)
    if dump is None:
        message = f"a {type(response).__name__} is not an answer that can be read; give its JSON"
        raise ValueError(message)
    return dump(mode="json", by_alias=True)  # type: ignore[no-any-return]


def _find_provider(name: str) -> Provider:
    try:
        from genai_prices.data import providers  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "reading a provider's answer needs a package: `pip install genai-prices`"
        raise ImportError(message) from error
    from govbudget.prices.names import find_provider  # noqa: PLC0415 - with the extra

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
    failure: ValueError | None = None
    for extractor in provider.extractors or ():
        try:
            model, usage = extractor.extract(payload)
        except ValueError as error:
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


def _list_rates(model: ModelInfo | None) -> set[str] | None:
    """List the rates of a model, on whatever day; None: the model is not known."""
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
    for kind in KINDS:
        cached = left.pop(f"cache_{kind}_read_tokens", None)
        among_input = left.pop(f"input_{kind}_tokens", 0)
        if among_input and _is_apart(f"input_{kind}", rates):
            if cached is None and left.get("cache_read_tokens"):
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


def _refuse_unread(extractor: UsageExtractor, payload: Mapping[str, Any]) -> None:
    """Raise ValueError that names a count of the answer which the extractor does not read."""
    roots = [extractor.root] if isinstance(extractor.root, str) else list(extractor.root)
    usage: Any = payload
    for step in roots:
        usage = usage[step]
    for path, field, item in _list_counts(usage, ()):
        if any(word in field for word in PASSED_OVER):
            continue
        if not any(_reads(mapping.path, path, field, item) for mapping in extractor.mappings):
            raise ValueError(f"no key of `tokens` counts `{'.'.join((*path, field))}`")


def _list_counts(
    value: Any,  # noqa: ANN401 - JSON
    path: tuple[str, ...],
) -> Iterator[tuple[tuple[str, ...], str, Mapping[str, Any]]]:
    """Give each whole number above 0: the path to its object, its name, and the object."""
    if isinstance(value, list):
        for item in value:
            yield from _list_counts(item, path)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, int) and not isinstance(inner, bool) and inner > 0:
                yield path, key, value
            else:
                yield from _list_counts(inner, (*path, key))


def _reads(steps: Any, path: tuple[str, ...], field: str, item: Mapping[str, Any]) -> bool:  # noqa: ANN401 - as the package has it
    """Say whether the path of a mapping leads to a field of an object."""
    names = [steps] if isinstance(steps, str) else list(steps)
    last = names.pop()
    plain = tuple(name for name in names if isinstance(name, str))
    matches = [one for one in names if not isinstance(one, str)]
    fits = all(one.match.is_match(str(item.get(one.field))) for one in matches)
    return last == field and plain == path and fits
