"""The command in processes that are forked from one that has imported all of it.

A fresh Python takes half a second to import what `serve` is made of. Run as a module this is the
process that forks: each message on the socket that it is given names one to make.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

LONGEST = 2**20
NUMBER = struct.Struct("!i")


class Forked:
    """`govbudget ARGUMENTS` in a session of its own, with what a `subprocess.Popen` has.

    Or `python -c SCRIPT`.
    """

    def __init__(self, arguments, environment):
        pipes = [os.pipe() for _ in range(3)]
        ours, theirs = zip(*pipes, strict=True)
        request = json.dumps([arguments, environment]).encode()
        socket.send_fds(_open_channel(), [request], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        self.args, self.returncode = arguments, None
        self.stdout, self.stderr = (os.fdopen(descriptor) for descriptor in ours[:2])
        self._keeper = os.fdopen(ours[2], "rb", buffering=0)
        self.pid = self._read_number()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.wait()
        self.stdout.close()
        self.stderr.close()

    def _read_number(self):
        return NUMBER.unpack(self._keeper.read(NUMBER.size))[0]

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._keeper], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = os.waitstatus_to_exitcode(self._read_number())
            self._keeper.close()
        return self.returncode

    def poll(self):
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


@cache
def _open_channel():
    """Start the process that forks; it ends with its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.server.forks", str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    theirs.close()

    def end():
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def fork_all(channel):
    """Fork for each message; give the arguments, in the new process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the keepers are nobody's concern
    while True:
        request, descriptors, *_ = socket.recv_fds(channel, LONGEST, 3)
        if not request:
            os._exit(0)
        if not os.fork():
            break
        for descriptor in descriptors:
            os.close(descriptor)
    channel.close()
    out, err, keeper = descriptors
    arguments, environment = json.loads(request)
    _keep(keeper, out, err)
    os.setsid()
    for descriptor, known in ((out, 1), (err, 2)):
        os.dup2(descriptor, known)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # of another environment
    return arguments


def _keep(keeper, *others):
    """Go on in a process of one's own; what waits for it says its number, and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    number = os.fork()
    if not number:
        os.close(keeper)
        return
    for descriptor in others:
        os.close(descriptor)
    os.write(keeper, NUMBER.pack(number))
    os.write(keeper, NUMBER.pack(os.waitpid(number, 0)[1]))
    os._exit(0)


if __name__ == "__main__":
    import gunicorn.workers.gthread  # noqa: F401 - imported to be there

    import govbudget.server.demo
    import govbudget.server.workers  # noqa: F401
    from govbudget.cli import main

    found = fork_all(socket.socket(fileno=int(sys.argv[1])))
    if found[0] == "-c":
        exec(found[1])
    else:
        sys.argv = ["govbudget", *found]
        main(found)
