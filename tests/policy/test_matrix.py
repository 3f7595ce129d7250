"""The reviewed decisions: matrix.csv agrees with the table, cell by cell, or refuses it."""

from __future__ import annotations

import pytest
from tests.policy.helpers import (
    LINES,
    MATRIX,
    MORE,
    answer,
    find,
    hold,
    list_findings,
    load,
    load_unreviewed,
)

from govbudget import Group, Organization, PolicyError
from govbudget.authz.matrix import compare_with_matrix, write_matrix
from govbudget.identity import ObjectType

HEADER = b"role,object,action,decision,scope\n"
MEMBER_READS = b"group-member,group,read,allow,group"
MEMBER_UPDATES = b"group-member,group,update,deny,group"


def number_of(row):
    return MATRIX.split(b"\n").index(row) + 1


def swap(row, old, new):
    """The shipped matrix with something else in one row."""
    assert row.count(old) == 1
    return MATRIX.replace(row, row.replace(old, new))


def review(policy, content):
    return list_findings(PolicyError(compare_with_matrix(policy.table, content)))


REFUSED = {
    "empty": (b"", [(0, "matrix-row")]),
    "only comments": (b"# nothing yet\n", [(0, "matrix-row")]),
    "html": (b"<html>\n", [(1, "matrix-row")]),
    "no header": (MATRIX.removeprefix(HEADER), [(1, "matrix-row")]),
    "other header": (MATRIX.replace(b"decision", b"effect"), [(1, "matrix-row")]),
    "quoted header": (MATRIX.replace(b"role,", b'"role",', 1), [(1, "matrix-row")]),
    "byte order mark": (b"\xef\xbb\xbf" + MATRIX, [(1, "byte-order-mark")]),
    "merge conflict": (MATRIX.replace(MEMBER_READS, b"<<<<<<< HEAD"), None),
    "semicolons": (swap(MEMBER_READS, b"group-member,group,", b"group-member;group;"), None),
    "too few fields": (swap(MEMBER_READS, b",allow,group", b""), None),
    "too many fields": (swap(MEMBER_READS, b"allow,", b"allow,allow,"), None),
    "unknown role": (swap(MEMBER_READS, b"-member", b"-members"), None),
    "quoted role": (swap(MEMBER_READS, b"group-member", b'"group-member"'), None),
    "unknown object": (swap(MEMBER_READS, b",group,", b",groups,"), None),
    "unknown action": (swap(MEMBER_READS, b"read", b"write"), None),
    "unknown decision": (swap(MEMBER_READS, b"allow", b"yes"), None),
    "capitalised decision": (swap(MEMBER_READS, b"allow", b"Allow"), None),
    "empty decision": (swap(MEMBER_READS, b"allow", b""), None),
    "unknown scope": (swap(MEMBER_READS, b"allow,group", b"allow,team"), None),
    "comment after a row": (swap(MEMBER_READS, b"allow,group", b"allow,group # all"), None),
}


def test_a_matrix_that_is_no_matrix_is_refused(policy):
    for name, (content, expected) in REFUSED.items():
        wanted = expected or [(number_of(MEMBER_READS), "matrix-row")]
        assert review(policy, content) == [("matrix.csv", *finding) for finding in wanted], name


def test_strange_characters_are_refused_and_hide_no_other_defect(policy):
    content = swap(MEMBER_READS, b"allow", "\u0430llow".encode())
    content += b"owner,group\n"
    assert review(policy, content) == [
        ("matrix.csv", number_of(MEMBER_READS), "not-ascii"),
        ("matrix.csv", MATRIX.count(b"\n") + 1, "matrix-row"),
    ]


def test_a_cell_may_stand_once_only(policy):
    assert review(policy, MATRIX + MEMBER_READS + b"\n") == [
        ("matrix.csv", MATRIX.count(b"\n") + 1, "matrix-row")
    ]


@pytest.mark.parametrize(
    ("row", "decided", "reviewed"),
    [
        (MEMBER_READS, b"allow", b"deny"),
        (MEMBER_READS, b"allow", b"forbid"),
        (MEMBER_UPDATES, b"deny", b"allow"),
        (MEMBER_UPDATES, b"deny", b"forbid"),
        (MEMBER_READS, b"allow,group", b"allow,organization"),
        (MEMBER_UPDATES, b"deny,group", b"deny,site"),
    ],
)
def test_a_decision_or_scope_that_was_reviewed_otherwise_is_refused(policy, row, decided, reviewed):
    content = swap(row, decided, reviewed)
    assert review(policy, content) == [("matrix.csv", number_of(row), "matrix-differs")]


