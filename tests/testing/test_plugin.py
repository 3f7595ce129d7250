"""The plugin for pytest: a test for every decision of a `matrix.csv`, in an inner run of pytest."""

from __future__ import annotations

import pytest
from tests.review.helpers import FOLDERS, append, both_policies, copy_policy
from tests.review.oracle import decide_all, read_rows

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

UPDATE = "p, org-admin, organization, group, update, allow"


@pytest.fixture
def policy(pytester):
    return copy_policy(FOLDERS["shipped"], pytester.path / "policy")


@pytest.fixture
def run(pytester):
    """Run the inner pytest with the plugin; warnings are errors only where the test says so."""

    def run(*arguments):
        plain = ("-p", "no:cacheprovider", "-p", "no:schemathesis", "-W", "default")
        return pytester.runpytest_inprocess(*plain, "-p", "govbudget.testing.plugin", *arguments)

    return run


@both_policies
def test_every_row_of_a_shipped_matrix_is_a_test_with_a_readable_id(shipped, pytester, run):
    policy = copy_policy(shipped, pytester.path / "policy")
    _, *rows = (policy / "matrix.csv").read_text().splitlines()
    result = run("-v", "-W", "error", "policy")
    result.assert_outcomes(passed=len(rows))
    expected = [f"policy/matrix.csv::{'-'.join(row.split(',')[:4])} PASSED*" for row in rows]
    result.stdout.fnmatch_lines(expected)
    result.stdout.fnmatch_lines(["policy/matrix.csv::org-admin-group-update-allow PASSED*"])


def test_a_decision_that_is_not_as_reviewed_fails_with_the_line_that_decides(policy, run):
    text = (policy / "matrix.csv").read_text()
    row = "org-admin,group,update,allow,organization"
    (policy / "matrix.csv").write_text(text.replace(row, row.replace("allow", "deny")))
    number = (policy / "policy.csv").read_text().splitlines().index(UPDATE) + 1
    result = run("policy/matrix.csv")
    passed = len(text.splitlines()) - 2
    result.assert_outcomes(failed=1, passed=passed)
    at = text.splitlines().index(row) + 1
    result.stdout.fnmatch_lines(
        [
            f"matrix.csv:{at}: matrix-differs: org-admin, group, update: the review says `deny`,*",
            f"policy.csv:{number}: {UPDATE}",
            "FAILED policy/matrix.csv::org-admin-group-update-deny*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_role_that_is_held_elsewhere_fails_in_each_of_its_rows(policy, run):
    lines = (policy / "policy.csv").read_text()
    (policy / "policy.csv").write_text(lines.replace("gateway, site, ai_usage", "gateway, user, x"))
    (policy / "policy.csv").write_text(
        lines.replace("user-admin, organization", "user-admin, site")
    )
    rows = [r for r in (policy / "matrix.csv").read_text().splitlines() if "user-admin" in r]
    result = run("policy", "-q")
    assert result.parseoutcomes()["failed"] == len(rows)
    result.stdout.fnmatch_lines(["*user-admin: the review says held in scope `organization`,*"])


def test_what_is_asked_for_and_has_no_row_is_named_and_tested_as_deny(policy, run):
    allowed = [r for r in (policy / "matrix.csv").read_text().splitlines() if ",deny," not in r]
    (policy / "matrix.csv").write_text("\n".join(allowed) + "\n")
    result = run("policy")
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed", "warnings"}
    missing = outcomes["passed"] - (len(allowed) - 1)
    said = f"{missing} of {outcomes['passed']} decisions that are asked for have no row"
    result.stdout.fnmatch_lines([f"*MatrixWarning: {said}: *, group-member-group-update, *"])
    assert run("policy", "-W", "error").ret != 0
    append(policy / "policy.csv", "p, group-member, group, group, update, allow\n")
    result = run("policy", "-v")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["*::group-member-group-update-unlisted FAILED*"])


def test_a_right_that_nothing_asks_for_fails_too(policy, run):
    append(policy / "policy.csv", "p, owner, site, group, create, allow\n")
    result = run("policy")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["FAILED policy/matrix.csv::owner-group-create-unlisted*"])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("policy.csv", "p, boss, site, group, read, alow\n", "*policy.csv:*: unknown-effect: *"),
        ("matrix.csv", "boss,group,read,yes,site\n", "*matrix.csv:*: matrix-row: *"),
    ],
)
def test_a_file_that_can_not_be_read_is_an_error_with_its_findings(policy, run, name, text, said):
    append(policy / name, text)
    result = run("policy")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([said])


def test_a_matrix_without_a_policy_beside_it_is_not_collected(pytester, run):
    (pytester.path / "matrix.csv").write_text("a,b\n1,2\n")
    assert run().ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_ids_of_the_cells_are_those_of_an_oracle(policy, run):
    cells, _ = decide_all(read_rows((policy / "policy.csv").read_text()))
    result = run("policy", "--collect-only", "-q")
    ids = [line.rpartition("::")[2] for line in result.outlines if "::" in line]
    assert set(ids) <= {"-".join((*cell, verdict)) for cell, verdict in cells.items()}
