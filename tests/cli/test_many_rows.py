"""How a command prints many rows: each write costs more than a row."""

from __future__ import annotations

import io
import json
import sys

import pytest

from govbudget.cli.formats import print_answer


class Counted(io.RawIOBase):
    """A file that keeps what each write brings."""

    def __init__(self):
        self.writes = []

    def writable(self):
        return True

    def write(self, content):
        self.writes.append(bytes(content))
        return len(content)


def test_many_rows_are_few_writes_and_those_before_an_error_are_printed(monkeypatch):
    def read():
        yield from ({"number": number} for number in range(1200))
        raise LookupError

    file = Counted()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(file, 1 << 20)))
    with pytest.raises(LookupError):
        print_answer("jsonl", read())
    lines = b"".join(file.writes).splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(1200))
    assert len(file.writes) == 3


def test_what_could_not_be_written_is_not_written_again(monkeypatch):
    """A full disk, say: part of it may be there."""
    tries = []

    def fail(text):
        tries.append(text)
        raise OSError

    monkeypatch.setattr("click.echo", fail)
    with pytest.raises(OSError):  # noqa: PT011 - any
        print_answer("jsonl", ({"number": number} for number in range(500)))
    assert len(tries) == 1
