"""policy diff: who gains and who loses, from a folder or a git revision, and what was approved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cached_property

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.review.helpers import (
    FOLDERS,
    append,
    copy_policy,
    make_table,
    policy_rows,
    write_rows,
)
from tests.review.oracle import ACTIONS, OBJECTS, decide_all, is_allowed
from tests.review.test_bytes import find_changes
from tests.review.test_table import list_sets

from govbudget.review.diff import diff_tables

SHIPPED, DEDICATED = FOLDERS.values()
LINE = "p, org-admin, organization, group, update, allow\n"


def swap(folder, old, new):
    path = folder / "policy.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


class Compared:
    """What diff printed, and, where a test asks for it, what it says as JSON."""

    def __init__(self, run, arguments):
        self.run, self.arguments = run, arguments
        result = run("diff", *arguments)
        self.status, self.out, self.err = result.status, result.out, result.err
        assert self.status != 2 or self.out == ""

    @cached_property
    def value(self):
        result = self.run("diff", *self.arguments, "--format", "json")
        assert result.status == self.status
        return json.loads(result.out)

    @property
    def changes(self):
        return [
            (c["kind"], c["role"], c["scope"], c["object"], c["action"], c["before"], c["after"])
            for c in self.value["changes"]
        ]


@pytest.fixture
def diff(run):
    return lambda *arguments: Compared(run, arguments)


# -- what counts as a change --


def test_a_policy_does_not_differ_from_itself(diff):
    result = diff(SHIPPED, SHIPPED)
    assert (result.status, result.out, result.changes) == (0, "no decision differs\n", [])


def test_order_comments_spacing_and_lines_said_twice_are_nothing(diff, folder):
    lines = (folder / "policy.csv").read_text().splitlines()
    kept = [f"  {line}".replace(", ", " ,\t") for line in reversed(lines) if line.startswith("p,")]
    (folder / "policy.csv").write_text("# all of it\n" + "\r\n".join([*kept, kept[0]]))
    result = diff(SHIPPED, folder)
    assert (result.status, result.changes) == (0, [])


def test_a_right_that_goes_is_a_loss_with_the_line_that_gave_it(diff, folder):
    number = (folder / "policy.csv").read_text().splitlines().index(LINE.strip()) + 1
    swap(folder, LINE, "")
    result = diff(SHIPPED, folder)
    assert result.status == 0
    assert result.out == (
        "org-admin (held in scope organization)\n"
        f"  - loses group update: allow -> deny (old policy.csv:{number})\n"
        "0 gained, 1 lost\n"
    )


def test_a_right_that_comes_is_a_gain_with_the_line_that_gives_it_and_status_1(diff, folder):
    append(folder / "policy.csv", "p, viewer, organization, group, read, allow\n")
    last = len((folder / "policy.csv").read_text().splitlines())
    result = diff(SHIPPED, folder)
    assert result.status == 1
    assert result.out == (
        "viewer (held in scope organization)\n"
        f"  + gains group read: deny -> allow (new policy.csv:{last})\n"
        "1 gained, 0 lost\n"
    )
    back = diff(folder, SHIPPED)
    assert (back.status, back.out.splitlines()[-1]) == (0, "0 gained, 1 lost")


def test_a_role_in_another_scope_has_lost_all_there_and_gained_all_here(diff, folder):
    swap(folder, "p, user-admin, organization,", "p, user-admin, site,")
    result = diff(SHIPPED, folder)
    assert result.status == 1
    assert sorted(result.changes) == sorted(
        change
        for right in (("group", "read"), ("group", "update"), ("ai_member_spend", "read"))
        for change in (
            ("loss", "user-admin", "organization", *right, "allow", "deny"),
            ("gain", "user-admin", "site", *right, "deny", "allow"),
        )
    )


def test_a_deny_takes_from_all_who_hold_the_role_and_its_end_gives_back(diff, folder):
    append(folder / "policy.csv", "p, group-member, group, group, update, deny\n")
    result = diff(SHIPPED, folder)
    change = ("group-member", "group", "group", "update")
    assert (result.status, result.changes) == (0, [("loss", *change, "deny", "forbid")])
    result = diff(folder, SHIPPED)
    assert (result.status, result.changes) == (1, [("gain", *change, "forbid", "deny")])


def test_a_role_without_a_right_is_named_when_it_comes_and_when_it_goes(diff, folder):
    """Whoever holds it has standing: a list answers, where it was not found before."""
    append(folder / "policy.csv", "p, ghost, organization, group, read, deny\n")
    result = diff(DEDICATED, DEDICATED)
    assert (result.value["roles_added"], result.value["roles_removed"]) == ([], [])
    swap(folder, "group, read, deny", "ai_model_price, read, allow")
    ghost = {"role": "ghost", "scope": "organization"}
    for sides, sign, key in (
        ((SHIPPED, folder), "+ is new", "roles_added"),
        ((folder, SHIPPED), "- is gone", "roles_removed"),
    ):
        result = diff(*sides)
        assert result.out == (
            f"ghost (held in scope organization)\n  {sign}, without a right: "
            "a list answers whoever holds a role, with nothing in it\nno decision differs\n"
        )
        assert (result.status, result.value[key]) == (0, [ghost])


def test_a_role_with_rights_is_named_by_them(diff):
    result = diff(SHIPPED, DEDICATED)
    assert result.value["roles_added"] == [{"role": "budget-admin", "scope": "organization"}]
    assert "without a right" not in result.out


def test_a_new_side_that_nobody_reviewed_or_reviewed_otherwise_is_named(diff, folder):
    assert diff(folder, SHIPPED).value["new_unreviewed"] is None
    matrix = folder / "matrix.csv"
    matrix.write_bytes((DEDICATED / "matrix.csv").read_bytes())
    differs = "its matrix.csv is of another policy, so a server would not start with it"
    result = diff(SHIPPED, folder)
    assert result.value["new_unreviewed"] == differs
    assert f"new: {differs}\n" in result.err
    matrix.unlink()
    result = diff(SHIPPED, folder)
    assert "new: nobody has reviewed it: there is no matrix.csv\n" in result.err
    assert result.status == 0
    assert "nobody has" not in diff(folder, SHIPPED).err


def has_gain(before, after, roles):
    """Whether some set of roles may do something that it might not before, by brute force."""
    return any(
        is_allowed(after, held, obj, action) and not is_allowed(before, held, obj, action)
        for held in list_sets(roles)
        for obj in OBJECTS
        for action in ACTIONS
    )


@given(policy_rows(objects=("group", "ai_model_price")), st.data())
@settings(max_examples=30, deadline=None)
def test_somebody_gains_where_a_change_is_a_gain_and_nowhere_else(before, data):
    """The two lists of lines share their roles and scopes; an ally may join whoever is asked."""
    rows = st.sampled_from([*before, *((*row[:4], "deny") for row in before)])
    after = data.draw(st.lists(rows, min_size=1, max_size=len(before) + 2))
    changes = diff_tables(make_table(write_rows(before)), make_table(write_rows(after)))
    assert {
        (c.role, str(c.scope), str(c.object), str(c.action)): (c.before, c.after) for c in changes
    } == find_changes(decide_all(before), decide_all(after))
    allies = [("ally", "site", obj, action, "allow") for obj in OBJECTS for action in ACTIONS]
    roles = {row[0] for row in before} | {"ally"}
    gains = has_gain([*before, *allies], [*after, *allies], roles)
    gains |= has_gain(before, after, roles)
    assert any(change.is_gain for change in changes) is gains


# -- the other design, on one page --


def test_the_dedicated_policy_differs_from_the_shipped_one_in_this(diff):
    result = diff(SHIPPED, DEDICATED)
    assert result.status == 1
    budgets = ("organization", "group_ai_budget")
    assert result.changes == [
        ("gain", "budget-admin", *budgets, "read", "deny", "allow"),
        ("gain", "budget-admin", *budgets, "update", "deny", "allow"),
        ("gain", "budget-admin", "organization", "ai_member_spend", "read", "deny", "allow"),
        ("loss", "org-admin", *budgets, "update", "allow", "deny"),
        ("loss", "user-admin", *budgets, "update", "allow", "deny"),
    ]
    first, blank, *lines = result.out.splitlines()
    assert blank == ""
    assert first == (
        "budgets are judged as `group` by the old policy and as `group_ai_budget` by the new one "
        "(setting: budget_object)"
    )
    assert [line for line in lines if not line.startswith("  ")] == [
        "budget-admin (held in scope organization)",
        "org-admin (held in scope organization)",
        "user-admin (held in scope organization)",
        "3 gained, 2 lost",
    ]
    assert len(lines) < 40  # a page
    text = (DEDICATED / "policy.csv").read_text().splitlines()
    for change in result.value["changes"]:
        for named in change["lines"]:
            which, place = named.split()
            number = int(place.removeprefix("policy.csv:"))
            source = text if which == "new" else (SHIPPED / "policy.csv").read_text().splitlines()
            assert source[number - 1].startswith(f"p, {change['role']}, {change['scope']}, ")


def test_both_sides_are_named_with_their_digests_on_stderr(diff):
    result = diff(SHIPPED, DEDICATED)
    old, new = result.err.splitlines()
    assert old == f"old: folder {SHIPPED} {result.value['old']}"
    assert new == f"new: folder {DEDICATED} {result.value['new']}"


# -- what was approved --

HEADER = "role,object,action,decision,scope\n"
GAINS = "viewer,group,read,allow,organization\nviewer,group,update,allow,organization\n"


@pytest.fixture
def gained(folder):
    append(folder / "policy.csv", "p, viewer, organization, group, read, allow\n")
    append(folder / "policy.csv", "p, viewer, organization, group, update, allow\n")
    return folder


@pytest.fixture
def approve(tmp_path):
    def approve(text):
        path = tmp_path / "approved.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return ("--allow", path)

    return approve


def test_approved_gains_pass(diff, gained, approve):
    text = "# approved by two\n\n" + HEADER.replace(",", " , ") + GAINS
    result = diff(SHIPPED, gained, *approve(text))
    assert result.status == 0
    assert result.out.count("[approved]") == 2
    assert all(change["approved"] for change in result.value["changes"])
    assert "nobody gains" not in result.err


@pytest.mark.parametrize(
    "rows",
    [
        "viewer,group,read,allow,organization\n",
        GAINS.replace("allow", "deny"),
        "",
        GAINS.replace("organization", "site"),
        GAINS.replace("viewer", "owner"),
        GAINS.replace("viewer", "*"),
    ],
)
def test_a_gain_that_nobody_approved_is_status_1(diff, gained, approve, rows):
    assert diff(SHIPPED, gained, *approve(HEADER + rows)).status == 1


def test_an_approval_that_no_gain_uses_is_named(diff, gained, approve):
    stale = "org-admin,group,update,allow,organization"
    result = diff(SHIPPED, gained, *approve(HEADER + GAINS + stale + "\n"))
    assert result.status == 0
    assert f"approved, but nobody gains it: {stale.replace(',', ', ')}" in result.err
    assert result.value["unused_approvals"] == [stale.split(",")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        GAINS,
        HEADER + "viewer,group,read\n",
        HEADER + "viewer,group,read,allow,organization,x\n",
        HEADER.replace("scope", "object"),
        HEADER.encode() + b"view\xd0\xb5r,group,read,allow,organization\n",
        b"\xef\xbb\xbf" + (HEADER + GAINS).encode(),
        b"\x00" * 50,
    ],
)
def test_a_list_of_approvals_that_is_none_is_unreadable_input(diff, gained, approve, text):
    result = diff(SHIPPED, gained, *approve(text))
    assert result.status == 2
    assert "is no list of approved gains" in result.err
    assert "line 1" in result.err or "line 2" in result.err


def test_a_list_of_approvals_that_is_not_there_is_wrong_usage(diff, gained, tmp_path):
    assert diff(SHIPPED, gained, "--allow", tmp_path / "nothing").status == 2


# -- git --


WHO = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")


@pytest.fixture(scope="module")
def made_repository(tmp_path_factory):
    """A checkout with a policy in `rules`, three commits old, and an uncommitted gain."""
    root = tmp_path_factory.mktemp("made") / "checkout"
    folder = copy_policy(SHIPPED, root / "rules")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*arguments):
        command = ["git", *WHO, *arguments]
        subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch=main")
    git("add", ".")
    git("commit", "--quiet", "-m", "the policy")
    swap(folder, LINE, "")
    git("commit", "--quiet", "-am", "org-admins lose a right")
    git("tag", "v1")
    (folder / "README.md").write_text("nothing to do with it\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "a readme")
    append(folder / "policy.csv", "p, viewer, organization, group, read, allow\n")
    return root


@pytest.fixture
def repository(made_repository, tmp_path, monkeypatch):
    """A copy of it, in which the test runs."""
    root = tmp_path / "checkout"
    shutil.copytree(made_repository, root)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.chdir(root)
    return root


LOSS = ("loss", "org-admin", "organization", "group", "update", "allow", "deny")
GAIN = ("gain", "viewer", "organization", "group", "read", "deny", "allow")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("HEAD", "rules", [GAIN]),
        ("HEAD~2", "rules", [LOSS, GAIN]),
        ("v1", "rules", [GAIN]),
        ("main", "rules", [GAIN]),
        ("HEAD~2:rules", "HEAD:rules", [LOSS]),
        ("HEAD~2:rules", "rules", [LOSS, GAIN]),
        ("HEAD~2:rules/", "v1:./rules", [LOSS]),
        ("rules", "HEAD", [("loss", *GAIN[1:5], "allow", "deny")]),
    ],
)
def test_a_side_is_a_folder_or_a_revision_of_one(diff, repository, old, new, expected):
    result = diff(old, new)
    assert result.changes == expected
    assert result.status == any(change[0] == "gain" for change in expected)


def test_two_revisions_are_of_the_folder_that_the_setting_names(run, repository):
    result = run("diff", "HEAD~2", "HEAD", policy_dir=repository / "rules")
    assert (result.status, result.out.splitlines()[-1]) == (0, "0 gained, 1 lost")


def test_a_revision_is_read_in_the_repository_of_the_folder(
    diff, repository, monkeypatch, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert diff("HEAD", repository / "rules").changes == [GAIN]
    assert diff(f"HEAD~2:{repository / 'rules'}", repository / "rules").changes == [LOSS, GAIN]


def test_a_folder_that_was_there_once_can_be_named(diff, repository):
    subprocess.run(["git", "mv", "rules", "policy"], cwd=repository, check=True)
    assert diff("HEAD:rules", "policy").changes == [GAIN]


@pytest.mark.parametrize(
    "name",
    [
        "--output=pwned",
        "--output=pwned:rules",
        "HEAD:--output=pwned",
        "--upload-pack=touch pwned",
        "-c core.pager=touch pwned",
        "$(touch pwned)",
        "HEAD; touch pwned",
        "HEAD\nrules",
        "HEAD..HEAD~1",
        "HEAD HEAD",
        "HEAD:",
        ":rules",
        "HEAD:/etc",
        "HEAD:../../../etc",
        "HEAD:rules/policy.csv",
        "HEAD^{tree}",
        "nothing-of-the-kind",
        "",
        "\udc80",
    ],
)
def test_what_is_no_folder_and_no_revision_is_refused_and_runs_nothing(run, repository, name):
    before = sorted(path.name for path in repository.rglob("*") if ".git" not in path.parts)
    for sides in ((name, "rules"), ("rules", name)):
        result = run("diff", "--", *sides)
        assert (result.status, result.out) == (2, "")
        (line,) = result.err.splitlines()
        assert line.startswith("govbudget: ")
    assert sorted(p.name for p in repository.rglob("*") if ".git" not in p.parts) == before


def test_an_option_that_is_none_is_wrong_usage(run, repository):
    assert run("diff", "--output=pwned", "rules").status == 2


def test_without_git_a_revision_is_refused_in_one_sentence(diff, repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    result = diff("HEAD", "rules")
    assert result.status == 2
    assert len(result.err.splitlines()) == 1


def test_a_side_with_findings_is_status_2_with_the_findings_and_which_side(diff, folder):
    append(folder / "policy.csv", "p, x, site, group, read, dney\np, y\n")
    last = len((folder / "policy.csv").read_text().splitlines())
    for sides, which in (((SHIPPED, folder), "new"), ((folder, SHIPPED), "old")):
        result = diff(*sides)
        assert result.status == 2
        first, *findings = result.err.splitlines()
        assert first == f"{which}: {folder} can't be read as a policy"
        assert [line.split(": ")[:2] for line in findings] == [
            [f"policy.csv:{last - 1}", "unknown-effect"],
            [f"policy.csv:{last}", "field-count"],
        ]


def test_a_revision_with_findings_is_status_2_with_the_findings(diff, repository):
    append(repository / "rules" / "policy.csv", "g, mallory, owner, site\n")
    subprocess.run(["git", *WHO, "commit", "-qam", "bad"], cwd=repository, check=True)
    result = diff("HEAD:rules", SHIPPED)
    assert result.status == 2
    assert "unknown-line-type" in result.err


def test_one_side_alone_is_wrong_usage(run):
    assert run("diff", SHIPPED).status == 2
