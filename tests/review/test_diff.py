"""policy diff: who gains and who loses, from a folder or a git revision, and what was approved."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import cached_property
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
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

pytestmark = pytest.mark.slow

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
        self.status, self.err = result.status, result.err
        # The answer starts with what was compared.
        old, self.new, self.out = ("", "", "")
        if self.status != 2:
            old, self.new, self.out = result.out.split("\n", 2)
            assert old.startswith("old: ")
        self.old = old

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


def list_gains(before, after, roles):
    """Each right that some set of roles has now and had not before, by brute force."""
    for right in product(OBJECTS, ACTIONS):
        was, now = ([row for row in rows if row[2:4] == right] for rows in (before, after))
        for held in list_sets(roles) if now else ():
            if is_allowed(now, held, *right) and not is_allowed(was, held, *right):
                yield (held, *right)


@given(policy_rows(objects=("group", "ai_model_price")), st.data())
def test_a_gain_or_a_loss_is_one_that_some_set_of_roles_has(before, data):
    """The two lists of lines share their roles and scopes."""
    rows = st.sampled_from([*before, *((*row[:4], "deny") for row in before)])
    after = data.draw(st.lists(rows, min_size=1, max_size=len(before) + 2))
    changes = diff_tables(make_table(write_rows(before)), make_table(write_rows(after)))
    assert {
        (c.role, str(c.scope), str(c.object), str(c.action)): (c.before, c.after) for c in changes
    } == find_changes(decide_all(before), decide_all(after))
    roles = {row[0] for row in before}
    for is_gain, sides in ((True, (before, after)), (False, (after, before))):
        named = {(c.role, c.object, c.action) for c in changes if c.is_gain is is_gain}
        found = list(list_gains(*sides, roles))
        for role, obj, action in named:
            assert any(role in held and right == [obj, action] for held, *right in found)
        for held, obj, action in found:
            assert named & {(role, obj, action) for role in held}


def test_the_advice_of_idle_deny_is_neither_a_gain_nor_a_loss(diff, folder, run):
    append(folder / "policy.csv", "p, group-member, group, group_ai_budget, read, deny\n")
    line = "p, user-admin, organization, group_ai_budget, read, deny\n"
    advised = copy_policy(folder, folder.parent / "advised")
    append(folder / "policy.csv", line)
    assert "idle-deny: denies what no line allows to anybody; remove the line" in (
        run("check", folder).out
    )
    for sides in ((folder, advised), (advised, folder)):
        result = diff(*sides)
        assert (result.status, result.changes) == (0, [])
        assert result.out == "no decision differs\n"


def test_a_deny_beside_an_allow_is_a_loss_and_its_end_a_gain(diff, folder):
    append(folder / "policy.csv", "p, group-member, group, group, update, deny\n")
    right = ("group-member", "group", "group", "update")
    assert diff(SHIPPED, folder).changes == [("loss", *right, "deny", "forbid")]
    back = diff(folder, SHIPPED)
    assert (back.status, back.changes) == (1, [("gain", *right, "forbid", "deny")])


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
        "budgets are decided as `group` by the old policy and as `group_ai_budget` by the new one"
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


def test_the_answer_starts_with_the_path_and_the_digest_of_both_sides(diff):
    result = diff(SHIPPED, DEDICATED)
    old, new = result.value["old"], result.value["new"]
    assert (old["path"], old["revision"]) == (str(SHIPPED), None)
    assert (new["path"], new["revision"]) == (str(DEDICATED), None)
    assert result.old == f"old: folder {SHIPPED} {old['digest']}"
    assert result.new == f"new: folder {DEDICATED} {new['digest']}"


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


def test_an_approval_that_no_gain_uses_is_named_and_status_1(diff, gained, approve):
    stale = "org-admin,group,update,allow,organization"
    result = diff(SHIPPED, gained, *approve(HEADER + GAINS + stale + "\n"))
    assert result.status == 1
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
        HEADER + "\t" * 60 + GAINS,
        HEADER + " " * 200 + GAINS,
        HEADER + "\n" * 40 + GAINS,
    ],
)
def test_a_list_of_approvals_that_is_none_is_unreadable_input(diff, gained, approve, text):
    result = diff(SHIPPED, gained, *approve(text))
    assert result.status == 2
    assert "is not a list of approved gains" in result.err
    assert re.search(r"line (1|2|42):", result.err)


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

    git("init", "--quiet", "--initial-branch=main", "--template=")  # without sample hooks
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


def test_a_revision_is_named_by_its_commit_and_the_path_in_the_repository(diff, repository):
    result = diff("v1", "rules")
    old, new = result.value["old"], result.value["new"]
    assert (old["path"], new["path"]) == ("rules", str(repository / "rules"))
    assert len(old["revision"]) == 40
    assert new["revision"] is None
    assert result.old == f"old: revision {old['revision']} of rules {old['digest']}"


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


def test_a_revision_is_read_in_the_repository_of_the_working_directory(
    diff, repository, monkeypatch, tmp_path
):
    """A change can't choose which repository that is, and the folder's would be its choice."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for old in ("HEAD", f"HEAD~2:{repository / 'rules'}"):
        refuse(
            diff, old, repository / "rules", because="in the repository of the working directory"
        )
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "another repository")
    refuse(diff, "HEAD", repository / "rules", because="in the repository of the working directory")


