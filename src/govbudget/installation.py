"""What one application was given: everything that a request needs, and nothing module-wide."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from flask import current_app, has_app_context

from govbudget.errors import GovBudgetError
from govbudget.identity import Action, Ledger
from govbudget.settings import AIBRIDGE
from govbudget.spend.open_hold import open_hold, read_tokens
from govbudget.spend.usage import DEFAULT_TTL_SECONDS
from govbudget.web.call import Target
from govbudget.web.requestlog import note_refused, write_line
from govbudget.web.signals import call_refused, policy_reloaded, send
from govbudget.web.units import explain_failure, explain_outage, run_unit

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from flask import Flask
    from sqlalchemy import Connection, Engine

    from govbudget.audit.store import AuditStore
    from govbudget.authz.grant import Grant
    from govbudget.authz.policy import Policy
    from govbudget.budgets.store import BudgetStore
    from govbudget.identity import Directory, Id
    from govbudget.prices.store import PriceStore
    from govbudget.settings import Settings
    from govbudget.spend.open_hold import OpenHold
    from govbudget.spend.overrides import OverrideStore
    from govbudget.spend.reports import SpendReports
    from govbudget.spend.store import SpendStore
    from govbudget.spend.tokens import Tokens
    from govbudget.spend.usage import Call, Hold

T = TypeVar("T")


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
    find_engine: Callable[[], Engine | Connection]
    identify: Callable[[], object]
    find_features: Callable[[], frozenset[str]]
    challenge: str
    app: Flask

    def hold(
        self,
        gateway: Id,
        call: Call,
        tokens: Tokens,
        *,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
    ) -> AbstractContextManager[OpenHold]:
        """Hold, for a block of code, what an AI call costs at most; the block settles what it took.

        `gateway` is the id of the service that makes the call for the user, and `tokens` the most
        that it can take. A block that raises, or a generator that is closed in it, settles what was
        counted, and releases where nothing was. Each step is a unit of work of its own, on a
        connection of our own: it loads the service's roles, asks the policy and commits. It works
        from any thread, with and without a context of Flask's; in an `async` function it blocks.

        Raises GovBudgetError alone, before the block is entered: BudgetExceeded, UnpricedModel,
        NotAMember, Forbidden, `feature-disabled`, `unavailable`, `input-invalid`. A call that is
        refused leaves a line in the log and sends the signal `call_refused`.
        """

        def run(act: Callable[[Connection, Grant], Any]) -> Any:  # noqa: ANN401 - what it gives
            def work(connection: Connection) -> Any:  # noqa: ANN401 - as above
                caller = self.settings.id_type.accept(gateway)
                subject = self.directory.load_subject(connection, caller)
                grant = self.policy.authorize(subject, Action.CREATE, Ledger())
                return act(connection, grant)

            return self._explain(lambda: run_unit(self.find_engine(), work))

        def admit() -> Hold:
            accept = self.settings.id_type.accept
            user, organization = accept(call.user_id), accept(call.organization_id)
            asked = replace(call, user_id=user, organization_id=organization)
            most = read_tokens(tokens)
            try:
                self.require_feature()
                admitted: Hold = run(
                    partial(self.spend.hold, call=asked, tokens=most, ttl_seconds=ttl_seconds)
                )
            except Exception as error:
                record = {"request_id": uuid4().hex, "caller": gateway, "method": "hold"}
                for tell in self.note_refused_call(record, error, asked):
                    write_line(record | {"action": Action.CREATE, "object": Target.LEDGER})
                    tell()
                raise
            return admitted

        return open_hold(self.spend, run, partial(self._explain, admit))

    def require_feature(self) -> None:
        """Raise `feature-disabled` unless the feature is on now."""
        if AIBRIDGE not in self.find_features():
            message = "AI budgets are switched off here (`aibridge`)"
            raise GovBudgetError("feature-disabled", message)

    def note_refused_call(
        self, record: dict[str, Any], error: Exception, call: Call | None
    ) -> list[Callable[[], None]]:
        """Note in a record of the log that a call was refused; give the sending of its signal.

        Nothing is noted, and nothing is to be sent, where the error is no such refusal.
        """
        refusal = error if isinstance(error, GovBudgetError) else explain_outage(error)
        if refusal is None or not (refusal.status in {403, 503} or refusal.code == "not-a-member"):
            return []
        note_refused(record, refusal, self.policy.digest, call)
        facts = {"caller": record["caller"], "request_id": record["request_id"]}
        return [lambda: send(call_refused, self.app, call=call, refusal=refusal, **facts)]

    def _explain(self, act: Callable[[], T]) -> T:
        """Act in the context of the application; raise GovBudgetError, whatever went wrong."""
        try:
            is_ours = has_app_context() and current_app == self.app
            with nullcontext() if is_ours else self.app.app_context():
                return act()
        except Exception as error:
            if isinstance(error, GovBudgetError):
                raise
            raise explain_failure(error) from error

    def reload_policy(self) -> None:
        """Read the policy's files anew; raises PolicyError and keeps the old one on any finding.

        Sends the signal `policy_reloaded`.
        """
        self.policy.reload()
        send(policy_reloaded, self.app, policy=self.policy)
