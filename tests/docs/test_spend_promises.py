"""The sentences about money that a reader must not miss stand where they are looked for."""

from __future__ import annotations

import json
import re

import pytest
from tests.docs.support import ROOT

from govbudget import Tokens
from govbudget.money import UNITS

REFERENCE = ROOT / "docs" / "reference.md"
THREATS = ROOT / "docs" / "threat-model.md"
# Each with the test in tests/spend/test_limits.py that shows it is true.
SENTENCES = {
    # test_the_limit_that_holds
    "**No budget means no limit.** Where none of a member's groups has one, calls are metered and"
    " none is refused.": ROOT / "README.md",
    # test_what_the_threat_model_says_takes_spend_over_a_limit_does
    "**A hold that expired and is settled.** An expired hold counts for nothing, so its money is"
    " there for the next one, and usage that comes late is recorded all the same.": THREATS,
    "**A provider that bills more than was held.** The settlement is recorded in full": THREATS,
}


def read_sentences(document):
    return " ".join(document.read_text().split())


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda text: re.findall(r"\*\*(.+?)\*\*", text))
def test_a_promise_about_money_stands_in_its_document(sentence):
    assert sentence in read_sentences(SENTENCES[sentence])


def read_row(start):
    """Give the one row of a table of the reference that starts like this."""
    (row,) = (line for line in REFERENCE.read_text().splitlines() if line.startswith(start))
    return row


def test_the_reference_says_that_output_holds_the_tokens_of_reasoning():
    described = Tokens.model_fields["output"].description
    assert "with those of reasoning" in described
    assert described in read_row("| `output` |")


def test_the_example_of_anthropic_is_the_call_that_is_shown():
    """Its counts are taken as they are: none of them holds another's tokens."""
    text = read_row("| Anthropic |")
    usage = {name: int(n.replace(",", "")) for name, n in re.findall(r"`(\w+)` ([\d,]+)", text)}
    shown = re.search(r"as each provider reports it, is `(\{.*?\})`", REFERENCE.read_text())[1]
    tokens = Tokens(
        input=usage["input_tokens"],
        output=usage["output_tokens"],
        cache_read=usage["cache_read_input_tokens"],
        cache_write=usage["cache_creation_input_tokens"],
    )
    assert tokens == Tokens(**json.loads(shown))
    for name in UNITS:
        (key,) = re.findall(r"Anthropic: `(\w+)`", Tokens.model_fields[name].description)
        assert usage[key] == getattr(tokens, name)
