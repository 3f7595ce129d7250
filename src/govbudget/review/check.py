"""`policy check`: every finding of a policy folder, or none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from govbudget.authz.evaluator import ensure_one_casbin, read_table
from govbudget.authz.files import LINES_FILE, MATRIX_FILE, read_policy_files
from govbudget.authz.matrix import HEADER, find_unreviewed
from govbudget.authz.reader import decode, read_rows
from govbudget.authz.table import DecisionTable
from govbudget.errors import Finding, PolicyError
from govbudget.review.meaning import find_broken_invariants, find_idle_lines

# The longest line that is a right has 113 columns.
SCREEN_COLUMNS, SCREEN_LINES = 120, 24


@dataclass(frozen=True, slots=True)
class Review:
    """What came of checking a folder: the findings, and the table (None: the files are refused).

    `starts` says whether `serve` would start with it: the matrix is there, and as decided.
    """

    digest: str | None
    table: DecisionTable | None
    findings: tuple[Finding, ...]
    starts: bool = False


def check_policy(folder: Path, demanded_digest: str | None = None) -> Review:
    """Check a policy folder: the reader, Casbin, what the lines mean, what was reviewed.

    `demanded_digest`, where given, is demanded of the files. Never raises for what the folder
    holds. The table is there even where it differs from the review, so that it can be printed and
    reviewed anew.
    """
    digest = None
    try:
        ensure_one_casbin()
        files = read_policy_files(folder)
        digest = files.digest
        table = read_table(files)
    except PolicyError as error:
        return Review(digest, None, error.findings)
    differing = find_unreviewed(table, files.matrix, required=True)
    meaning = (
        *find_idle_lines(table),
        *find_broken_invariants(table),
        *find_hidden_text(LINES_FILE, files.lines),
        *find_hidden_text(MATRIX_FILE, files.matrix or b""),
    )
    other = files.compare_digest(demanded_digest, folder)
    unpinned = () if files.matrix is None else _list_unpinned(files.matrix, table)
    findings = (*other, *meaning, *differing, *unpinned)
    return Review(digest, table, findings, not differing)


def find_hidden_text(file: str, content: bytes) -> Iterator[Finding]:
    """Find lines that an editor shows in part, or so far off that nobody looks there."""
    sentence = (
        f"can be off the screen: tabs in a row, more than {SCREEN_COLUMNS} columns, or more than "
        f"{SCREEN_LINES} lines without a word above; write it where it is seen"
    )
    blank = 0
    for number, line in enumerate(decode(content, file)[0].split("\n"), start=1):
        has_words = any(map(str.isalnum, line))
        is_below = has_words and blank > SCREEN_LINES
        if is_below or re.search(r"\t *\t", line) or len(line.expandtabs()) > SCREEN_COLUMNS:
            yield Finding(file, number, "hidden-text", sentence)
        blank = 0 if has_words else blank + 1


def _list_unpinned(matrix: bytes, table: DecisionTable) -> Iterator[Finding]:
    """Find roles whose scope no row of the matrix states."""
    rows, _ = read_rows(matrix, MATRIX_FILE)
    pinned = {row[0] for _, row in rows if len(row) == len(HEADER)}
    for role in sorted(set(table.scopes) - pinned):
        sentence = (
            f"no row states the scope of `{role}`, so a change of it would not be noticed; add "
            f"`,{table.scopes[role]}` to its rows"
        )
        yield Finding(MATRIX_FILE, 0, "scope-not-reviewed", sentence)
