"""docs/compared.md: each claim has its source or a command, and the commands run."""

from __future__ import annotations

import re
import shlex

import pytest
from click.testing import CliRunner
from tests.docs.support import ROOT

from govbudget.cli import cli

TEXT = (ROOT / "docs" / "compared.md").read_text()
CODE = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", TEXT)]
PEERS = ("pycasbin", "Cerbos", "OPA", "Cedar", "OpenFGA", "An AI gateway's own budgets: LiteLLM")


@pytest.mark.parametrize("peer", PEERS)
def test_each_claim_about_a_peer_has_a_source_or_a_command(peer):
    section = TEXT.split(f"\n## {peer}\n")[1].split("\n## ")[0]
    claims = re.split(r"^- ", section.split("\n**Take ")[0], flags=re.MULTILINE)[1:]
    assert claims
    for claim in claims:
        assert re.search(r"\]\(|`(govbudget|make|python) ", claim), claim
    assert "https://" in section
    assert "**Take " in section


def test_the_page_says_when_not_to_use_it_before_anything_else():
    assert TEXT.index("**Use something else**") < TEXT.index("\n## ")


@pytest.mark.parametrize("command", sorted({c for c in CODE if c.startswith("govbudget ")}))
def test_a_command_of_the_page_runs(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(cli, shlex.split(command)[1:])
    assert result.exit_code in {0, 1}, result.output
    assert result.output.startswith(("policy: ", "old: "))


def test_the_scripts_and_tests_of_the_page_are_there():
    paths = [word.removeprefix("ARGS=") for code in CODE for word in code.split() if ".py" in word]
    assert len(paths) == 3
    assert all((ROOT / path).is_file() for path in paths)
