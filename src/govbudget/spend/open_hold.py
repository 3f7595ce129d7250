"""A hold around a block of code: `with govbudget.hold(...) as hold`."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from govbudget.spend.store import Spend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from govbudget.db.unit import Grant
    from govbudget.identity import Ledger
    from govbudget.spend.tokens import Tokens
    from govbudget.spend.usage import Call, Hold, Usage

    # Runs one act as a unit of work of its own, with a grant to `create` on the ledger.
    Run = Callable[[Callable[[Grant[Ledger]], Any]], Any]


logger = logging.getLogger("govbudget")


class OnError(StrEnum):
    """What becomes of a hold whose block raises."""

    RELEASE = "release"
    SETTLE = "settle"


class OpenHold:
    """A hold that its block ends with `settle`, `count` or `release`."""

    def __init__(self, hold: Hold, run: Run) -> None:
        self.hold = hold
        self.usage: Usage | None = None
        self._run = run
        self._counted: Tokens | None = None
        self._told: Callable[[], Usage] | None = None
        self._is_released = False

    def count(self, tokens: Tokens) -> None:
        """Add tokens that the call has taken so far; they are settled when the block ends."""
        self._counted = tokens if self._counted is None else self._counted + tokens

    def settle(
        self,
        tokens: Tokens,
        *,
        event_id: str | None = None,
        occurred_at: datetime | None = None,
    ) -> Usage:
        """Book what the call took and free the hold; `event_id` is the hold's id if not given.

        Commits. Raises what `SpendStore.settle` does; may then be called again, and is when the
        block ends.
        """
        event = event_id or str(self.hold.id)
        settle = partial(Spend.settle, occurred_at=occurred_at)
        self._told = lambda: self._run(lambda grant: settle(grant, self.hold.id, event, tokens))
        self.usage = self._told()
        return self.usage

    def release(self) -> None:
        """Free what is held: the call was not made. Commits."""
        self._run(lambda grant: Spend.release(grant, self.hold.id))
        self._is_released = True

    def end(self, on_error: OnError | None) -> None:
        """End what nothing ended yet: settle what was told or counted, or release what raised.

        `on_error` is None where the block ended well; with nothing counted that is a RuntimeError.
        """
        if self.usage is not None or self._is_released:
            return
        if self._told is not None:  # and it failed: the call was made, so it is never released
            self.usage = self._told()
        elif self._counted is not None and on_error is not OnError.RELEASE:
            self.settle(self._counted)
        elif on_error is not None:
            self.release()
        else:
            message = (
                "the block of a hold ended without settle(), count() or release(); it holds "
                f"{self.hold.cost_picos or 0} picos until {self.hold.expires_at}"
            )
            raise RuntimeError(message)


@contextmanager
def open_hold(
    run: Run, call: Call, tokens: Tokens, ttl_seconds: int, on_error: OnError
) -> Iterator[OpenHold]:
    """Hold what a call costs at most for the time of a block."""
    hold: Hold = run(lambda grant: Spend.hold(grant, call, tokens, ttl_seconds=ttl_seconds))
    opened = OpenHold(hold, run)
    try:
        yield opened
    except BaseException:
        try:
            opened.end(on_error)
        except Exception:
            logger.exception("a hold is left to expire at %s", hold.expires_at)
        raise
    opened.end(None)