def test_a_revision_without_a_folder_is_of_that_of_the_other_revision(diff, repository):
    (repository / "policy").mkdir()
    assert diff("HEAD~2", "HEAD:rules").changes == [LOSS]
    assert diff("HEAD:rules", "HEAD~2").changes == [("gain", *LOSS[1:5], "deny", "allow")]


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


# -- git: the literal path of a revision that is what it says --


@pytest.fixture
def lab(repository):
    """Beside `rules`, a folder `lab` in which a role has more; both are committed."""
    folder = copy_policy(repository / "rules", repository / "lab")
    append(folder / "policy.csv", "p, mallory, site, group, update, allow\n")
    commit(repository)
    return folder


def git(*arguments, cwd="."):
    done = subprocess.run(["git", *WHO, *arguments], cwd=cwd, check=True, capture_output=True)
    return done.stdout.decode().strip()


def commit(repository):
    git("add", "--all", cwd=repository)
    git("commit", "--quiet", "-m", "more", cwd=repository)


def replace_by_link(path, target):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(target)


def link_folder(root):
    replace_by_link(root / "rules", "lab")
    return "rules"


def link_file(name):
    def link(root):
        replace_by_link(root / "rules" / name, f"../lab/{name}")
        return "rules"

    return link


def link_to_nothing(root):
    replace_by_link(root / "rules", "nowhere")
    return "rules"


def link_above(root):
    (root / "deep").mkdir()
    shutil.move(root / "lab", root / "deep")
    (root / "high").symlink_to("deep")
    return "high/lab"


def link_and_back(root):
    (root / "deep" / "er").mkdir(parents=True)
    copy_policy(root / "lab", root / "deep" / "rules")
    (root / "high").symlink_to("deep/er")
    return "high/../rules"


LINKS = pytest.mark.parametrize(
    "link",
    [
        link_folder,
        link_file("model.conf"),
        link_file("policy.csv"),
        link_file("matrix.csv"),
        link_above,
        link_to_nothing,
        link_and_back,
    ],
)


