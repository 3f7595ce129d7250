"""What one application was given: everything that a request needs, and nothing module-wide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from govbudget.authz.policy import Policy
    from govbudget.budgets.store import BudgetStore
    from govbudget.identity import Directory
    from govbudget.prices.store import PriceStore
    from govbudget.settings import Settings


@dataclass(frozen=True, slots=True)
class Installation:
    """govbudget inside one Flask application (`app.extensions["govbudget"]`)."""

    settings: Settings
    policy: Policy
    directory: Directory
    budgets: BudgetStore
    prices: PriceStore
    find_engine: Callable[[], Engine]
    identify: Callable[[], object]
    find_features: Callable[[], frozenset[str]]
    challenge: str
