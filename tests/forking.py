"""Processes that import once, and then fork one for each line that they are sent."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

PATIENCE_SECONDS = 540


@contextmanager
def start_forker(module):
    """Run a module that calls `fork_for_each_line`; it ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=Path(__file__).parents[1],
    ) as process:
        yield process


def fork_for_each_line(life):
    """Live once for each line of standard input, in a child; print how each ended, as one line."""
    gc.freeze()  # else each life would look through all that it was forked with, and copy it
    for line in sys.stdin:
        _, status = os.waitpid(fork(life, line), 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


def fork(life, *arguments):
    """Live in a child, for so long as the patience lasts; give its id."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE_SECONDS)
        try:
            life(*arguments)
        except BaseException:  # noqa: BLE001 - a child never returns into its parent's code
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return pid
