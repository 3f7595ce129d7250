"""Whatever the files hold, `check` ends in findings or in a policy, soon, and no edit hides."""

from __future__ import annotations

import random
import re
import time
from functools import cache

import casbin
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.review.helpers import FILES, FOLDERS, MODEL, both_policies, read_cells
from tests.review.oracle import decide_all, read_rows
from tests.support import measure_slowness

from govbudget.authz.evaluator import build_table
from govbudget.authz.files import MAX_FILE_BYTES, PolicyFiles, read_policy_files
from govbudget.authz.matrix import compare_with_matrix, write_matrix
from govbudget.authz.reader import MAX_LINES, read_policy
from govbudget.review.check import check_policy
from govbudget.review.diff import diff_tables

pytestmark = pytest.mark.slow

SECONDS = 1
ABOUT_A_SECOND = 3  # of a busy machine

SHIPPED = {name: read_policy_files(folder) for name, folder in FOLDERS.items()}


@pytest.fixture(autouse=True)
def _asked_each_time(casbin):
    """How long a check takes is measured here."""


def check_bytes(folder, contents):
    """Check a folder of these bytes; give the review and the CPU seconds that it took."""
    folder.mkdir(exist_ok=True)
    for name, content in zip(FILES, contents, strict=True):
        (folder / name).write_bytes(content)
    seconds = float("inf")
    for _ in range(3):  # its own time is the shortest: the machine may stand still, and collect
        start = time.process_time()
        review = check_policy(folder)
        seconds = min(seconds, time.process_time() - start)
        if seconds < SECONDS:
            break
        seconds /= measure_slowness()
    assert review.findings or review.table is not None
    for finding in review.findings:
        assert str(finding).isascii()
        assert str(finding).replace("\t", " ").isprintable()
    return review, seconds


# -- fuzz --

WORDS = st.sampled_from(
    [
        *b"p g e m r owner org-admin site group read update allow deny matrix [matchers]".split(),
        *(bytes([code]) for code in b', \n#=|\t"\\\0'),
        *(b"\r\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc2\xa0", b"\xd0\xb0"),
        b"p, owner, site, group, read, allow\n",
    ]
)
NOISE = st.one_of(st.binary(max_size=200), st.lists(WORDS, max_size=40).map(b"".join))


@st.composite
def damaged(draw, content):
    """A real file with a part of it replaced, doubled or taken out."""
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 60)))
    part = draw(st.one_of(NOISE, st.just(content[start:end] * 2), st.just(b"")))
    return content[:start] + part + content[end:]


@st.composite
def folders(draw):
    files = SHIPPED[draw(st.sampled_from(sorted(SHIPPED)))]
    contents = [files.model, files.lines, files.matrix]
    for index in draw(st.sets(st.integers(0, 2), min_size=1)):
        contents[index] = draw(st.one_of(NOISE, damaged(contents[index])))
    return contents


fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(folders())
@fuzz
def test_any_bytes_end_in_findings_or_a_policy_within_a_second(tmp_path, contents):
    _, seconds = check_bytes(tmp_path / "fuzzed", contents)
    assert seconds < SECONDS


@pytest.mark.long
@given(folders())
@settings(fuzz, max_examples=200)
def test_any_bytes_end_in_findings_or_a_policy_within_a_second_many_times(tmp_path, contents):
    _, seconds = check_bytes(tmp_path / "fuzzed", contents)
    assert seconds < SECONDS


