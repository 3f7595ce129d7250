"""A hold around a block of code: `with govbudget.hold(...) as hold`."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from govbudget.errors import GovBudgetError
from govbudget.spend.store import Spend
from govbudget.spend.usage import Hold, Usage, check_event_id, check_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from uuid import UUID

    from govbudget.db.unit import Grant
    from govbudget.identity import Ledger
    from govbudget.spend.tokens import Tokens

    # Runs one act as a unit of work of its own, with a grant to `create` on the ledger; raises
    # GovBudgetError and nothing else.
    Run = Callable[[Callable[[Grant[Ledger]], Any]], Any]
    Extend = Callable[[UUID, int], Hold]


logger = logging.getLogger("govbudget")


class OpenHold:
    """A hold that its block ends with `settle`, `count` or `release`. Raises only GovBudgetError.

    A block that raises, or a generator that is closed in it, settles what was counted, and
    releases where nothing was.
    """

    def __init__(self, hold: Hold, run: Run, extend: Extend) -> None:
        self.hold = hold
        self.usage: Usage | None = None
        self._run, self._extend = run, extend
        self._counted: Tokens | None = None
        self._settle: Callable[[], Usage] | None = None
        self._is_released = False

    def count(self, tokens: Tokens) -> None:
        """Add tokens that the call has taken so far; they are settled when the block ends."""
        with _as_input():
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
        with _as_input():
            # Known from here on, and so spent, even where the rest can't be taken.
            self._counted = tokens = read_tokens(tokens)
            event = check_event_id(str(self.hold.id) if event_id is None else event_id)
            settle = partial(
                Spend.settle,
                occurred_at=occurred_at and check_time(occurred_at),
                provider=provider,
                model=model,
            )
        self._settle = lambda: self._run(lambda grant: settle(grant, self.hold.id, event, tokens))
        self.usage = self._settle()
        return self.usage

    def extend(self, ttl_seconds: int) -> Hold:
        """Let the hold live for `ttl_seconds` from now. Commits; raises as `Spend.extend`."""
        self.hold = self._extend(self.hold.id, ttl_seconds)
        return self.hold

    def release(self) -> None:
        """Free what is held: the call was not made, and what was counted is dropped. Commits."""
        self._run(lambda grant: Spend.release(grant, self.hold.id))
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
def open_hold(run: Run, admit: Callable[[], Hold], extend: Extend) -> Iterator[OpenHold]:
    """Hold what a call costs at most for the time of a block."""
    opened = OpenHold(admit(), run, extend)
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


@contextmanager
def _as_input() -> Iterator[None]:
    """Name what is wrong with an argument as an error of ours."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise GovBudgetError("input-invalid", str(error)) from error
