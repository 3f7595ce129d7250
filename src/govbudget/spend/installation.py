"""The installation of an application with spend: what a host's own code calls."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flask import current_app, has_app_context
from sqlalchemy.exc import DataError

from govbudget.db.retries import T, explain_outage
from govbudget.errors import Forbidden, GovBudgetError
from govbudget.identity import Action, Id, Ledger
from govbudget.installation import Installation as CoreInstallation
from govbudget.spend.errors import BudgetExceeded
from govbudget.spend.notices import Notices
from govbudget.spend.open_hold import OpenHold, open_hold, read_tokens
from govbudget.spend.overrides import Overrides
from govbudget.spend.reports import Reports
from govbudget.spend.store import Spend
from govbudget.spend.usage import DEFAULT_TTL_SECONDS, Call, Hold, HoldState
from govbudget.web.call import Target
from govbudget.web.requestlog import note_refused, write_line
from govbudget.web.signals import call_refused, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from govbudget.db.unit import Grant, Unit
    from govbudget.spend.tokens import Tokens


class Installation(CoreInstallation):
    """govbudget inside one Flask application, with spend (`app.extensions["govbudget"]`)."""

    notices = Notices
    overrides = Overrides
    reports = Reports
    spend = Spend

    def hold(
        self,
        gateway: Id,
        call: Call,
        tokens: Tokens,
        *,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        hold_id: UUID | None = None,
    ) -> AbstractContextManager[OpenHold]:
        """Hold, for a block of code, what an AI call costs at most; the block settles what it took.

        `gateway` is the id of the service that makes the call for the user, and `tokens` the most
        that it can take. `ttl_seconds` (1 to 86,400) is the longest that it can take, with retries,
        and a minute more: then it holds no money; `extend` it before, where the call runs on. With
        a `hold_id` of your own the block can be entered again after a crash: the same hold, and
        extended where it expired; `hold-closed` where it was settled or released.

        A block that raises, or a generator that is closed in it, settles what was counted, and
        releases where nothing was. Each step is a unit of work of its own, on a connection of our
        own: it loads the service's roles, asks the policy and commits. It works from any thread,
        with and without a context of Flask's; in an `async` function it blocks.

        Raises GovBudgetError alone, before the block is entered: BudgetExceeded, UnpricedModel,
        NotAMember, Forbidden, `feature-disabled`, `unavailable`, `input-invalid`. A call that is
        refused leaves a line in the log and sends the signal `call_refused`.
        """
        accept, run = self.settings.id_type.accept, partial(self._run_as, gateway, call)
        options: dict[str, Any] = {"ttl_seconds": ttl_seconds, "hold_id": hold_id}

        def admit() -> Hold:
            user, organization = accept(call.user_id), accept(call.organization_id)
            asked = replace(call, user_id=user, organization_id=organization)
            most = read_tokens(tokens)
            with self._reporting_refusals(gateway, asked):
                self.require_feature()
                return run(partial(_hold_open, call=asked, tokens=most, **options))

        return open_hold(run, partial(self._explain, admit), partial(self._extend, gateway, call))

    def _extend(self, gateway: Id, call: Call, hold_id: UUID, ttl_seconds: int) -> Hold:
        with self._reporting_refusals(gateway, call):
            act = partial(Spend.extend, hold_id=hold_id, ttl_seconds=ttl_seconds)
            return self._run_as(gateway, call, act)

    def _run_as(self, gateway: Id, call: Call, act: Callable[[Grant[Ledger]], T]) -> T:
        """Act for a service in a unit of its own; raise GovBudgetError, whatever went wrong."""
        caller = self.settings.id_type.accept
        return self._explain(
            lambda: self.run(
                caller(gateway),
                lambda unit: act(self._authorize(unit)),
                organization=call.organization_id,
            )
        )

    def _authorize(self, unit: Unit) -> Grant[Ledger]:
        """Authorize a service; a refusal says which line, which role and which place allow it."""
        try:
            return unit.authorize("create", ledger=True)
        except Forbidden as refusal:
            lines = ", ".join(refusal.would_allow)
            if refusal.lines:
                hint = f"{', '.join(refusal.lines)} denies it to a role of `{unit.caller}`"
            elif lines:
                hint = (
                    f"give `{unit.caller}`, on the site, the role of a line that allows it: {lines}"
                )
                named = getattr(self.directory, "named_roles", ())
                cells = {role: unit.table.cell(role, Ledger.type, Action.CREATE) for role in named}
                if named and not any(cell.allow for cell in cells.values()):
                    hint += "; `roles=` of the SqlDirectory maps none of yours to it"
            else:
                hint = "no line allows it; add `p, gateway, site, ai_usage, create, allow`"
            raise Forbidden(
                refusal.action, refusal.lines, refusal.would_allow, f"; {hint}"
            ) from None

    @contextmanager
    def _reporting_refusals(self, gateway: Id, call: Call) -> Iterator[None]:
        """Write a line of the log and send the signal where the block raises a refusal."""
        try:
            yield
        except Exception as error:
            record = {"request_id": uuid4().hex, "caller": gateway, "method": "hold"}
            for announce in self.note_refused_call(record, error, call):
                write_line(record | {"action": Action.CREATE, "object": Target.LEDGER})
                announce()
            raise

    def note_refused_call(
        self, record: dict[str, Any], error: Exception, call: Call | None
    ) -> list[Callable[[], None]]:
        """Note in a record of the log that a call was refused; give the sending of its signal.

        Nothing is noted, and nothing is to be sent, where the error is not such a refusal.
        """
        refusal = error if isinstance(error, GovBudgetError) else explain_outage(error)
        if refusal is None or not (refusal.status in {403, 503} or refusal.code == "not-a-member"):
            return []
        note_refused(record, refusal)
        record.setdefault("digest", self.policy.digest)  # where no unit had come to a decision
        if call is not None:
            record |= {"organization": call.organization_id, "user": call.user_id}
            record |= {"provider": call.provider, "model": call.model}
        if isinstance(refusal, BudgetExceeded):
            record |= refusal.members
        facts = {"caller": record["caller"], "request_id": record["request_id"]}
        return [lambda: send(call_refused, self.app, call=call, refusal=refusal, **facts)]

    def _explain(self, act: Callable[[], T]) -> T:
        """Act in the context of the application; raise GovBudgetError, whatever went wrong."""
        try:
            is_ours = has_app_context() and current_app == self.app
            with nullcontext() if is_ours else self.app.app_context():
                return act()
        except GovBudgetError:
            raise
        except Exception as error:
            raise _explain_failure(error) from error


def _hold_open(
    grant: Grant[Ledger], call: Call, tokens: Tokens, *, ttl_seconds: int, hold_id: UUID | None
) -> Hold:
    """Hold; a hold that is known already is extended where it expired."""
    hold = Spend.hold(grant, call, tokens, ttl_seconds=ttl_seconds, hold_id=hold_id)
    if hold.state is HoldState.OPEN:
        return hold
    return Spend.extend(grant, hold.id, ttl_seconds=ttl_seconds)


def _explain_failure(error: Exception) -> GovBudgetError:
    """Give the error of ours for a failure of a call from Python, which has no log of its own."""
    is_input = isinstance(error, ValueError | TypeError | DataError)
    text = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    known = GovBudgetError("input-invalid" if is_input else "internal-error", text)
    return explain_outage(error) or known
