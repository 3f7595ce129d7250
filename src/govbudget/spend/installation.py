"""The installation of an application with spend: what a host's own code calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from govbudget.db.retries import explain_outage
from govbudget.errors import GovBudgetError
from govbudget.installation import Installation as CoreInstallation
from govbudget.spend.errors import BudgetExceeded
from govbudget.spend.notices import Notices
from govbudget.spend.open_hold import OpenHold, Service, open_hold
from govbudget.spend.overrides import Overrides
from govbudget.spend.store import Spend
from govbudget.spend.this_month import Reports
from govbudget.spend.usage import DEFAULT_TTL_SECONDS, Call
from govbudget.web.requestlog import note_refused
from govbudget.web.signals import call_refused, send

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from uuid import UUID

    from govbudget.identity import Id
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
        service = Service(self, gateway, call)
        return open_hold(service, tokens, ttl_seconds=ttl_seconds, hold_id=hold_id)

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
