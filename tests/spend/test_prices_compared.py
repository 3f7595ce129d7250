"""On the same usage a model costs what `genai-prices` says, to the pico."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from tests.spend.costs import cost_in_picos

from govbudget.spend.tokens import Tokens

USAGES = [(1, 1, 1, 1), (1_234_567, 7_654_321, 999_983, 31_337), (10**12, 10**11, 7, 0)]


@pytest.fixture(scope="module")
def package():
    """Return the script that compares, where the package is the one that the seed was made of."""
    pytest.importorskip("genai_prices")
    compare_prices = pytest.importorskip("tools.compare_prices")
    if version("genai-prices") != compare_prices.SEED_VERSION:
        pytest.skip(f"the seed was made from genai-prices {compare_prices.SEED_VERSION}")
    return compare_prices


def find_differences(package, models):
    """Give the models that cost otherwise; tokens only where the book has a price."""
    for name, model, row, _ in models:
        for usage in USAGES:
            counts = [
                0 if price is None else count for count, price in zip(usage, row, strict=True)
            ]
            names = ("input", "output", "cache_read", "cache_write")
            ours = cost_in_picos(Tokens(**dict(zip(names, counts, strict=True))), row)
            theirs = package.cost_by_package(model.prices, counts)
            if ours != theirs:
                yield f"{name} {counts}: {ours}, not {theirs}"


@pytest.mark.long
def test_every_plain_model_costs_the_same_and_the_document_names_the_others(package):
    plain = [model for model in package.sort_models() if model[-1] is None]
    assert len(plain) > 1700
    assert list(find_differences(package, plain)) == []
    assert package.DOCUMENT.read_text() == package.write_document()
