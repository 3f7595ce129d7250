"""policy check and policy matrix: the reviewer's two commands, without a database."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from itertools import pairwise

import pytest

from govbudget.authz.files import packaged_policy_dir

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    """A copy of the packaged policy, to be changed."""
    for name in ("model.conf", "policy.csv", "matrix.csv"):
        shutil.copy(packaged_policy_dir() / name, tmp_path)
    return tmp_path


def copy_folder(folder, target):
    target.mkdir()
    for name in ("model.conf", "policy.csv", "matrix.csv"):
        shutil.copy(folder / name, target)
    return target


def append(path, text):
    path.write_text(path.read_text() + text)


def test_the_packaged_policy_has_no_findings(run):
    result = run("policy", "check")
    assert (result.status, result.err) == (0, "")
    which, said = result.out.splitlines()
    assert which.startswith(f"policy: {packaged_policy_dir()} sha256:")
    assert said.startswith("no findings: ")


READS = ["--action", "read"]
COMMANDS = pytest.mark.parametrize(
    "command", [["check"], ["matrix"], ["explain", "--role", "owner", *READS]]
)


@COMMANDS
def test_the_folder_is_the_argument_else_the_variable_else_here_else_the_packaged(
    run, folder, tmp_path, monkeypatch, command
):
    """The first line of the answer says which, with the digest of what was read."""

    def find_named(*arguments, **variables):
        result = run("policy", *command, *arguments, **variables)
        assert (result.status, result.err) == (0, "")
        first = result.out.splitlines()[0]
        return re.fullmatch(r"policy: (.*) sha256:[0-9a-f]{64}", first)[1]

    monkeypatch.chdir(tmp_path)
    assert find_named() == str(packaged_policy_dir())
    here, other = (copy_folder(folder, tmp_path / name) for name in ("policy", "other"))
    assert find_named() == str(here)
    assert find_named(policy_dir=other) == str(other)
    assert find_named("other", policy_dir=here) == str(other)


def test_a_changed_policy_in_the_working_directory_is_what_is_checked(
    run, folder, tmp_path, monkeypatch
):
    here = copy_folder(folder, tmp_path / "policy")
    append(here / "policy.csv", "p, viewer, organization, group, update, allow\n")
    monkeypatch.chdir(tmp_path)
    assert run("policy", "check").status == 1
    explained = run("policy", "explain", "--role", "viewer", "--action", "update")
    assert explained.status == 0


@COMMANDS
@pytest.mark.parametrize("kind", ["a file", "an empty folder", "a link to nothing", "a loop"])
def test_something_else_that_is_called_policy_is_refused_and_not_passed_over(
    run, tmp_path, monkeypatch, command, kind
):
    here = tmp_path / "policy"
    if kind == "a file":
        here.write_text("not a folder\n")
    elif kind == "an empty folder":
        here.mkdir()
    else:
        here.symlink_to("nowhere" if kind == "a link to nothing" else "policy")
    monkeypatch.chdir(tmp_path)
    result = run("policy", *command)
    assert result.status == (1 if command == ["check"] else 2)
    assert "unreadable-file" in result.out + result.err
    assert str(packaged_policy_dir()) not in result.out + result.err


def test_a_folder_reached_by_a_link_is_named_by_what_was_read(run, folder, tmp_path):
    """Deployments link to their policies, so a link is read, and the answer shows it."""
    link = tmp_path / "current"
    link.symlink_to(copy_folder(folder, tmp_path / "v2"))
    result = run("policy", "check", link)
    assert result.status == 0
    assert result.out.startswith(f"policy: {tmp_path / 'v2'} sha256:")


@pytest.mark.parametrize("form", ["csv", "json", "md", "html"])
def test_what_a_program_reads_has_the_line_on_stderr(run, folder, form):
    text = run("policy", "matrix", folder).out
    result = run("policy", "matrix", folder, "--format", form)
    assert result.err == text.splitlines(keepends=True)[0]
    assert not result.out.startswith("policy: ")


@COMMANDS
def test_json_has_the_folder_and_the_digest_as_fields(run, folder, command):
    result = run("policy", *command, folder, "--format", "json")
    value = json.loads(result.out)
    assert result.err == f"policy: {value['policy_dir']} {value['policy_digest']}\n"
    assert value["policy_dir"] == str(folder)


def test_every_finding_is_a_line_of_file_line_code_sentence_with_status_1(run, folder):
    last = len((folder / "policy.csv").read_text().splitlines())
    append(folder / "policy.csv", "p, x, site, grup, read, allow\np, y, site, group, raed, allow\n")
    result = run("policy", "check", folder)
    assert result.status == 1
    assert "Traceback" not in result.err
    places = [line.split(": ", 2) for line in result.out.splitlines()[1:]]
    assert [place for place, _, _ in places] == [f"policy.csv:{last + 1}", f"policy.csv:{last + 2}"]
    assert all(code.replace("-", "").isalpha() for _, code, _ in places)


def test_a_folder_that_nobody_reviewed_is_a_finding(run, folder):
    (folder / "matrix.csv").unlink()
    result = run("policy", "check", folder)
    assert result.status == 1
    assert "matrix.csv:0: not-reviewed: " in result.out


def test_a_folder_that_is_not_there_is_a_finding(run, tmp_path):
    result = run("policy", "check", tmp_path / "nowhere")
    assert result.status == 1
    assert "unreadable-file" in result.out
    assert "Traceback" not in result.err


@pytest.mark.parametrize("command", [["check"], ["matrix"], ["explain", "--role", "owner"]])
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_name_is_wrong_usage_and_not_another_folder(run, command, empty):
    arguments = ["--action", "read"] if command[0] == "explain" else []
    result = run("policy", *command, *arguments, empty)
    assert (result.status, result.out) == (2, "")
    assert "DIR is empty; name a folder, or leave it out" in result.err


def test_a_name_with_a_newline_in_it_stays_on_its_line(run, tmp_path):
    result = run("policy", "check", f"{tmp_path}/a\nb")
    first, *findings = result.out.splitlines()
    assert first == f"policy: {tmp_path}/a\\nb (unreadable)"
    assert all(line.startswith(("model.conf:0:", "policy.csv:0:")) for line in findings)
    assert result.status == 1


def test_a_folder_where_a_file_is_expected_is_a_finding(run, folder):
    (folder / "matrix.csv").unlink()
    (folder / "matrix.csv").mkdir()
    result = run("policy", "check", folder)
    assert result.status == 1
    assert result.out.endswith("is a directory; put a readable text file there\n")


def test_a_file_instead_of_a_folder_is_a_finding(run, folder):
    result = run("policy", "check", folder / "policy.csv")
    assert result.status == 1
    assert "unreadable-file" in result.out
    assert "name the folder that holds model.conf and policy.csv" in result.out


def test_what_to_read_stands_in_a_sentence_of_its_own(run, folder):
    result = run("policy", "matrix", folder, "--role", "onwer")
    assert result.status == 2
    assert result.err.endswith("`user-admin`. See `govbudget policy matrix --help`.\n")


def test_check_as_json_says_the_same(run, folder):
    good = run("policy", "check", folder, "--format", "json")
    assert good.status == 0
    value = json.loads(good.out)
    assert value["findings"] == []
    assert value["policy_digest"] in good.err

    append(folder / "policy.csv", "p, x\n")
    bad = run("policy", "check", folder, "--format", "json")
    assert bad.status == 1
    assert json.loads(bad.out)["findings"][0]["file"] == "policy.csv"


@pytest.mark.parametrize("form", ["text", "json", "csv", "md"])
def test_the_matrix_of_a_bad_policy_prints_only_findings_on_stderr(run, folder, form):
    append(folder / "policy.csv", "p, x\n")
    result = run("policy", "matrix", folder, "--format", form)
    assert (result.status, result.out) == (2, "")
    assert "policy.csv:" in result.err
    assert "Traceback" not in result.err


def test_the_matrix_as_csv_is_the_reviewed_file(run, folder):
    result = run("policy", "matrix", folder, "--format", "csv")
    assert result.status == 0
    assert result.out == (folder / "matrix.csv").read_text()


def test_the_matrix_as_json_agrees_with_the_csv(run, folder):
    rows = list(csv.DictReader(io.StringIO((folder / "matrix.csv").read_text())))
    value = json.loads(run("policy", "matrix", folder, "--format", "json").out)
    names = ("role", "object", "action", "decision")
    said, reviewed = (
        [[cell[name] for name in names] for cell in x] for x in (value["cells"], rows)
    )
    assert sorted(said) == sorted(reviewed)
    assert all(cell["lines"] for cell in value["cells"] if cell["decision"] == "allow")


GRID = """
          owner     gateway   org-admin     user-admin    group-member  self