def fill(part, size=MAX_FILE_BYTES):
    """As many whole copies of a part as fit."""
    return part * (size // len(part))


ROLES = [b"role-%d" % n for n in range(64)]
LARGEST = b"".join(
    b"p, %s, organization, %s, %s, %s\n" % (role, obj, action, effect)
    for effect in (b"allow", b"deny")
    for role in ROLES
    for obj in (b"group", b"group_ai_budget", b"ai_model_price")
    for action in (b"read", b"update")
)

HUGE = {
    "newlines": fill(b"\n"),
    "commas": fill(b","),
    "comments": fill(b"#\n"),
    "junk lines": fill(b"x\n"),
    "the same line": fill(b"p, owner, site, group, read, allow\n"),
    "the model": fill(MODEL),
    "long lines": fill(b"p, " + b"raed" * 80 + b"\n"),
    "different misspelt words": b"".join(
        b"p, owner, site%d, group%d, read%d, deny%d\n" % (n, n, n, n) for n in range(MAX_LINES)
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("content", HUGE.values(), ids=HUGE)
def test_the_largest_files_of_junk_end_in_findings_soon(tmp_path, content):
    review, seconds = check_bytes(tmp_path / "huge", (content, content, b""))
    assert review.table is None
    assert {finding.file for finding in review.findings} >= {"model.conf"}
    assert seconds < ABOUT_A_SECOND


def test_a_matrix_of_junk_ends_in_findings_soon(tmp_path):
    for name in ("commas", "junk lines", "different misspelt words"):
        content = HUGE[name]
        review, seconds = check_bytes(tmp_path / "huge", (MODEL, SHIPPED["shipped"].lines, content))
        assert {finding.file for finding in review.findings} == {"matrix.csv"}
        assert seconds < ABOUT_A_SECOND


@pytest.mark.long
def test_the_largest_policy_that_can_be_is_checked_soon(tmp_path):
    """64 roles and every line there is, and again, in a file of as many lines as may be."""
    lines = (LARGEST * 3 + b"# the rest\n" * MAX_LINES).split(b"\n")[:MAX_LINES]
    review, seconds = check_bytes(tmp_path / "largest", (MODEL, b"\n".join(lines), b""))
    assert len(review.table.lines) == 3 * 64 * 12
    assert len(review.table.scopes) == 64
    assert seconds < ABOUT_A_SECOND
    assert compare_with_matrix(review.table, write_matrix(review.table).encode()) == []


@pytest.mark.slow
def test_two_thousand_lines_can_be_had(tmp_path):
    lines = b"p, owner, site, group, read, allow\n" * 2000
    review, _ = check_bytes(tmp_path / "long", (MODEL, lines, b""))
    assert len(review.table.lines) == 2000


# -- every edit of one character --

HOSTILE = [
    *(bytes([code]) for code in b'\x00\t\n\x0b\r\x1b "#&(),-.;=[\\|0AEaegpsuw\x7f\xff'),
    *(char.encode() for char in "\u00a0\u200b\ufeff\u0430\u2028"),
]


def list_edits(content):
    """Every deletion, insertion and substitution of one character, each result once or more."""
    for place in range(len(content) + 1):
        before, after = content[:place], content[place:]
        if after:
            yield before + after[1:]
        for char in HOSTILE:
            yield before + char + after
            if after:
                yield before + char + after[1:]


class Original:
    """A shipped policy, and what every edit of it is compared with."""

    def __init__(self, name, *, compare=True):
        self.files, self.compare = SHIPPED[name], compare
        self.lines, _ = read_policy(self.files)
        self.table = build_table(self.files, self.lines)
        self.decisions = decide_all(read_rows(self.files.lines.decode()))
        self.known = {}  # what each reading of the lines comes to
        self.passed = self.changed = 0

    def judge(self, lines_bytes):
        """An edit of policy.csv is found, or changes nothing, or shows as exactly what it does."""
        files = PolicyFiles(MODEL, lines_bytes, self.files.matrix)
        lines, findings = read_policy(files)
        if findings:
            return
        self.passed += 1
        parsed = tuple(tuple(line.fields) for line in lines)
        if parsed not in self.known:
            table = build_table(files, lines, compare=self.compare)
            shown = {
                (str(c.role), str(c.scope), str(c.object), str(c.action)): (c.before, c.after)
                for c in diff_tables(self.table, table)
            }
            reviewed = compare_with_matrix(table, self.files.matrix) == []
            self.known[parsed] = (read_cells(table), shown, reviewed)
        cells, shown, reviewed = self.known[parsed]
        decisions = decide(tuple(read_rows(lines_bytes.decode("ascii").replace("\r\n", "\n"))))
        assert cells == decisions, lines_bytes
        assert shown == find_changes(self.decisions, decisions), lines_bytes
        assert reviewed is (decisions == self.decisions), lines_bytes
        self.changed += decisions != self.decisions


@cache
def decide(rows):
    return decide_all(rows)


def find_changes(old, new):
    """The cells that differ between two answers of the oracle; a role that is not there: deny.

    A deny line that comes or goes counts where some role is allowed the same beside it.
    """

    def look_up(decisions, role, scope, right):
        cells, scopes = decisions
        return cells[role, *right] if scopes.get(role) == scope else "deny"

    held = {*old[1].items(), *new[1].items()}
    rights = {cell[1:] for cell in old[0]}
    pairs = {
        (role, scope, *right): tuple(look_up(side, role, scope, right) for side in (old, new))
        for role, scope in held
        for right in rights
    }

    def counts(cell, pair):
        if set(pair) != {"deny", "forbid"}:
            return pair[0] != pair[1]
        cells, scopes = new if pair[1] == "deny" else old
        return "allow" in {cells[role, *cell[2:]] for role in scopes}

    return {cell: pair for cell, pair in pairs.items() if counts(cell, pair)}


ONE_LINE = b"p, owner, site, group, read, allow\n"


@cache
def read_as_casbin(model_text):
    """What stock Casbin makes of a model: spaces count in quotes only."""
    model = casbin.Enforcer.new_model(text=model_text)
    return {
        (section, key): re.sub(r'("[^"]*")|\s+', r"\1", ast.value)
        for section, keys in model.model.items()
        for key, ast in keys.items()
    }


def judge_model(content):
    """An edit of model.conf is found, or is the same model to the reader and to stock Casbin."""
    (line,), findings = read_policy(PolicyFiles(content, ONE_LINE, None))
    assert f"{line.text}\n".encode() == ONE_LINE
    if findings:
        assert {finding.file for finding in findings} == {"model.conf"}
        return False
    text = "\n".join(
        line
        for line in content.decode("ascii").replace("\r\n", "\n").split("\n")
        if line.strip() and not line.strip().startswith("#")
    )
    assert read_as_casbin(text) == read_as_casbin(MODEL.decode()), content
    return True


def sample(content, count, seed):
    """Some of the edits: a sample that is the same in every run, so that a failure stays one."""
    edits = list(list_edits(content))
    return random.Random(seed).sample(edits, count)


@pytest.mark.slow
@both_policies
def test_some_edits_of_one_character_are_found_or_show(shipped):
    name = next(name for name, folder in FOLDERS.items() if folder == shipped)
    original = Original(name)
    for edited in sample(original.files.lines, 300, name):
        original.judge(edited)
    assert original.passed
    assert original.changed


def test_some_edits_of_one_character_of_the_model_are_found_or_spacing():
    accepted = sum(judge_model(edited) for edited in sample(MODEL, 300, "model"))
    assert 0 < accepted < 300


def test_the_policies_share_one_model():
    assert SHIPPED["dedicated"].model == SHIPPED["shipped"].model == MODEL


def test_a_space_in_the_name_of_a_section_is_found():
    """Stock Casbin would take it for another section, and the one meant for missing."""
    edited = MODEL.replace(b"[request_definition]", b"[request_definition ]")
    assert judge_model(edited) is False
