"""Connections of our own: govbudget never waits for a pool from which its own caller holds one.

A view of a host holds a connection for its session while it calls govbudget. If govbudget took one
more from the same pool, as many callers as that pool has connections would wait for one another.
Whoever holds a connection of ours never waits for one of the host's, so nobody waits in a circle.
"""

from __future__ import annotations

import os
from threading import Lock
from weakref import ReferenceType, finalize, ref

from sqlalchemy import Engine, NullPool, Pool, QueuePool, StaticPool, event
from sqlalchemy.engine.base import OptionEngine

_KEY = "_govbudget_own"


class _OwnEngine(OptionEngine):
    """An engine of the host, with its dialect, options and listeners, over a pool of our own.

    The pool is made when it is first used, one in each process: a fork never uses a connection
    of its parent. It has the creator and the listeners of the host's, its size, and no overflow.
    Its connections are in AUTOCOMMIT from the start, which spares each unit the change and back.
    It goes with the pool of the host's that it was made from, which `Engine.dispose` replaces.
    """

    _proxied: Engine

    def __init__(self, host: Engine) -> None:
        super().__init__(host, {})
        self.dispatch = host.dispatch  # its very listeners: to join them costs at each statement
        self._pools: dict[int, tuple[ReferenceType[Pool], Pool]] = {}
        self._making = Lock()

    @property
    def pool(self) -> Pool:  # type: ignore[override]
        if isinstance(self._proxied, OptionEngine):  # which shares the pool of the one behind it
            return find_own(self._proxied._proxied).pool  # noqa: SLF001 - there is no public way
        made = self._pools.get(os.getpid())
        if made is None or made[0]() is not self._proxied.pool:
            with self._making:
                made = self._make_pool()
        return made[1]

    def _make_pool(self) -> tuple[ReferenceType[Pool], Pool]:
        theirs, process = self._proxied.pool, os.getpid()
        made = self._pools.get(process)
        if made is not None and made[0]() is theirs:  # by another thread
            return made
        pool = theirs.recreate()
        if isinstance(pool, QueuePool) and pool.size():
            pool._max_overflow = 0  # noqa: SLF001 - there is no public way
        set_level = self.dialect.set_isolation_level
        event.listen(pool, "connect", lambda opened, _: set_level(opened, "AUTOCOMMIT"))
        finalize(theirs, _dispose, pool, process).atexit = False
        self._pools[process] = made = ref(theirs), pool
        return made

    def dispose(self, close: bool = True) -> None:  # noqa: FBT001, FBT002 - as an Engine has it
        self._proxied.dispose(close)


def _dispose(pool: Pool, process: int) -> None:
    """Close what is idle, as the host's engine did; leave a parent's connections alone."""
    if os.getpid() == process:
        pool.dispose()


def find_own(engine: Engine) -> Engine:
    """Give the engine over our own pool that goes with the host's, and is gone when that is.

    Our own, and one whose pool never waits, are given back.
    """
    if isinstance(engine, _OwnEngine) or isinstance(engine.pool, NullPool | StaticPool):
        return engine
    kept = vars(engine)  # so that both are collected together
    if _KEY not in kept:
        kept.setdefault(_KEY, _OwnEngine(engine))
    found: _OwnEngine = kept[_KEY]
    return found
