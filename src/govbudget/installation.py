"""What one application was given: everything that a request needs, and nothing module-wide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from govbudget.audit.store import Audit
from govbudget.budgets.store import Budgets
from govbudget.db.gov import Gov
from govbudget.prices.store import Prices
from govbudget.spend.open_hold import OnError, open_hold
from govbudget.spend.overrides import Overrides
from govbudget.spend.reports import Reports
from govbudget.spend.store import Spend
from govbudget.spend.usage import DEFAULT_TTL_SECONDS
from govbudget.web.signals import policy_reloaded, send

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from flask import Flask
    from sqlalchemy import Engine

    from govbudget.authz.policy import Policy
    from govbudget.db.unit import Grant
    from govbudget.directory.protocol import Directory
    from govbudget.identity import Id, Ledger
    from govbudget.settings import Settings
    from govbudget.spend.open_hold import OpenHold
    from govbudget.spend.tokens import Tokens
    from govbudget.spend.usage import Call


class Installation(Gov):
    """govbudget inside one Flask application (`app.extensions["govbudget"]`)."""

    audit = Audit
    budgets = Budgets
    overrides = Overrides
    prices = Prices
    reports = Reports
    spend = Spend

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        settings: Settings,
        policy: Policy,
        directory: Directory,
        find_engine: Callable[[], Engine],
        identify: Callable[[], object],
        find_features: Callable[[], frozenset[str]],
        challenge: str,
        app: Flask,
    ) -> None:
        super().__init__(settings, policy, directory, find_engine)
        self.identify, self.find_features = identify, find_features
        self.challenge, self.app = challenge, app

    def hold(
        self,
        gateway: Id,
        call: Call,
        tokens: Tokens,
        *,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        on_error: Literal["release", "settle"] = "release",
    ) -> AbstractContextManager[OpenHold]:
        """Hold, for a block of code, what an AI call costs at most; the block settles what it took.

        `gateway` is the id of the service that makes the call for the user, and `tokens` the most
        that it can take. A block that raises releases the hold, or settles what it counted, as
        `on_error` says. Each step is a unit of work of its own: it loads the service's roles, asks
        the policy and commits. Raises Forbidden, BudgetExceeded, UnpricedModel or NotAMember before
        the block is entered.
        """

        def run(act: Callable[[Grant[Ledger]], Any]) -> Any:  # noqa: ANN401 - what it gives
            return self.run(gateway, lambda unit: act(unit.authorize("create", ledger=True)))

        return open_hold(run, call, tokens, ttl_seconds, OnError(on_error))

    def reload_policy(self) -> None:
        """Read the policy's files anew; raises PolicyError and keeps the old one on any finding.

        Sends the signal `policy_reloaded`.
        """
        self.policy.reload()
        send(policy_reloaded, self.app, policy=self.policy)
