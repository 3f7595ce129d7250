"""Hold, settle, release, record: one statement each, safe under any concurrency."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from psycopg.types.numeric import Int8
from sqlalchemy.exc import IntegrityError

from govbudget.db.retries import apart, pause
from govbudget.db.times import find_time
from govbudget.errors import FieldError, GovBudgetError, InvalidInput, NotFound
from govbudget.money import MAX_COST_PICOS, TOKENS
from govbudget.new_ids import make_id
from govbudget.prices.names import PricedAs, find_candidate
from govbudget.spend import corrections, hold_statements, statements
from govbudget.spend.errors import (
    BudgetExceeded,
    EventConflict,
    EventCorrected,
    HoldClosed,
    HoldConflict,
    NotAMember,
    UnpricedModel,
)
from govbudget.spend.notices import report_crossings
from govbudget.spend.refusals import note_refusal
from govbudget.spend.usage import (
    DEFAULT_TTL_SECONDS,
    Call,
    Correction,
    Hold,
    HoldState,
    Usage,
    check_event_id,
    check_hold_id,
    check_reason,
    check_time,
    check_ttl,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from govbudget.db.unit import Grant
    from govbudget.identity import Id, Ledger
    from govbudget.spend.tokens import Tokens


MAX_IDLE = 5
CLOSING = "other calls are closing the user's expired holds, which are many; try again later"


class Spend:
    """The functions on holds and the ledger, run by a grant to `create` on the ledger.

    Each sends one statement (two where an event or a hold is known already, and where a call is
    refused on a connection of our own, which is noted). They never commit, roll back, close or SET
    anything; a host's transaction may span them.
    """

    @staticmethod
    def hold(
        grant: Grant[Ledger],
        call: Call,
        tokens: Tokens,
        *,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        hold_id: UUID | None = None,
    ) -> Hold:
        """Set aside what the call costs at most, where it fits under the member's limit.

        `tokens` are the most that the call can take; the hold expires after `ttl_seconds` (1 to
        86,400). With a `hold_id` of the caller's own the same request again gives the stored hold,
        whatever its state and the limit are by then; of two at once one fails whole and then reads
        what is stored (in a savepoint of its own, where a host's transaction spans it).

        Raises BudgetExceeded, UnpricedModel, NotAMember, HoldConflict where the id is of a hold
        that was asked for otherwise, or InvalidInput for no token at all or a cost above 10^18
        picos; nothing is held then.
        """
        # INVARIANT: spent and held never exceed the limit by an admission
        ttl = check_ttl(ttl_seconds)
        if not any(tokens.counts):
            message = "a hold asks for at least one token; say the most that the call can take"
            raise InvalidInput(message, [FieldError("/tokens", "every count is 0")])
        call = _accept(grant, call)
        its_id = make_id(call.organization_id) if hold_id is None else check_hold_id(hold_id)
        values = {**_write_call(call), **_write_tokens(tokens), "ttl": ttl}
        values["candidate"] = find_candidate(call.provider, call.model)
        values |= {"hold_id": its_id, "body_digest": None}
        if hold_id is None:
            row = _admit(grant, statements.HOLD, values)
        else:
            row = _hold_once(grant, {**values, "body_digest": _digest(call, tokens, ttl_seconds)})
            if isinstance(row, Hold):
                return row
        if row.refusal is not None:
            _refuse(grant, call, row)
        who = call.organization_id, call.user_id, row.group_id
        return Hold(its_id, *who, expires_at=row.expires_at, **_read_priced(row))

    @staticmethod
    def find_hold(grant: Grant[Ledger], hold_id: UUID) -> Hold:
        """Look a hold up. Raises NotFound (`hold-not-found`)."""
        row = grant.run(hold_statements.FIND_HOLD, hold_id=check_hold_id(hold_id))
        return _read_hold(row.one_or_none())

    @staticmethod
    def extend(grant: Grant[Ledger], hold_id: UUID, *, ttl_seconds: int) -> Hold:
        """Let a hold live for `ttl_seconds` (1 to 86,400) from now, and never shorter than before.

        An expired one is admitted anew, in its own period and group, at the cost it had, against
        the limit that holds now. Raises NotFound (`hold-not-found`), HoldClosed where it was
        settled or released, NotAMember where the user has left, BudgetExceeded or UnpricedModel;
        nothing is changed then.
        """
        ttl, hold_id = check_ttl(ttl_seconds), check_hold_id(hold_id)
        row = _admit(grant, hold_statements.EXTEND, {"hold_id": hold_id, "ttl": ttl})
        if row is None:
            raise NotFound("hold")
        if row.ended is not None:
            raise HoldClosed(hold_id, row.ended.split()[0])
        if row.refusal is not None:
            _refuse(grant, row, row)
        return _read_hold(row)

    @staticmethod
    def settle(
        grant: Grant[Ledger],
        hold_id: UUID,
        event_id: str,
        tokens: Tokens,
        *,
        occurred_at: datetime | None = None,
        provider: str | None = None,
        model: str | None = None,
    ) -> Usage:
        """Record what the call cost, at the prices of its hold, and free what was held.

        Where another `provider` or `model` answered than was held, its price counts: the table's,
        as it is now, for the UTC day of the hold.

        Where a unit that was used has no price, what is known of the cost counts, and at least what
        the hold set aside if all of its own units had a price. Also after the hold expired or was
        released. The same event again gives the same usage. Raises NotFound (`hold-not-found`),
        EventConflict where the event is known with other contents or the hold was settled by
        another event, or InvalidInput for a cost above 10^18 picos; nothing is recorded then.
        ValueError for an `event_id` that is not 1 to 255 printable characters, or an `occurred_at`
        without a time zone.
        """
        values = {
            **_write_tokens(tokens),
            "hold_id": check_hold_id(hold_id),
            "event_id": check_event_id(event_id),
            "occurred_at": occurred_at and check_time(occurred_at),
            "provider": provider,
            "model": model,
        }
        row = _settle(grant, values)
        if row is None:
            raise NotFound("hold")
        if row.recorded_at is None:
            known = grant.run(statements.FIND_SETTLED, **values).one_or_none()
            row = _require_same(event_id, row, known)
        else:
            report_crossings(grant, row.notices)
        return _read_usage(row, tokens, values)

    @staticmethod
    def release(grant: Grant[Ledger], hold_id: UUID) -> None:
        """Free what is held, as often as it is asked. Raises NotFound (`hold-not-found`)."""
        if grant.run(hold_statements.RELEASE, hold_id=check_hold_id(hold_id)).one_or_none() is None:
            raise NotFound("hold")

    @staticmethod
    def record(
        grant: Grant[Ledger],
        event_id: str,
        call: Call,
        tokens: Tokens,
        *,
        occurred_at: datetime | None = None,
    ) -> tuple[Usage, bool]:
        """Record a call that no hold was made for, at the price in force; say whether it was new.

        Where a unit that was used has no price, what is known of the cost counts. It counts in the
        period that `occurred_at` (None: now) is in, whatever the limit, also where the user has
        left and the organization knows them from earlier calls. The same event again gives the same
        usage. Raises EventConflict, NotAMember, or InvalidInput for a cost above 10^18
        picos; nothing is recorded then. ValueError as for `settle`.
        """
        call = _accept(grant, call)
        values = {
            **_write_call(call),
            **_write_tokens(tokens),
            "candidate": find_candidate(call.provider, call.model),
            "event_id": check_event_id(event_id),
            "occurred_at": occurred_at and check_time(occurred_at),
        }
        row = grant.run(statements.RECORD, **values).one()
        if row.recorded_at is not None:
            report_crossings(grant, row.notices)
            return _read_usage(row, tokens, values), True
        known = grant.run(statements.FIND_EVENT, **values).one_or_none()
        if known is None and not row.is_known:
            raise NotAMember
        return _read_usage(_require_same(event_id, row, known), tokens, values), False

    @staticmethod
    def correct(
        grant: Grant[Ledger],
        event_id: str,
        organization_id: Id,
        corrects: str,
        tokens: Tokens,
        *,
        reason: str,
    ) -> tuple[Correction, bool]:
        """Say what the event `corrects` should have said; say whether that is new.

        Needs a grant to `update` the ledger. `tokens` are all that the call took, at the original's
        prices; a unit that had none has the price in force now. The difference counts in the
        original's period, and an entry of the audit trail says who corrected it. The same event
        again gives the same correction. Raises NotFound (`event-not-found`), EventCorrected where
        another one corrected it, EventConflict, or InvalidInput for a cost above 10^18 picos;
        nothing is recorded then. ValueError for a `reason` that is not 1 to 1,000 printable
        characters, and as for `settle`.
        """
        values = {
            **_write_tokens(tokens),
            "organization_id": grant.unit.gov.settings.id_type.accept(organization_id),
            "event_id": check_event_id(event_id),
            "corrects": check_event_id(corrects),
            "reason": check_reason(reason),
        }
        found = grant.run(corrections.FIND_CORRECTED, **values).one_or_none()
        if found is None:
            raise NotFound("event")
        candidate = find_candidate(*found)
        row = grant.run(corrections.CORRECT, **values, candidate=candidate).one_or_none()
        if row is None:  # its month was closed just now
            raise NotFound("event")
        if row.recorded_at is not None:
            report_crossings(grant, row.notices)
            return _read_correction(row, tokens, values), True
        known = grant.run(corrections.FIND_CORRECTION, **values).one_or_none()
        if known is not None and known.event_id != event_id:
            raise EventCorrected(corrects, known.event_id)
        return _read_correction(_require_same(event_id, row, known), tokens, values), False


def _settle(grant: Grant[Ledger], values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a row, or None
    """Settle what the model that was held has answered, or another one."""
    provider, model = values["provider"], values["model"]
    if provider is None and model is None:
        return grant.run(statements.SETTLE, **values).one_or_none()
    if provider is None or model is None:  # the rules of names ask for both
        held = grant.run(hold_statements.FIND_HOLD, **values).one_or_none()
        if held is None:
            return None
        provider, model = provider or held.provider, model or held.model
    candidate = find_candidate(provider, model)
    return grant.run(statements.SETTLE_FALLBACK, **values, candidate=candidate).one_or_none()


def _admit(grant: Grant[Ledger], statement: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a statement, and a row or None
    """Admit a call; refuse it only once all that expired is taken out of the counter.

    Each statement takes out a bounded part, so none is ended by a timeout.
    """
    # INVARIANT: an expired hold counts for nothing, however many there are
    idle = 0
    while True:
        row = grant.run(statement, **values).one_or_none()
        if row is None or row.refusal is None or row.refusal["is_final"]:
            return row
        if not row.refusal["closed"]:  # another call has closed what this one saw
            idle += 1
            if idle == MAX_IDLE:
                raise GovBudgetError("unavailable", CLOSING)
            pause(200, 600)


def _hold_once(grant: Grant[Ledger], values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a row
    """Hold under an id of the caller's own: give the row, or the Hold that it is of already."""
    try:
        with apart(grant.unit.connection):
            row = _admit(grant, statements.HOLD, values)
    except IntegrityError:
        row = None  # the id is taken: nothing of the statement was done
    if row is not None and row.refusal is None:
        return row
    known = grant.run(hold_statements.FIND_HOLD, **values).one_or_none()
    if known is None and row is not None:
        return row
    if known is None or known.body_digest != values["body_digest"]:
        raise HoldConflict(values["hold_id"])
    return replace(_read_hold(known), was_known=True)


def _digest(call: Call, tokens: Tokens, ttl_seconds: int) -> UUID:
    """Give a digest of what is asked; a count that is left out is the same as a 0."""
    counts = tokens.model_dump(exclude_defaults=True)
    asked = {**_write_call(call), "tokens": counts, "ttl_seconds": ttl_seconds}
    text = json.dumps(asked, sort_keys=True, default=str)
    return UUID(bytes=sha256(text.encode()).digest()[:16])


def _read_hold(row: Any) -> Hold:  # noqa: ANN401 - a row, or None
    if row is None:
        raise NotFound("hold")
    who = row.id, row.organization_id, row.user_id, row.group_id
    state = HoldState(row.state)
    return Hold(*who, expires_at=row.expires_at, state=state, **_read_priced(row))


def _refuse(grant: Grant[Ledger], call: Any, row: Any) -> NoReturn:  # noqa: ANN401 - rows
    """Raise what kept the call from being held; first it is noted."""
    refusal = _explain_refusal(call, row)
    note_refusal(grant, call, refusal, row.cost_picos)
    raise refusal


def _explain_refusal(call: Any, row: Any) -> BudgetExceeded | UnpricedModel:  # noqa: ANN401 - rows
    """Say what kept the call from being held; raise what is wrong with the call itself."""
    facts = row.refusal
    if not facts["is_member"]:
        raise NotAMember
    _refuse_excess(row.cost_picos)
    if facts["spent_picos"] is None:
        return UnpricedModel(call.provider, call.model, row.unpriced)
    ends = facts["limit_expires_at"]
    return BudgetExceeded(
        limit_micros=facts["limit_micros"],
        limit_source=facts["limit_source"],
        limit_expires_at=ends and find_time(ends),
        group_id=row.group_id,
        spent_picos=int(facts["spent_picos"]),
        held_picos=int(facts["held_picos"]),
        cost_picos=row.cost_picos or 0,
        period_end=find_time(facts["period_end"]),
    )


def _accept(grant: Grant[Ledger], call: Call) -> Call:
    """Take the ids of a call in their one spelling: what is made of them depends on it."""
    accept = grant.unit.gov.settings.id_type.accept
    organization_id, user_id = accept(call.organization_id), accept(call.user_id)
    return replace(call, organization_id=organization_id, user_id=user_id)


def _write_call(call: Call) -> dict[str, Any]:
    names = ("organization_id", "user_id", "provider", "model")
    return {name: getattr(call, name) for name in names}


def _write_tokens(tokens: Tokens) -> dict[str, Any]:
    # Left to itself, psycopg sends an int as the smallest type that it fits in, and prepares a
    # statement anew for each combination of types.
    counts = dict(zip(TOKENS, map(Int8, tokens.plain), strict=True))
    return {**counts, "further_tokens": tokens.further or None}


def _read_usage(row: Any, tokens: Tokens, values: Mapping[str, Any]) -> Usage:  # noqa: ANN401 - a row
    """Read what was recorded; `values` is what its caller said."""
    said = {"event_id": values["event_id"], "hold_id": values.get("hold_id")}
    said["reported_occurred_at"] = values["occurred_at"]
    return Usage(**said, **_read_recorded(row, tokens))


def _read_correction(row: Any, tokens: Tokens, values: Mapping[str, Any]) -> Correction:  # noqa: ANN401 - a row
    said = {name: values[name] for name in ("event_id", "corrects", "reason")}
    difference = row.difference_picos
    return Correction(**said, **_read_recorded(row, tokens), difference_picos=difference)


def _read_recorded(row: Any, tokens: Tokens) -> dict[str, Any]:  # noqa: ANN401 - a row
    names = statements.RECORDED
    return {"tokens": tokens, **_read_priced(row), **{name: getattr(row, name) for name in names}}


def _read_priced(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row
    """Read what a hold and usage say of their cost, and of whose price it is at."""
    return {
        "cost_picos": row.cost_picos,
        "unpriced": tuple(row.unpriced or ()),
        "priced_as": row.priced_as and PricedAs(*row.priced_as),
    }


def _require_same(event_id: str, row: Any, known: Any) -> Any:  # noqa: ANN401 - rows
    """Give the row of an event that is known; raise what kept the one at hand from being it."""
    if known is None:
        _refuse_excess(row.cost_picos)
    if known is None or not known.is_same:  # none: it is recorded and taken back just now
        raise EventConflict(event_id)
    return known


def _refuse_excess(cost: int | None) -> None:
    if cost is not None and cost > MAX_COST_PICOS:
        raise InvalidInput(
            f"the call would cost {cost} picos; one call is at most {MAX_COST_PICOS}",
            [FieldError("/tokens", "these many tokens cost more than one call may")],
        )
