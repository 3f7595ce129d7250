"""Edits of the shipped files of one character or one line are refused, are nothing, or show.

At each place of the lines each hostile character is tried, of the other files each third one, and a
part of the others: each of these is tried at each thirtieth place, and two that are neighbours are
tried at different places. Each is inserted at every second place, and stands for what is there at
the others.
"""

from __future__ import annotations

import string
import sys
from functools import cache, lru_cache, partial
from itertools import combinations, count as count_up

import pytest
from tests.review.helpers import MODEL
from tests.review.oracle import decide_all, read_rows
from tests.review.test_bytes import HOSTILE, SHIPPED, Original, decide, judge_model

from govbudget.authz import evaluator, matrix, reader
from govbudget.authz.files import PolicyFiles
from govbudget.authz.matrix import compare_with_matrix, read_matrix
from govbudget.authz.reader import read_policy

FILES = SHIPPED["shipped"]
SHOWN = 5  # of so many edits that name a new role, one is judged as a whole
PRINTABLE = [char for char in (c.encode() for c in string.printable) if char not in HOSTILE]


@pytest.fixture(autouse=True)
def _without_sentences(monkeypatch):
    """Only whether there is a finding is asked here: no name is looked for that may be meant.

    And the model, where it stays, is compared once, and Casbin asked once about each line alone;
    it is started where it is asked. (The tests of test_bytes are without these short cuts.)
    """
    for module in (matrix, reader):
        monkeypatch.setattr(module, "suggest", lambda *_: "")
    compare = lru_cache(maxsize=1)(reader.compare_with_pinned_model)
    monkeypatch.setattr(reader, "compare_with_pinned_model", compare)
    find, start, matches = evaluator._find_matching, evaluator._Evaluator, {}

    def find_matching(asked, lines):
        for line in lines:
            if line.text not in matches:
                matches[line.text] = bool(find(asked, (line,)))
        return [line for line in lines if matches[line.text]]

    class WhenAsked:
        def __init__(self, lines):
            self.start = cache(partial(start, lines))

        def list_allowed(self, *asked):
            return self.start().list_allowed(*asked)

    monkeypatch.setattr(evaluator, "_Evaluator", WhenAsked)
    monkeypatch.setattr(evaluator, "_find_matching", find_matching)


def try_most(place):
    return (b"", *HOSTILE, *PRINTABLE[place % 30 :: 30])


def try_some(place):
    return (b"", *HOSTILE[place % 3 :: 3])


def list_edits(content, characters=try_most):
    """Deletions, insertions and substitutions of one character, with the lines around it.

    Gives the whole, and the part: the lines that differ, as they are now and as they were.
    """
    for place in range(len(content) + 1):
        start = content.rfind(b"\n", 0, place) + 1
        end = content.find(b"\n", place + 1)
        rest = b"" if end < 0 else content[end:]
        for char in characters(place):
            afters = {content[place:], content[place + 1 :]}
            if char in PRINTABLE:
                afters = {content[place + (place + char[0]) % 2 :]}
            for after in afters:
                edited = content[:place] + char + after
                if edited != content:
                    part = edited[start : len(edited) - len(rest)]
                    yield edited, part, content[start : len(content) - len(rest)]


def list_line_edits(content):
    """Each line removed, each said twice, each two swapped."""
    lines = content.splitlines(keepends=True)
    for index in range(len(lines)):
        yield b"".join(lines[:index] + lines[index + 1 :])
        yield b"".join(lines[: index + 1] + lines[index:])
    for one, other in combinations(range(len(lines)), 2):
        swapped = list(lines)
        swapped[one], swapped[other] = lines[other], lines[one]
        yield b"".join(swapped)


@pytest.fixture
def count(capfd):
    """Run a judge over edits, and print how many there were."""

    def count(name, edits, judge):
        number = 0
        for edit in edits:
            judge(edit)
            number += 1
        with capfd.disabled():
            sys.stdout.write(f"\n{name}: {number:,} edits\n")
        assert number > 100

    return count


