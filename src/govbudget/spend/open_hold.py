"""A hold around a block of code: `with govbudget.hold(...) as hold`."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from flask import current_app, has_app_context
from sqlalchemy.exc import DataError

from govbudget.db.retries import T, explain_outage
from govbudget.errors import Forbidden, GovBudgetError
from govbudget.identity import Action, Id, Ledger
from govbudget.spend.store import Spend
from govbudget.spend.usage import Call, Hold, HoldState, Usage, check_event_id, check_time
from govbudget.web.call import Target
from govbudget.web.requestlog import write_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from govbudget.db.unit import Grant, Unit
    from govbudget.spend.installation import Installation
    from govbudget.spend.tokens import Tokens

logger = logging.getLogger("govbudget")


class Service:
    """A service that makes a call for a user. Each act is a unit of work of its own.

    Whatever goes wrong, its functions raise GovBudgetError.
    """

    def __init__(self, gov: Installation, its_id: Id, call: Call) -> None:
        self.gov, self.id, self.call = gov, its_id, call

    def hold(self, tokens: Tokens, *, ttl_seconds: int, hold_id: UUID | None) -> Hold:
        """Hold; a hold that is known already is extended where it expired."""

        def admit(grant: Grant[Ledger]) -> Hold:
            hold = Spend.hold(grant, self.call, most, ttl_seconds=ttl_seconds, hold_id=hold_id)
            if hold.state is HoldState.OPEN:
                return hold
            return Spend.extend(grant, hold.id, ttl_seconds=ttl_seconds)

        with self.explaining():
            most = read_tokens(tokens)
            with self._reporting_refusals():
                self.gov.require_feature()
                return self.run(admit)

    def extend(self, hold_id: UUID, ttl_seconds: int) -> Hold:
        """Let a hold live on."""
        with self._reporting_refusals():
            return self.run(partial(Spend.extend, hold_id=hold_id, ttl_seconds=ttl_seconds))

    def run(self, act: Callable[[Grant[Ledger]], T]) -> T:
        """Act in a unit of work, with a grant to `create` on the ledger."""
        with self.explaining():
            work, organization = lambda unit: act(_authorize(unit)), self.call.organization_id
            return self.gov.run(
                self.gov.settings.id_type.accept(self.id), work, organization=organization
            )

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Be in the context of the application; let what goes wrong in the block be of ours."""
        try:
            is_ours = has_app_context() and current_app == self.gov.app
            with nullcontext() if is_ours else self.gov.app.app_context():
                yield
        except GovBudgetError:
            raise
        except Exception as error:
            raise _explain_failure(error) from error

    @contextmanager
    def _reporting_refusals(self) -> Iterator[None]:
        """Write a line of the log and send the signal where the block raises a refusal."""
        try:
            yield
        except Exception as error:
            record = {"request_id": uuid4().hex, "caller": self.id, "method": "hold"}
            for announce in self.gov.note_refused_call(record, error, self.call):
                write_line(record | {"action": Action.CREATE, "object": Target.LEDGER})
                announce()
            raise


