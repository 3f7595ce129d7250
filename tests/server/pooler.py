"""A small connection pooler of our own, which lends PostgreSQL's sessions as poolers do.

It stands for no program: it shows what the two ways to lend a session, and the two ways to treat
prepared statements, do to a client. docs/how-to/pgbouncer.md says what was tried with PgBouncer.
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import os
import queue
import secrets
import socket
import struct
import threading
from contextlib import ExitStack, contextmanager, suppress

import psycopg

REPORTED = ("server_version", "server_encoding", "client_encoding", "standard_conforming_strings",
            "DateStyle", "TimeZone", "integer_datetimes")  # fmt: skip


def pack(kind, content=b""):
    return kind + struct.pack("!i", len(content) + 4) + content


class Session:
    """A session of PostgreSQL's, with the statements that it knows."""

    def __init__(self, connection):
        self.socket = socket.socket(fileno=os.dup(connection.fileno()))
        self.socket.setblocking(True)
        self.file = self.socket.makefile("rb")
        self.known = set()


def read(file):
    kind = file.read(1)
    if not kind:
        raise EOFError
    return kind, file.read(struct.unpack("!i", file.read(4))[0] - 4)


class Pooler:
    """Lends `size` sessions: each for a transaction, the last one first, or for the client's life.

    One that follows prepared statements gives each its own name, and makes it where it is missing.
    """

    def __init__(self, url, size, *, lends_transactions, follows):
        self.lends_transactions, self.follows = lends_transactions, follows
        self.connections = [psycopg.connect(url, autocommit=True) for _ in range(size)]
        report = self.connections[0].info.parameter_status
        self.greeting = pack(b"R", bytes(4)) + b"".join(
            pack(b"S", f"{name}\0{report(name)}\0".encode()) for name in REPORTED
        )
        self.sessions = [Session(connection) for connection in self.connections]
        self.idle = queue.LifoQueue()
        for session in self.sessions:
            self.idle.put(session)
        self.names = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        port, info = self.listener.getsockname()[1], self.connections[0].info
        self.url = f"postgresql://{info.user}@127.0.0.1:{port}/{info.dbname}"
        self.answers = threading.Event()
        self.answers.set()
        self.threads = []
        self.start(self.accept)

    def start(self, work, *arguments):
        self.threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self.threads[-1].start()

    def accept(self):
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                # Else each small answer waits 40 ms for the one before to be acknowledged.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.start(self.serve, client)

    def serve(self, client):
        with suppress(EOFError, OSError, struct.error, queue.Empty):
            session, statements = None, {}
            with suppress(EOFError, OSError), client, client.makefile("rb") as file:
                self.greet(client, file)
                while batch := self.read_batch(file):
                    session = session or self.idle.get(timeout=10)
                    status = self.pass_on(client, session, batch, statements)
                    if status == b"I" and self.lends_transactions:
                        self.idle.put(session)
                        session = None
                    client.sendall(pack(b"Z", status))  # whoever reads it finds the session there
            if session is not None:
                self.reset(session)

    def reset(self, session):
        session.socket.sendall(pack(b"Q", b"DISCARD ALL\0"))
        while True:  # behind what a client did not wait for
            kind, content = read(session.file)
            if (kind, content) == (b"C", b"DISCARD ALL\0"):
                break
        assert read(session.file)[0] == b"Z"
        session.known.clear()
        self.idle.put(session)

    def read_batch(self, file):
        """Read up to what the client waits for an answer to; nothing: it says good-bye."""
        batch = [read(file)]
        if batch[0][0] == b"X":
            return None
        while batch[-1][0] not in b"QS":
            batch.append(read(file))
        return batch

    def greet(self, client, file):
        while True:
            (size,) = struct.unpack("!i", file.read(4))
            version = file.read(size - 4)[:4]
            if struct.unpack("!i", version)[0] >> 16 != 1234:  # else it asks for encryption
                break
            client.sendall(b"N")
        client.sendall(self.greeting + pack(b"K", secrets.token_bytes(8)) + pack(b"Z", b"I"))

    def pass_on(self, client, session, batch, statements):  # noqa: C901 - one message after the other
        """Send a batch, and its answer without the end; give the status of the transaction."""
        sent, made, made_before = [], 0, 0
        for kind, content in batch:
            text, is_made = content, False
            if self.follows and kind == b"P" and content[0]:
                name, query = content.split(b"\0", 1)
                own = self.names.setdefault(query, b"POOLER_%d" % len(self.names))
                statements[name] = own, query
                made_before += own in session.known
                is_made = own in session.known
                session.known.add(own)
                text = own + b"\0" + query
            elif self.follows and kind == b"B":
                portal, name, rest = content.split(b"\0", 2)
                if name:
                    own, query = statements[name]
                    if own not in session.known:
                        session.known.add(own)
                        sent.append(pack(b"P", own + b"\0" + query))
                        made += 1
                    text = portal + b"\0" + own + b"\0" + rest
            elif self.follows and kind == b"D" and content[:1] == b"S" and content[1:-1]:
                text = b"S" + statements[content[1:-1]][0] + b"\0"
            if not is_made:
                sent.append(pack(kind, text))
        session.socket.sendall(b"".join(sent))
        client.sendall(pack(b"1") * made_before)
        while True:
            self.answers.wait(10)
            kind, content = read(session.file)
            if kind == b"1" and made:
                made -= 1
                continue
            if kind == b"Z":
                return content
            client.sendall(pack(kind, content))

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)
        for session, connection in zip(self.sessions, self.connections, strict=True):
            session.file.close()
            session.socket.close()
            connection.close()


@contextmanager
def pooling(url, size=2, **options):
    """Run a pooler over the database of a URL (of libpq's); it has a `url` of its own."""
    with ExitStack() as stack:
        pooler = Pooler(url, size, **options)
        stack.callback(pooler.close)
        yield pooler