def test_a_matrix_without_the_scopes_reviews_the_decisions(policy):
    content = b"".join(row.rpartition(b",")[0] + b"\n" for row in MATRIX.splitlines())
    assert compare_with_matrix(policy.table, content) == []
    differs = content.replace(b"group-member,group,read,allow", b"group-member,group,read,deny")
    assert [finding.line for finding in compare_with_matrix(policy.table, differs)] == [
        number_of(MEMBER_READS)
    ]


def test_an_allow_that_nobody_reviewed_is_refused():
    content = MATRIX.replace(MEMBER_READS + b"\n", b"")
    assert find(matrix=content) == [("matrix.csv", 0, "matrix-differs")]


def test_a_deny_that_is_not_listed_counts_as_reviewed(policy):
    allowed = b"".join(
        row + b"\n" for row in MATRIX.split(b"\n") if b",decision" in row or b",allow," in row
    )
    assert compare_with_matrix(policy.table, allowed) == []


def test_a_deny_line_must_be_reviewed_as_forbid():
    forbidden = write_matrix(load(lines=MORE).table).encode()
    row = MEMBER_UPDATES.replace(b"deny", b"forbid")
    number = forbidden.split(b"\n").index(row) + 1
    assert find(lines=MORE, matrix=forbidden.replace(row, MEMBER_UPDATES)) == [
        ("matrix.csv", number, "matrix-differs")
    ]
    decision = load(lines=MORE, matrix=forbidden).decide({"group-member"}, "group", "update")
    assert not decision.allowed


def test_every_difference_is_reported_at_once(policy):
    content = MATRIX.replace(b",allow,group", b",allow,site").replace(b",allow,o", b",deny,o")
    findings = review(policy, content)
    assert len(findings) == MATRIX.count(b",allow,group") + MATRIX.count(b",allow,organization")
    assert len(findings) > 1
    assert findings == sorted(findings)


def test_a_difference_names_the_deciding_lines(policy):
    (finding,) = compare_with_matrix(policy.table, swap(MEMBER_READS, b"allow", b"deny"))
    assert "group-member, group, read: the review says `deny`" in finding.sentence
    assert "policy.csv:27" in finding.sentence


def test_spacing_comments_order_and_line_ends_mean_nothing(policy):
    header, *rows = MATRIX.strip().split(b"\n")
    content = b"\r\n".join(
        [b"# reviewed", b"", header, *(row.replace(b",", b" ,\t") for row in reversed(rows))]
    )
    assert compare_with_matrix(policy.table, content) == []


OWNER = b"p, owner, site, group, update, allow\n"
OF_ITS_OWN = b"p, budget-admin, organization, group_ai_budget, update, allow\n"


def test_one_line_about_budgets_makes_a_policy_that_nobody_reviewed_unusable():
    """One stray line would change what every budget is decided as: most people are locked out."""
    assert find(lines=OWNER + OF_ITS_OWN) == [("matrix.csv", 0, "not-reviewed")]
    reviewed = HEADER + b"owner,group,update,allow,site\n"
    assert find(lines=OWNER + OF_ITS_OWN, matrix=reviewed) == [("matrix.csv", 0, "matrix-differs")]
    denied = OF_ITS_OWN.replace(b"allow", b"deny")
    assert find(lines=denied) == [("matrix.csv", 0, "not-reviewed")]


def test_with_its_reviewed_decisions_it_loads_and_decides_about_budgets_by_it():
    reviewed = write_matrix(load_unreviewed(OWNER + OF_ITS_OWN).table).encode()
    policy = load(lines=OWNER + OF_ITS_OWN, matrix=reviewed)
    budget_admin = hold(("budget-admin", "organization", "a"))
    owner, group = hold(("owner", "site")), Group("a1", "a")
    assert answer(policy, budget_admin, "update", group) == "allowed"
    assert answer(policy, budget_admin, "update", Organization("a")) == "allowed"
    assert answer(policy, owner, "update", group) == "forbidden"  # who still runs the group
    assert answer(policy, owner, "update", Organization("a")) == "forbidden"


def test_a_policy_that_decides_about_budgets_as_their_groups_needs_no_matrix():
    assert load(lines=LINES, matrix=None).table.budget_object is ObjectType.GROUP


def test_the_shipped_matrix_is_what_the_table_writes(policy):
    assert write_matrix(policy.table).encode() == MATRIX