held in   site      site      organization  organization  group         user
group
  read    allow 7   -         allow 19      allow 22      allow 27      -
  update  allow 8   -         allow 20      allow 23      -             -
ai_model_price
  read    allow 9   -         -             -             -             -
  update  allow 10  -         -             -             -             -
ai_usage
  update  allow 12  -         -             -             -             -
  create  -         allow 16  -             -             -             -
ai_member_spend
  read    allow 11  -         allow 21      allow 24      -             allow 30
policy
  read    allow 13  -         -             -             -             -
"""


def test_the_matrix_as_text_is_a_grid_from_the_widest_scope_to_the_narrowest(run, folder):
    """Objects down, roles across, the deciding lines in the cells, no wider than a screen."""
    which, _, rest = run("policy", "matrix", folder).out.partition("\n")
    assert which.startswith("policy: ")
    assert rest.startswith(GRID[1:])
    assert "A budget is decided as `group`." in rest


def test_a_grid_that_is_wider_than_a_screen_goes_on_below(run, folder):
    denied = "p, gateway, site, group, read, deny\n"
    roles = "".join(f"p, viewer-of-kind-{n:02}, group, group, read, allow\n" for n in range(40))
    append(folder / "policy.csv", denied + roles)
    _, *lines = run("policy", "matrix", folder).out.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.split() for line, after in pairwise(lines) if after.startswith("held in")]
    named = [role for head in heads for role in head]
    assert len(named) == len(set(named)) == 46
    assert named[-1] == "self"
    assert sum("  update" in line for line in lines) == 3 * len(heads)
    assert any("forbid 31" in line for line in lines)


@pytest.mark.parametrize("form", ["text", "csv", "json", "md", "html"])
def test_the_matrix_shows_what_is_asked_and_the_rest_where_all_is_asked_for(run, folder, form):
    shown = run("policy", "matrix", folder, "--format", form)
    everything = run("policy", "matrix", folder, "--format", form, "--all")
    assert (shown.status, everything.status) == (0, 0)
    assert "group_ai_budget" not in shown.out
    assert "group_ai_budget" in everything.out
    assert len(everything.out) > len(shown.out)


def test_what_nothing_asks_about_is_named_only_with_all(run, folder):
    result = run("policy", "matrix", folder, "--object", "group_ai_budget")
    assert (result.status, result.out) == (2, "")
    assert "nothing asks about these under this policy; `--all` shows them" in result.err
    assert run("policy", "matrix", folder, "--object", "group_ai_budget", "--all").status == 0


def test_a_line_about_what_nothing_asks_is_a_finding_although_it_was_reviewed(run, folder):
    append(folder / "policy.csv", "p, user-admin, organization, ai_member_spend, update, deny\n")
    append(folder / "matrix.csv", "user-admin,ai_member_spend,update,forbid,organization\n")
    result = run("policy", "check", folder)
    assert result.status == 1
    (line,) = result.out.splitlines()[1:]
    assert line == (
        "policy.csv:31: unasked-right: nothing asks for `update` on `ai_member_spend`, so the line "
        "counts for nothing; remove the line"
    )


def test_the_matrix_as_markdown_has_a_row_for_each_right_and_a_column_for_each_role(run, folder):
    header, line, *rows = run("policy", "matrix", folder, "--format", "md").out.splitlines()
    assert set(line) == {"|", "-"}
    assert header.startswith("| object | action | owner (site) | gateway (site) | org-admin (")
    assert header.endswith("| group-member (group) | self (user) |")
    assert rows[1].startswith("| group | update | allow (policy.csv:8) | deny | allow (policy.")
    assert {row.count("|") for row in rows} == {header.count("|")}


def test_the_matrix_can_be_narrowed(run, folder):
    narrow = ["--role", "owner", "--object", "group", "--action", "read"]
    result = run("policy", "matrix", folder, *narrow, "--format", "csv")
    header, *rows = (folder / "matrix.csv").read_text().splitlines(keepends=True)
    assert result.out == header + "".join(r for r in rows if r.startswith("owner,group,read,"))


@pytest.mark.parametrize(
    ("option", "value", "meant"),
    [("--role", "ownr", "owner"), ("--object", "grup", "group"), ("--action", "raed", "read")],
)
def test_a_mistyped_name_is_wrong_usage_and_suggests_the_right_one(
    run, folder, option, value, meant
):
    result = run("policy", "matrix", folder, option, value)
    assert (result.status, result.out) == (2, "")
    assert f"did you mean `{meant}`" in result.err


def test_another_digest_than_the_demanded_one_is_a_finding(run, folder):
    demanded = f"sha256:{'0' * 64}"
    result = run("policy", "check", folder, policy_digest=demanded)
    assert result.status == 1
    which, line = result.out.splitlines()
    assert line.startswith(f"{folder.name}:0: digest-differs: ")
    assert demanded in line
    digest = which.split()[-1]
    assert run("policy", "check", folder, policy_digest=digest).status == 0
