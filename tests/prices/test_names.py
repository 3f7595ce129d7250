"""Which model a name means: by rules made from the book's source, and a wrong one never."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from govbudget.prices import names
from govbudget.prices.names import find_match

ROWS = json.loads(Path(names.__file__).with_name("seed.json").read_text())
BOOK = {(row["provider"], row["model"]) for row in ROWS}
SONNET = "claude-sonnet-4-5"
ON_AWS = ("aws", "regional.anthropic.claude-sonnet-4-5-20250929-v1:0")


@pytest.mark.parametrize(
    ("provider", "model", "meant"),
    [
        ("openai", "gpt-4o-2024-08-06", ("openai", "gpt-4o")),
        ("openai", "GPT-4o", ("openai", "gpt-4o")),
        ("openai", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("openai", "gpt-4o-2024-08-06@batch", ("openai", "gpt-4o@batch")),
        ("openai", "gpt-4o-mini-audio-preview-2024-12-17", ("openai", "gpt-4o-mini-audio-preview")),
        ("openai", "ft:gpt-4o-2024-08-06:acme:Mine:AbC1", ("openai", "ft:gpt-4o")),
        ("openai", "ft:gpt-4o-mini-2024-07-18:a::x@batch", ("openai", "ft:gpt-4o-mini@batch")),
        ("anthropic", f"{SONNET}-20250929", ("anthropic", SONNET)),
        ("anthropic", "us.anthropic.claude-v2", ("anthropic", "claude-2")),
        ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", ON_AWS),
        ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", ON_AWS),
        ("google", "models/gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        ("vertex_ai", "gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        ("xai", "grok-4.5", ("x-ai", "grok-4.5")),
        ("azure", "gpt-4o", ("openai", "gpt-4o")),
        ("azure", f"{SONNET}-20250929", ("anthropic", SONNET)),
    ],
)
def test_a_name_of_a_provider_means_the_model_that_it_is(provider, model, meant):
    """Dated, with a version, in a region, with a prefix, of another tool, or on another cloud."""
    assert find_match(provider, model).priced_as == meant


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("google", "gemini-3.8-flash-cyber"),
        ("google", "gemini-2.5-pro-tts-x"),
        ("anthropic", f"{SONNET}-turbo"),
        ("anthropic", f"my-{SONNET}"),
        ("anthropic", f"us.{SONNET}-20250929"),
        ("anthropic", f"{SONNET}-20259929x"),
        ("aws", "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("aws", "eu.amazon.nova-pro-v1:0"),
        ("aws", "us-west-2/anthropic.claude-v1"),
        ("azure", "eu/gpt-4o-2024-08-06"),
        ("openai", "gpt-4o@fast"),
        ("openai", "gpt-4o:free"),
        ("openai", "gpt-4o:2024-08-06:acme"),
        ("openai", "ft:gpt-4.1-2025-04-14:acme::x"),
        ("openai", "ft:gpt-3.5-turbo-instruct:acme::x"),
        ("openai", "gpt-4o@batch@batch"),
        ("openai", "gpt-4"[:3]),
        ("openai", ""),
        ("openai", "\0"),
        ("my-openai", "gpt-4o"),
        ("openai.com", "gpt-4o"),
        ("", "gpt-4o"),
        ("openrouter", "meta-llama/llama-3.1-8b-instruct:free"),
    ],
)
def test_a_name_that_may_be_anothers_means_none(provider, model):
    """A sibling, another region, part of a provider's name, or a model that nobody priced."""
    assert find_match(provider, model) is None


def test_every_name_that_a_rule_gives_is_a_row_of_the_book():
    rules = names._read_rules()
    for provider, of_provider in rules["models"].items():
        meant = [*of_provider["equals"].values(), *(part[0] for part in of_provider["parts"])]
        assert {(provider, model) for model in meant if model} <= BOOK
        for model, variants in rules["variants"][provider].items():
            assert {(provider, model + variant) for variant in variants} <= BOOK


def test_a_rows_own_name_means_no_other_row():
    """In any case of letters. The exact row goes first, and the rules say nothing else."""
    assert find_match("openai", "gpt-4o") is None
    found = {(*key, find_match(*key)) for key in BOOK}
    others = {(p, m, said.priced_as) for p, m, said in found if said is not None}
    assert {(p, m, as_) for p, m, as_ in others if as_.model.lower() != m.lower()} == {
        ("perplexity", "perplexity/sonar", ("perplexity", "sonar"))  # its exact row goes first
    }


def test_the_rule_is_said():
    assert find_match("anthropic", f"{SONNET}-20250929").rule == (
        f"`{SONNET}` starts it, and the rest is a date, a version or a region"
    )


def test_names_from_strangers_are_looked_up_quickly():
    """No rule takes time that grows faster than the name."""
    for part in ("0", "000", "0101", "v1:1", "00v1:0", "-0101"):
        for length in (72, 256):  # at 72 the time was seen to double with each further piece
            began = time.thread_time()
            assert find_match("openai", ("gpt-4o" + part * length)[: length - 1] + "!") is None
            assert time.thread_time() - began < 0.05
    for name in (
        "a" * 256,
        "-20" * 85,
        "us." * 85,
        "claude-sonnet-4-5" + "-20250929" * 26,
        "@" * 256,
    ):
        find_match("anthropic", name)
        find_match("aws", name)