def read_part(part):
    """The findings of some lines, and what reader and oracle make of them."""
    lines, findings = read_policy(PolicyFiles(MODEL, part, None))
    found = {finding.code for finding in findings} - {"no-lines"}
    if found:
        return [found]
    rows = read_rows(part.decode("ascii").replace("\r\n", "\n"))
    return [found, [line.fields for line in lines], rows]


@pytest.mark.long
@pytest.mark.parametrize(("name", "characters"), [("shipped", try_most), ("dedicated", try_some)])
def test_each_edit_of_a_character_of_the_lines_is_refused_or_shows(count, name, characters):
    original, read_before = Original(name, compare=False), cache(read_part)
    names, renamed = original.table.scopes.keys(), count_up()

    def judge(edit):
        edited, part, before = edit
        found, *reading = read_part(part)
        # What is wrong with a line alone is wrong with it in the file, and a line that reads as
        # before, by the reader and by the oracle, changes nothing.
        if found or reading == read_before(before)[1:]:
            return
        fields, rows = reading
        assert fields == [list(row) for row in rows], edited
        # A new name is read as the oracle reads it: of these thousands, some show what that does.
        is_new = any(role not in names for role, *_ in fields)
        if is_new and next(renamed) % SHOWN:
            return
        original.judge(edited)
        if len(original.known) > 500:
            original.known.clear()
            decide.cache_clear()

    count("policy.csv, characters", list_edits(original.files.lines, characters), judge)
    assert original.changed > 100


@pytest.mark.long
def test_what_is_wrong_with_a_line_alone_is_wrong_with_it_in_the_file():
    """On a part of the edits, the short cut of the test above."""
    before = read_policy(FILES)[0]
    for edited, part, was in list(list_edits(FILES.lines))[::199]:
        lines, findings = read_policy(PolicyFiles(MODEL, edited, None))
        found, *reading = read_part(part)
        assert bool(found) is bool(findings)
        if not found and reading == read_part(was)[1:]:
            assert [line.fields for line in lines] == [line.fields for line in before]


@pytest.mark.long
def test_each_edit_of_a_character_of_the_model_is_refused_or_spacing(count):
    edits = (edited for edited, *_ in list_edits(MODEL, try_some))
    count("model.conf, characters", edits, judge_model)


def make_matrix_judge():
    table, (header, _) = Original("shipped").table, FILES.matrix.split(b"\n", 1)
    cells, scopes = decide_all(read_rows(FILES.lines.decode()))

    def judge(edit):
        """An edit of matrix.csv is refused, or says of every cell what is decided."""
        edited, part, _ = edit
        is_row = edited.startswith(header + b"\n") and not part.startswith(header)
        if is_row and read_matrix(table, header + b"\n" + part)[1]:
            return
        if compare_with_matrix(table, edited):
            return
        text = edited.decode("ascii").replace("\r\n", "\n")
        rows = [[f.strip() for f in line.split(",")] for line in text.split("\n") if line.strip()]
        reviewed = {tuple(row[:3]): row[3:] for row in rows if not row[0].startswith("#")}
        assert list(reviewed.pop(("role", "object", "action")))[:1] == ["decision"]
        assert reviewed.keys() <= cells.keys()
        for cell, decided in cells.items():
            said, *scope = reviewed.get(cell, ["deny"])
            assert said == decided, edited
            assert scope in ([], [scopes[cell[0]]]), edited

    return judge


@pytest.mark.long
def test_each_edit_of_a_character_of_the_matrix_is_refused_or_says_what_is_decided(count):
    count("matrix.csv, characters", list_edits(FILES.matrix, try_some), make_matrix_judge())


@pytest.mark.slow
def test_each_line_removed_said_twice_or_swapped_is_refused_or_shows(count):
    original, judge_matrix = Original("shipped", compare=False), make_matrix_judge()
    count("policy.csv, lines", list_line_edits(FILES.lines), original.judge)
    assert original.changed == 16  # the rights, each removed
    count("model.conf, lines", list_line_edits(MODEL), judge_model)
    count("matrix.csv, lines", ((e, e, e) for e in list_line_edits(FILES.matrix)), judge_matrix)