def refuse(diff, *sides, because):
    result = diff(*sides)
    assert (result.status, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert because in line
    return True


@LINKS
def test_a_folder_with_a_link_on_its_path_or_in_it_is_refused(diff, repository, lab, link):
    """A server follows the link to where a role has more, and the change shows a link."""
    name = link(repository)
    refuse(diff, "main:rules", name, because="is a symbolic link")
    refuse(diff, "main:rules", repository / name, because="is a symbolic link")
    refuse(diff, name, "main:rules", because="is a symbolic link")


@LINKS
def test_a_revision_with_a_link_on_its_path_or_in_it_is_refused(diff, repository, lab, link):
    name = link(repository)
    commit(repository)
    if link is link_and_back:  # a path in git has no links to go back from: this is `rules`
        assert diff("main~1:rules", f"main:{name}").changes == []
    else:
        refuse(diff, "main~1:rules", f"main:{name}", because="is a symbolic link")
        refuse(diff, f"main:{name}", SHIPPED, because="is a symbolic link")


def test_a_link_above_the_working_directory_is_of_no_importance(diff, repository, monkeypatch):
    """How somebody got there is not what a change can choose."""
    (repository.parent / "link").symlink_to(repository)
    monkeypatch.chdir(repository.parent / "link")
    assert diff("HEAD:rules", "rules").changes == [GAIN]


@pytest.fixture
def submodule(repository):
    """The folder `inner/rules` in a submodule, whose objects the outer repository has too."""
    git("clone", "--quiet", repository, repository / "inner")
    git("-c", "advice.addEmbeddedRepo=false", "add", "inner")
    git("commit", "--quiet", "-m", "a submodule")
    return repository / "inner"


def test_a_submodule_is_refused_on_either_side(diff, submodule):
    append(submodule / "rules" / "policy.csv", "p, mallory, site, group, update, allow\n")
    commit(submodule)  # moved; the outer repository has `main` at the old one
    refuse(diff, "main:rules", "inner/rules", because="is in a submodule")
    refuse(diff, "main:inner/rules", "rules", because="`inner` in the revision")
    refuse(diff, "main:inner/rules", "inner/rules", because="is a submodule")
    refuse(diff, "main", submodule / "rules", because="submodule")


def test_a_submodule_that_is_the_folder_itself_is_refused(diff, repository):
    whole = copy_policy(SHIPPED, repository / "whole")
    git("init", "--quiet", cwd=whole)
    commit(whole)
    git("-c", "advice.addEmbeddedRepo=false", "add", "whole")
    refuse(diff, "main:rules", "whole", because="is in a submodule")


def test_a_repository_that_git_can_not_read_is_not_taken_for_a_wrong_name(diff, submodule):
    """Git refuses one of another owner so; whether a folder is in a submodule is not known then."""
    with (submodule / ".git" / "config").open("a") as config:
        config.write("[nonsense\n")
    refuse(diff, "main:rules", "inner/rules", because="bad config line")
    shutil.copy(submodule / ".git" / "config", submodule.parent / ".git" / "config")
    refuse(diff, "main:rules", "rules", because="git can't read the repository of")
    assert diff(SHIPPED, "./rules").status == 1


def test_without_git_a_revision_says_so(diff, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    refuse(diff, "main:rules", "rules", because="git does not run; install it")


def test_within_a_submodule_it_is_the_repository_of_the_working_directory(
    diff, submodule, monkeypatch
):
    monkeypatch.chdir(submodule)
    append(submodule / "rules" / "policy.csv", "p, viewer, organization, group, read, allow\n")
    assert diff("HEAD:rules", "rules").changes == [GAIN]


def test_two_checkouts_beside_each_other_are_no_submodules(diff, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("clone", "--quiet", repository, "base")
    assert diff("base/rules", "checkout/rules").changes == [GAIN]
    git("worktree", "add", "--quiet", "--detach", "../checkout/tree", "main", cwd=repository)
    assert diff("checkout/tree/rules", "checkout/rules").changes == [GAIN]


def test_replaced_objects_do_not_count(diff, repository, lab):
    """Anybody who may push refs could hide a gain by one."""
    git("config", "core.useReplaceRefs", "true")
    gained = diff("v1:rules", "main:lab").changes
    assert gained
    for what in ("", "^{tree}", ":lab", ":lab/policy.csv"):
        old = {":lab": "v1:rules", ":lab/policy.csv": "v1:rules/policy.csv"}.get(what, f"v1{what}")
        git("replace", f"main{what}", old)
        assert diff("v1:rules", "main:lab").changes == gained
        git("replace", "--delete", git("rev-parse", f"main{what}"))


def test_grafts_do_not_count(diff, repository):
    head, first = git("rev-parse", "HEAD"), git("rev-parse", "HEAD~2")
    (repository / ".git" / "info").mkdir(exist_ok=True)
    (repository / ".git" / "info" / "grafts").write_text(f"{head} {first}\n")
    assert diff("HEAD~1:rules", "rules").changes == [GAIN]


def test_variables_that_name_another_repository_do_not_count(diff, repository, tmp_path):
    other = copy_policy(DEDICATED, tmp_path / "other" / "rules").parent
    git("init", "--quiet", "--initial-branch=main", cwd=other)
    commit(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_DIR", str(other / ".git"))
        patch.setenv("GIT_WORK_TREE", str(other))
        patch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
        patch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git" / "objects"))
        patch.setenv("GIT_NAMESPACE", "elsewhere")
        patch.setenv("GIT_LITERAL_PATHSPECS", "0")
        assert diff("main:rules", "rules").changes == [GAIN]


@pytest.mark.parametrize("kind", ["tags", "heads"])
def test_a_name_that_several_refs_have_is_refused(diff, repository, lab, kind):
    """Git takes a tag before a branch, and a local branch before one of the remote."""
    git("update-ref", "refs/remotes/origin/main", "HEAD~1")
    git("config", "core.warnAmbiguousRefs", "false")
    assert diff("origin/main:rules", "rules").changes == [GAIN]
    git("update-ref", f"refs/{kind}/origin/main", "HEAD")
    refuse(diff, "origin/main:rules", "rules", because="git knows more than one `origin/main`")
    assert diff("refs/remotes/origin/main:rules", "rules").changes == [GAIN]


@pytest.mark.parametrize(
    "name",
    ["RULES", "rule*", ":(glob)rule*", ":/rules", ":(top)rules", "rules\\", "[r]ules", " rules"],
)
def test_no_pattern_and_no_other_letter_case_finds_a_folder(diff, repository, name):
    git("config", "core.ignoreCase", "true")
    refuse(diff, f"HEAD:{name}", "rules", because="is not there")


@pytest.mark.parametrize("name", ["a:b", "*", ":(glob)x", "-x", "über\nall", "a b"])
def test_a_folder_of_any_name_is_found_by_it(diff, repository, name):
    (repository / "rules").rename(repository / name)
    git("add", "--all")
    git("commit", "--quiet", "-m", "moved")
    append(repository / name / "policy.csv", "p, seer, organization, group, read, allow\n")
    assert diff(f"HEAD:{name}", f"./{name}").changes == [(GAIN[0], "seer", *GAIN[2:])]


def list_tree(tree):
    """Mode, name and id of each entry."""
    lines = git("ls-tree", tree).splitlines()
    return [(mode, name, found) for mode, _, found, name in map(str.split, lines)]


def write_tree(entries):
    """A tree as git reads it, and would not write it."""
    tree = b"".join(f"{mode.lstrip('0')} {name}\0".encode() + bytes.fromhex(found)
                    for mode, name, found in entries)  # fmt: skip
    command = ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"]
    return (
        subprocess.run(command, input=tree, check=True, capture_output=True).stdout.decode().strip()
    )


def add_twice(rules, lab):
    return [("040000", "rules", rules), ("040000", "rules", lab)]


def add_with_a_slash(rules, lab):
    return [("040000", "rules", rules), ("100644", "rules/policy.csv", f"{lab}:policy.csv")]


def add_file_twice(rules, lab):
    files = list_tree(rules)
    (again,) = [entry for entry in list_tree(lab) if entry[1] == "policy.csv"]
    return [("040000", "rules", write_tree([*files, again]))]


def add_in_capitals(rules, lab):
    return [("040000", "Rules", lab), ("040000", "rules", rules)]


def add_file_in_capitals(rules, lab):
    (again,) = [entry for entry in list_tree(lab) if entry[1] == "policy.csv"]
    return [
        ("040000", "rules", write_tree([(again[0], "POLICY.csv", again[2]), *list_tree(rules)]))
    ]


@pytest.mark.parametrize(
    "add", [add_twice, add_with_a_slash, add_file_twice, add_in_capitals, add_file_in_capitals]
)
def test_a_name_that_a_tree_has_several_times_is_refused(diff, repository, lab, add):
    """A checkout has the last of them, on a disk that ignores letter case of those, too."""
    entries = [
        (mode, name, git("rev-parse", found))
        for mode, name, found in add(*(git("rev-parse", f"main:{n}") for n in ("rules", "lab")))
    ]
    made = git("commit-tree", "-m", "made", write_tree(entries))
    refuse(diff, "main:rules", f"{made}:rules", because="is there several times")


@pytest.mark.parametrize("name", ["Rules", "rules/Policy.csv"])
def test_nor_may_a_folder_be_there_in_two_letter_cases(diff, repository, name):
    if name == "Rules":
        copy_policy(SHIPPED, repository / name)
    else:
        (repository / name).write_text(LINE)
    refuse(diff, "HEAD:rules", "rules", because=f"`{Path(name).name}`")


def test_a_change_can_not_bring_a_repository_of_its_own(diff, repository, monkeypatch):
    """Git takes a folder with `HEAD`, `objects` and `refs` for one; it would choose what is old."""
    deploy = repository / "deploy"
    deploy.mkdir()
    shutil.move(repository / "rules", deploy / "rules")
    git("commit", "--quiet", "--all", "-m", "the gain, moved")
    append(deploy / "rules" / "policy.csv", "p, seer, organization, group, read, allow\n")
    other = repository.parent / "other"
    copy_policy(deploy / "rules", other / "rules")
    git("init", "--quiet", "--initial-branch=main", cwd=other)
    commit(other)
    git("add", "--all")
    git("commit", "--quiet", "-m", "deploy")
    git("clone", "--quiet", "--bare", other, "../bare")
    shutil.copytree(repository.parent / "bare", deploy, dirs_exist_ok=True)
    monkeypatch.chdir(deploy)
    bare = ("-c", "safe.bareRepository=all", "rev-parse", "--is-bare-repository")
    assert git(*bare) == "true"
    old = git("-C", "..", "rev-parse", "main")
    append(deploy / "rules" / "policy.csv", "p, oracle, organization, group, read, allow\n")
    result = diff("main:rules", "rules")
    assert f"revision {old} of deploy/rules" in result.old
    assert [change[1] for change in result.changes] == ["oracle"]


def test_nor_can_a_submodule_hide_by_it(diff, submodule):
    git("clone", "--quiet", "--bare", submodule, "../bare")
    shutil.copytree(submodule.parents[1] / "bare", submodule / "rules", dirs_exist_ok=True)
    refuse(diff, "main:rules", "inner/rules", because="is in a submodule")


def test_an_archive_has_the_lines_that_were_compared(diff, repository):
    """With this attribute git writes the message of the commit into the file."""
    right = "p, mallory, site, group, update, allow"
    git("checkout", "--quiet", "--", "rules")
    (repository / "rules" / ".gitattributes").write_text("policy.csv export-subst\n")
    append(repository / "rules" / "policy.csv", "# last change: $Format:%n%b$\n")
    git("add", "--all")
    git("commit", "--quiet", "-m", "a comment", "-m", right)
    assert right in git("archive", "HEAD", "rules/policy.csv").splitlines()
    for new in ("rules", "HEAD:rules"):
        result = diff("HEAD~1:rules", new)
        assert (result.status, result.out) == (2, "")
        assert ": placeholder: " in result.err


# -- approvals of an earlier change --

ROW = "viewer,group,read,allow,organization\n"


@pytest.fixture
def spent(repository):
    """A right whose gain was approved is lost again, and comes back; the row is still there."""
    (repository / "approved.csv").write_text(HEADER + ROW)
    commit(repository)
    git("rm", "--quiet", "--cached", "rules/policy.csv")
    git("checkout", "--quiet", "HEAD~1", "--", "rules")
    git("commit", "--quiet", "-m", "lost again")
    append(repository / "rules" / "policy.csv", VIEWER)
    return repository


VIEWER = "p, viewer, organization, group, read, allow\n"


def test_a_row_approves_the_change_that_adds_it_and_no_other(diff, spent):
    """The right could else be lost and gained again, and nobody would have approved that."""
    result = diff("HEAD", "rules", "--allow", "approved.csv")
    assert (result.status, result.changes) == (1, [GAIN])
    assert "approved by an older row: viewer, group, read, allow, organization; " in result.err
    assert result.value["earlier_approvals"] == [ROW.strip().split(",")]
    append(spent / "approved.csv", "# once more\n" + ROW)
    result = diff("HEAD:rules", "./rules", "--allow", spent / "approved.csv")
    assert result.status == 0
    assert "older row" not in result.err


def test_an_older_row_that_no_gain_uses_is_nothing(diff, spent):
    assert diff("HEAD:rules", "HEAD:rules", "--allow", "approved.csv").status == 0
    append(spent / "approved.csv", ROW)
    assert diff("HEAD:rules", "HEAD:rules", "--allow", "approved.csv").status == 1


# -- the commit at which two part --


@pytest.fixture
def parted(repository):
    """The branch `change` without a gain, and `main`, which lost a right since they parted."""
    git("checkout", "--quiet", "--", "rules")
    git("checkout", "--quiet", "-b", "change", "HEAD~2")
    (repository / "words").write_text("of the change\n")
    commit(repository)
    return repository


def test_what_the_other_branch_lost_meanwhile_is_not_gained(diff, parted):
    gain = ("gain", *LOSS[1:5], "deny", "allow")
    assert diff("main", "rules").changes == [gain]
    assert diff("--merge-base", "main", "rules").changes == []
    assert diff("--merge-base", "main:rules", "change:rules").changes == []
    assert diff("--merge-base", "change", "main:rules").changes == [LOSS]
    append(parted / "rules" / "policy.csv", "p, viewer, organization, group, read, allow\n")
    result = diff("--merge-base", "main", "rules")
    assert (result.status, result.changes) == (1, [GAIN])
    assert result.value["old"]["revision"] == git("rev-parse", "main~2")


def test_two_that_do_not_part_at_one_commit_are_refused(diff, parted):
    git("checkout", "--quiet", "--orphan", "apart")
    git("commit", "--quiet", "-m", "another history")
    refuse(diff, "--merge-base", "main", "rules", because="have no commit in common here")
    change, main = git("rev-parse", "change", "main").split()
    for name, *parents in (("one", change, main), ("two", main, change)):
        both = [part for parent in parents for part in ("-p", parent)]
        git("branch", name, git("commit-tree", "-m", name, *both, "main^{tree}"))
    refuse(diff, "--merge-base", "one:rules", "two:rules", because="part at several commits")


def test_only_a_revision_parts(diff, parted):
    refuse(diff, "--merge-base", "main", "nowhere", because="`nowhere` is neither a folder nor")
    refuse(diff, "--merge-base", "rules", "main", because="`rules` is a folder")
    git("tag", "main", "change")
    refuse(diff, "--merge-base", "main", "rules", because="git knows more than one `main`")
    refuse(diff, "--merge-base", "change", "main:rules", because="git knows more than one `main`")


def test_a_path_is_written_from_the_working_directory(diff, repository, monkeypatch):
    monkeypatch.chdir(repository / "rules")
    assert diff("HEAD:.", ".").changes == [GAIN]
    (repository / "beside").mkdir()
    monkeypatch.chdir(repository / "beside")
    assert diff("HEAD:../rules", "../rules").changes == [GAIN]
    assert diff("HEAD", "../rules").changes == [GAIN]
    assert diff(f"HEAD:{repository}/rules", f"{repository}/rules").changes == [GAIN]
    refuse(diff, "HEAD:rules", "../rules", because="`beside` in the revision")


def test_a_repository_without_a_working_tree_has_revisions(diff, repository, monkeypatch):
    git("clone", "--quiet", "--bare", ".", "../bare")
    monkeypatch.chdir(repository.parent / "bare")
    assert diff("HEAD~2:rules", "HEAD:rules").changes == [LOSS]


def test_what_filters_and_attributes_would_make_of_a_file_does_not_count(diff, repository):
    (repository / ".gitattributes").write_text("*.csv filter=x diff=x export-ignore\n")
    git("add", ".gitattributes")
    git("commit", "--quiet", "-m", "attributes")
    for key in ("filter.x.smudge", "diff.x.textconv"):
        git("config", key, "echo nothing; true")
    assert diff("HEAD:rules", "rules").changes == [GAIN]
