"""Closes a month in a process that ends at a given point: before or after any statement or write.

    python -m tests.spend.close_and_die URL FILE POINT

Without a point that far, it ends well, and prints how many there were.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import sqlalchemy as sa
from tests.support import make_gov

from govbudget.spend import closing

NOW = datetime(2026, 4, 20, 12, tzinfo=UTC)


def main():
    url, path, point = sys.argv[1:]
    passed = 0

    def step(*_):
        nonlocal passed
        if passed == int(point):
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def around(act):
        def acted(*arguments):
            step()
            result = act(*arguments)
            step()
            return result

        return acted

    engine = sa.create_engine(url, poolclass=sa.NullPool)
    for event in ("before_cursor_execute", "after_cursor_execute", "commit"):
        sa.event.listen(engine, event, step)
    os.fsync, Path.replace = around(os.fsync), around(Path.replace)
    closing.BATCH = 2
    done = closing.close_month(
        make_gov(engine=engine, clock=lambda: NOW), date(2026, 1, 1), Path(path), 60
    )
    sys.stdout.write(f"{passed} {done.sha256}")


if __name__ == "__main__":
    main()
