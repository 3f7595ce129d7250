"""What one application was given: everything that a request needs, and nothing module-wide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from govbudget.web.signals import policy_reloaded, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask
    from sqlalchemy import Engine

    from govbudget.audit.store import AuditStore
    from govbudget.authz.policy import Policy
    from govbudget.budgets.store import BudgetStore
    from govbudget.identity import Directory
    from govbudget.prices.store import PriceStore
    from govbudget.settings import Settings
    from govbudget.spend.overrides import OverrideStore
    from govbudget.spend.reports import SpendReports
    from govbudget.spend.store import SpendStore


@dataclass(frozen=True, slots=True)
class Installation:
    """govbudget inside one Flask application (`app.extensions["govbudget"]`)."""

    settings: Settings
    policy: Policy
    directory: Directory
    budgets: BudgetStore
    prices: PriceStore
    spend: SpendStore
    overrides: OverrideStore
    reports: SpendReports
    audit: AuditStore
    find_engine: Callable[[], Engine]
    identify: Callable[[], object]
    find_features: Callable[[], frozenset[str]]
    challenge: str
    app: Flask

    def reload_policy(self) -> None:
        """Read the policy's files anew; raises PolicyError and keeps the old one on any finding.

        Sends the signal `policy_reloaded`.
        """
        self.policy.reload()
        send(policy_reloaded, self.app, policy=self.policy)
