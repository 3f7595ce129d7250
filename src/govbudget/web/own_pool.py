"""Connections of our own: govbudget never waits for a pool from which its own caller holds one.

A view of a host holds a connection for its session while it calls govbudget. If govbudget took one
more from the same pool, as many callers as that pool has connections would wait for one another.
Whoever holds a connection of ours never waits for one of the host's, so nobody waits in a circle.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sqlalchemy import NullPool, QueuePool, StaticPool, event
from sqlalchemy.engine.base import OptionEngine

if TYPE_CHECKING:
    from sqlalchemy import Engine, Pool

_KEY = "_govbudget_own"


class _OwnEngine(OptionEngine):
    """An engine of the host, with its dialect, options and listeners, over a pool of our own.

    The pool is made when it is first used, one in each process: a fork never uses a connection
    of its parent. It has the creator and the listeners of the host's, its size, and no overflow.
    """

    _proxied: Engine

    def __init__(self, host: Engine) -> None:
        super().__init__(host, {})
        self._pools: dict[int, Pool] = {}

    @property
    def pool(self) -> Pool:  # type: ignore[override]
        if isinstance(self._proxied, OptionEngine):  # which shares the pool of the one behind it
            return find_own(self._proxied._proxied).pool  # noqa: SLF001 - there is no public way
        process = os.getpid()
        return self._pools.get(process) or self._pools.setdefault(process, self._make_pool())

    def _make_pool(self) -> Pool:
        pool = self._proxied.pool.recreate()
        if isinstance(pool, QueuePool) and pool.size():
            pool._max_overflow = 0  # noqa: SLF001 - there is no public way
        return pool

    def follow(self, _host: Engine) -> None:
        """Close what is idle, as the host's engine did; leave a parent's connections alone."""
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.dispose()

    def dispose(self, close: bool = True) -> None:  # noqa: FBT001, FBT002 - as an Engine has it
        self._proxied.dispose(close)


def find_own(engine: Engine) -> Engine:
    """Give the engine over our own pool that goes with the host's, and is gone when that is.

    Our own, and one whose pool never waits, are given back.
    """
    if isinstance(engine, _OwnEngine) or isinstance(engine.pool, NullPool | StaticPool):
        return engine
    kept = vars(engine)  # so that both are collected together
    if _KEY not in kept:
        made = _OwnEngine(engine)
        if kept.setdefault(_KEY, made) is made and not isinstance(engine, OptionEngine):
            event.listen(engine, "engine_disposed", made.follow)
    found: _OwnEngine = kept[_KEY]
    return found