class OpenHold:
    """A hold that its block ends with `settle`, `count` or `release`. Raises only GovBudgetError.

    A block that raises, or a generator that is closed in it, settles what was counted, and
    releases where nothing was.
    """

    def __init__(self, service: Service, hold: Hold) -> None:
        self.service, self.hold = service, hold
        self.usage: Usage | None = None
        self._counted: Tokens | None = None
        self._settle: Callable[[], Usage] | None = None
        self._is_released = False

    def count(self, tokens: Tokens) -> None:
        """Add tokens that the call has taken so far; they are settled when the block ends."""
        with self.service.explaining():
            added = read_tokens(tokens)
            self._counted = added if self._counted is None else self._counted + added

    def settle(
        self,
        tokens: Tokens,
        *,
        event_id: str | None = None,
        occurred_at: datetime | None = None,
        provider: str | None = None,
        model: str | None = None,
    ) -> Usage:
        """Record what the call took and free the hold; `event_id` is the hold's id if not given.

        `tokens` are all that it took, whatever was counted; `provider` and `model` say which model
        answered, where it is another than was held. Commits. Raises what
        `Spend.settle` does, and `input-invalid`; may then be called again, and is when the
        block ends.
        """
        with self.service.explaining():
            # Known from here on, and so spent, even where the rest can't be taken.
            self._counted = tokens = read_tokens(tokens)
            settle = partial(
                Spend.settle,
                hold_id=self.hold.id,
                event_id=check_event_id(str(self.hold.id) if event_id is None else event_id),
                tokens=tokens,
                occurred_at=occurred_at and check_time(occurred_at),
                provider=provider,
                model=model,
            )
        self._settle = partial(self.service.run, settle)
        self.usage = self._settle()
        return self.usage

    def extend(self, ttl_seconds: int) -> Hold:
        """Let the hold live for `ttl_seconds` from now. Commits; raises as `Spend.extend`."""
        self.hold = self.service.extend(self.hold.id, ttl_seconds)
        return self.hold

    def release(self) -> None:
        """Free what is held: the call was not made, and what was counted is dropped. Commits."""
        self.service.run(partial(Spend.release, hold_id=self.hold.id))
        self._is_released = True

    def end(self, *, raised: bool) -> None:
        """End what nothing ended yet: settle what is known, or release what raised before that.

        Raises `hold-not-ended` where the block ended well and nothing is known.
        """
        if self.usage is not None or self._is_released:
            return
        if self._settle is not None:  # and it failed
            self.usage = self._settle()
        elif self._counted is not None:
            self.settle(self._counted)
        elif raised:
            self.release()
        else:
            raise GovBudgetError(
                "hold-not-ended",
                "the block of a hold ended without settle(), count() or release(); it holds "
                f"{self.hold.cost_picos or 0} picos until {self.hold.expires_at}",
            )


@contextmanager
def open_hold(
    service: Service, tokens: Tokens, *, ttl_seconds: int, hold_id: UUID | None
) -> Iterator[OpenHold]:
    """Hold what a call costs at most for the time of a block."""
    opened = OpenHold(service, service.hold(tokens, ttl_seconds=ttl_seconds, hold_id=hold_id))
    try:
        yield opened
    except BaseException:  # the end of a generator and of the process, too
        try:
            opened.end(raised=True)
        except Exception:
            logger.exception("a hold is left to expire at %s", opened.hold.expires_at)
        raise
    opened.end(raised=False)


def read_tokens(value: Tokens) -> Tokens:
    """Take what code that nobody checks may have given; raise ValueError unless it is tokens."""
    from govbudget.spend.tokens import Tokens  # noqa: PLC0415 - pydantic, with the first of them

    return Tokens.model_validate(value)


def _authorize(unit: Unit) -> Grant[Ledger]:
    """Authorize a service; a refusal says which line, which role and which place allow it."""
    try:
        return unit.authorize("create", ledger=True)
    except Forbidden as refusal:
        lines = ", ".join(refusal.would_allow)
        if refusal.lines:
            hint = f"{', '.join(refusal.lines)} denies it to a role of `{unit.caller}`"
        elif lines:
            hint = f"give `{unit.caller}`, on the site, the role of a line that allows it: {lines}"
            named = getattr(unit.gov.directory, "named_roles", ())
            cells = {role: unit.table.cell(role, Ledger.type, Action.CREATE) for role in named}
            if named and not any(cell.allow for cell in cells.values()):
                hint += "; `roles=` of the SqlDirectory maps none of yours to it"
        else:
            hint = "no line allows it; add `p, gateway, site, ai_usage, create, allow`"
        raise Forbidden(refusal.action, refusal.lines, refusal.would_allow, f"; {hint}") from None


def _explain_failure(error: Exception) -> GovBudgetError:
    """Give the error of ours for a failure of a call from Python, which has no log of its own."""
    is_input = isinstance(error, ValueError | TypeError | DataError)
    text = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    known = GovBudgetError("input-invalid" if is_input else "internal-error", text)
    return explain_outage(error) or known
