"""What one application was given: everything that a request needs, and nothing module-wide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from govbudget.audit.store import Audit
from govbudget.budgets.store import Budgets
from govbudget.db.gov import Gov
from govbudget.errors import GovBudgetError
from govbudget.prices.store import Prices
from govbudget.settings import AIBRIDGE
from govbudget.statements import list_ungoverned
from govbudget.web import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flask import Flask
    from sqlalchemy import Connection, Engine

    from govbudget.db.databases import Databases
    from govbudget.db.unit import Report
    from govbudget.identity import Id
    from govbudget.web.call import Route


@dataclass(eq=False, repr=False, kw_only=True)
class Installation(Gov):
    """govbudget inside one Flask application (`app.extensions["govbudget"]`)."""

    audit = Audit
    budgets = Budgets
    prices = Prices

    identify: Callable[[], object]
    find_features: Callable[[], frozenset[str]]
    challenge: str
    app: Flask
    routes: tuple[Route, ...]
    # What finds the engine of an organization, where there are several databases; and the
    # organization of a group (None: there is none), where the host says it.
    databases: Databases | Callable[[Id | None], Engine | Connection] | None = None
    organization_of: Callable[[Id], Id | None] | None = None

    def require_feature(self) -> None:
        """Raise `feature-disabled` unless the feature is on now."""
        if AIBRIDGE not in self.find_features():
            message = "AI budgets are switched off here (`aibridge`)"
            raise GovBudgetError("feature-disabled", message)

    def delete_orphans(self, connection: Connection) -> int:
        """Delete what belongs to groups that are not there any more, and give its number.

        Budgets and overrides. For hosts whose groups a foreign key can't point at: call it after
        deleting groups, in the same transaction. Needs no grant: it touches nothing of a group that
        is there. Leaves entries with the cause `cascade`. Never commits.
        """
        return sum(
            int(self.execute(connection, statement).scalar_one())
            for name, statement in list_ungoverned().items()
            if name.endswith(".delete_orphans")
        )

    def announce(self, reports: Iterable[Report]) -> None:
        """Send the signals of what a unit of work has done."""
        for report in reports:
            signals.send(getattr(signals, report.signal), self.app, **report.facts)

    def reload_policy(self) -> None:
        """Read the policy's files anew; raises PolicyError and keeps the old one on any finding.

        Sends the signal `policy_reloaded`.
        """
        self.policy.reload()
        signals.send(signals.policy_reloaded, self.app, policy=self.policy)
