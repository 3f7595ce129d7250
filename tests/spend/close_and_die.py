"""Closes months in processes that end at a given point: before a statement, around a write.

    python -m tests.spend.close_and_die

Each line of standard input is a URL, a file and a point. It forks a child for each, so that
importing is paid once, and prints how that one ended: -9 where it was killed, and where there is no
point that far 0, after how many there were.
"""

from __future__ import annotations

import os
import signal
from datetime import UTC, date, datetime
from pathlib import Path

import sqlalchemy as sa
from tests.forking import fork_for_each_line
from tests.support import make_gov

from govbudget.spend import closing

NOW = datetime(2026, 4, 20, 12, tzinfo=UTC)


def close(url, path, point):
    """Close January, unless a point is reached; give how many there were."""
    passed = 0

    def step(*_):
        nonlocal passed
        if passed == point:
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
    # After a statement is before the next one, the commit or a write.
    for event in ("before_cursor_execute", "commit"):
        sa.event.listen(engine, event, step)
    os.fsync, Path.replace = around(os.fsync), around(Path.replace)
    closing.BATCH = 2
    closing.close_month(
        make_gov(engine=engine, clock=lambda: NOW), date(2026, 1, 1), Path(path), 60
    )
    return passed


def main():
    make_gov()  # so that its policy, directory and driver are loaded once
    sa.create_engine("postgresql+psycopg://")

    def life(line):
        url, path, point = line.split()
        os.write(1, b"%d " % close(url, path, int(point)))

    fork_for_each_line(life)


if __name__ == "__main__":
    main()
