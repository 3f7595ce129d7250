"""assert_matrix and matrix_cases: what the table does not list is expected to be denied."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from tests.review.helpers import FOLDERS, both_policies
from tests.review.oracle import decide_all, read_rows

from govbudget import Policy
from govbudget.testing import assert_matrix, matrix_cases

ALLOWED = {
    ("owner", "group", "read"): True,
    ("owner", "group", "update"): True,
    ("owner", "ai_model_price", "read"): True,
    ("owner", "ai_model_price", "update"): True,
    ("org-admin", "group", "read"): True,
    ("org-admin", "group", "update"): True,
    ("user-admin", "group", "read"): True,
    ("user-admin", "group", "update"): True,
    ("group-member", "group", "read"): True,
    ("owner", "ai_member_spend", "read"): True,
    ("org-admin", "ai_member_spend", "read"): True,
    ("user-admin", "ai_member_spend", "read"): True,
    ("self", "ai_member_spend", "read"): True,
    ("gateway", "ai_usage", "create"): True,
    ("owner", "ai_usage", "update"): True,
    ("owner", "policy", "read"): True,
}


@pytest.fixture(scope="module")
def policy():
    return Policy.load(FOLDERS["shipped"])


@both_policies
def test_a_policy_agrees_with_its_own_matrix(shipped):
    policy = Policy.load(shipped)
    assert_matrix(policy, shipped / "matrix.csv")
    assert_matrix(policy, str(shipped / "matrix.csv"))


def test_the_allowed_cells_alone_are_the_whole_table(policy):
    assert_matrix(policy, ALLOWED)


def test_there_is_a_case_for_every_cell_listed_or_not(policy):
    cases = matrix_cases(policy, {})
    cells, _ = decide_all(read_rows((FOLDERS["shipped"] / "policy.csv").read_text()))
    assert {(case.role, case.object, case.action) for case in cases} == set(cells)
    assert not any(case.allowed for case in cases)
    assert len({str(case) for case in cases}) == len(cases)
    allowed = {str(case) for case in matrix_cases(policy, ALLOWED) if case.allowed}
    assert allowed == {"-".join(cell) + "-allow" for cell in ALLOWED}


@pytest.mark.parametrize(
    ("cell", "expected", "said"),
    [
        (("owner", "group", "read"), False, "the policy allows it (policy.csv:7)"),
        (("group-member", "group", "update"), True, "the policy denies it (no line allows it)"),
    ],
)
def test_a_difference_names_the_cell_the_decision_and_the_lines(policy, cell, expected, said):
    with pytest.raises(AssertionError) as raised:
        assert_matrix(policy, ALLOWED | {cell: expected})
    assert str(raised.value) == f"{', '.join(cell)}: {said}"


def test_every_difference_is_named_at_once(policy):
    with pytest.raises(AssertionError) as raised:
        assert_matrix(policy, {})
    assert len(str(raised.value).splitlines()) == len(ALLOWED)


def test_a_cell_that_the_policy_does_not_have_is_an_error(policy):
    for cell in (("ownr", "group", "read"), ("owner", "groups", "read"), ("owner", "group", "see")):
        with pytest.raises(ValueError, match="no cell"):
            assert_matrix(policy, ALLOWED | {cell: False})


@pytest.mark.parametrize("value", ["deny", "allow", 1, None])
def test_an_expected_decision_that_is_not_a_bool_is_an_error(policy, value):
    with pytest.raises(TypeError, match=r"owner, group, read: .* is not True or False"):
        matrix_cases(policy, ALLOWED | {("owner", "group", "read"): value})


HEADER = "role,object,action,decision\n"


def write_table(tmp_path, text):
    path = tmp_path / "expected.csv"
    path.write_text(text)
    return path


def test_comments_blank_lines_and_further_columns_are_passed_over(policy, tmp_path):
    rows = "".join(f"{' , '.join(cell)},allow,why not\n" for cell in ALLOWED)
    text = "# mine\n\nrole,object,action,decision,reason\n\n" + rows
    assert_matrix(policy, write_table(tmp_path, text))


def test_deny_and_forbid_both_mean_denied(policy, tmp_path):
    for word in ("deny", "forbid"):
        path = write_table(tmp_path, f"{HEADER}group-member,group,update,{word}\n")
        (case,) = (
            case
            for case in matrix_cases(policy, path)
            if (case.role, case.object, case.action) == ("group-member", "group", "update")
        )
        assert case.allowed is False


@pytest.mark.parametrize(
    "text",
    [
        "owner,group,read,allow\n",
        "role,object,decision,action\nowner,group,allow,read\n",
        HEADER + "owner,group,read\n",
        HEADER + "owner,group,read,allow,too much\n",
        "role,object,action,decision,why,who\nowner,group,read,allow,a comma is lost\n",
        HEADER + "owner,group,read,alow\n",
        HEADER + "owner,group,read,\n",
        HEADER + "owner,group,read,yes\n",
        HEADER + "owner,group,read,allow\nowner,group,read,allow\n",
    ],
)
def test_a_table_that_is_none_is_an_error_with_its_line(policy, tmp_path, text):
    with pytest.raises(ValueError, match=r"expected\.csv:\d+: "):
        assert_matrix(policy, write_table(tmp_path, text))


@pytest.mark.slow
def test_it_needs_no_flask_and_no_database_and_no_plugin_loads_by_itself():
    script = (
        "import sys\n"
        "from govbudget import Policy\n"
        "from govbudget.testing import assert_matrix, mutants, make_subject\n"
        "policy = Policy.load()\n"
        "assert_matrix(policy, policy.folder / 'matrix.csv')\n"
        "assert not any(mutant.survives for mutant in [next(mutants(policy))])\n"
        "print(sorted({'flask', 'sqlalchemy', 'psycopg', 'pytest'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
    assert not [entry for entry in entry_points(group="pytest11") if "govbudget" in entry.value]
