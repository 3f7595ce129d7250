"""The action for pull requests and the hooks for commits, tried on real repositories."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.docs.support import ROOT, read_blocks
from tests.review.helpers import FOLDERS, append, copy_policy
from tests.review.test_remarks import HEADER, HOSTILE, VIEWER, parse_command

PAGE = ROOT / "docs" / "how-to" / "review-in-your-tools.md"
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = ACTION["runs"]["steps"]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
APPROVED = f"{HEADER}viewer,group,read,allow,organization\n"
UPDATE = "p, user-admin, organization, group, update, allow\n"


class Repository:
    """A git repository with a policy in it, and what a runner would give a job in it."""

    def __init__(self, root):
        self.root, self.top, self.temp = root, root / "checkout", root / "temp"
        self.policy = copy_policy(FOLDERS["shipped"], self.top / "policy")
        (self.top / "approved-gains.csv").write_text(HEADER)
        (self.temp / "govbudget" / "bin").mkdir(parents=True)
        command = Path(sys.executable).parent / "govbudget"
        (self.temp / "govbudget" / "bin" / "govbudget").symlink_to(command)
        self.run("git", "init", "--quiet", "--initial-branch=main")
        self.base = self.commit()

    def run(self, *command, **variables):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "GOVBUDGET_"))}
        who = {f"GIT_{person}_{what}": "a@example.org" for person in ("AUTHOR", "COMMITTER")
               for what in ("NAME", "EMAIL")}  # fmt: skip
        none = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        return subprocess.run(
            command,
            cwd=self.top,
            env=kept | who | none | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def commit(self):
        self.run("git", "add", "--all")
        assert self.run("git", "commit", "--quiet", "-m", "change").returncode == 0
        self.head = self.run("git", "rev-parse", "HEAD").stdout.strip()
        return self.head

    def review(self, **inputs):
        """Run the action's steps but the first, as a runner does; the answers, and the summary."""
        defaults = {name: value["default"] for name, value in ACTION["inputs"].items()}
        known = {f"inputs.{name}": value for name, value in (defaults | inputs).items()}
        event = "github.event.pull_request"
        known |= {f"{event}.base.sha": self.base, f"{event}.head.sha": self.head}
        known["runner.temp"] = str(self.temp)
        summary = self.root / "summary.md"
        summary.write_text("")
        answers = [
            self.run(
                *("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]),
                GITHUB_STEP_SUMMARY=str(summary),
                **{name: fill(text, known) for name, text in step["env"].items()},
            )
            for step in STEPS[1:]
        ]
        return (
            [a.returncode for a in answers],
            "".join(a.stdout + a.stderr for a in answers),
            summary,
        )


def fill(text, known):
    return re.sub(r"\$\{\{ ([\w.]+) \}\}", lambda found: known[found[1]], text)


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def find_commands(log):
    """What the runner takes for commands: lines that start so, and the older form anywhere."""
    return [line for line in re.split(r"[\r\n]+", log) if line.startswith("::") or "##[" in line]


def read_summary(summary):
    return html.unescape(summary.read_text())


# -- the action --


def test_no_script_of_the_action_holds_an_input():
    """What is written into a script is code; the value of a variable is not."""
    assert len(STEPS) == 3
    for step in STEPS:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]
        used = set(re.findall(r"\$\{?([A-Z_]+)", step["run"])) - {"GITHUB_STEP_SUMMARY"}
        assert used == step["env"].keys()
    named = " ".join(text for step in STEPS for text in step["env"].values())
    assert set(re.findall(r"inputs\.(\w+)", named)) == ACTION["inputs"].keys()


@pytest.mark.long
def test_a_change_without_a_gain_passes(repository):
    append(repository.policy / "policy.csv", "# a comment\n")
    repository.commit()
    statuses, log, summary = repository.review()
    assert (statuses, find_commands(log)) == ([0, 0], [])
    assert "Nothing to report." in summary.read_text()
    assert f"revision {repository.base} of policy" in read_summary(summary)


@pytest.mark.long
def test_a_gain_fails_beside_its_line_until_it_is_approved(repository):
    append(repository.policy / "policy.csv", VIEWER)
    append(repository.policy / "matrix.csv", "viewer,group,read,allow,organization\n")
    repository.commit()
    statuses, log, summary = repository.review(approvals="approved-gains.csv")
    assert statuses == [0, 1]
    (command,) = find_commands(log)
    kind, values, said = parse_command(command)
    last = len((repository.policy / "policy.csv").read_text().splitlines())
    assert kind == "error"
    assert values == {"file": "policy/policy.csv", "line": str(last), "title": "gain"}
    assert "gains group read: deny -> allow" in said
    assert f"| gain | {said} | policy/policy.csv:{last} |" in read_summary(summary)
    (repository.top / "approved-gains.csv").write_text(APPROVED)
    repository.commit()
    statuses, log, _ = repository.review(approvals="approved-gains.csv")
    assert statuses == [0, 0]
    assert [parse_command(line)[0] for line in find_commands(log)] == ["notice"]


@pytest.mark.long
def test_a_tag_called_as_the_base_is_no_way_around(repository):
    """Whoever may push tags could else choose what the change is compared with."""
    repository.run("git", "update-ref", "refs/remotes/origin/main", repository.base)
    append(repository.policy / "policy.csv", VIEWER)
    repository.commit()
    assert repository.review(base="origin/main")[0][1] == 1
    repository.run("git", "tag", "origin/main")
    statuses, log, _ = repository.review(base="origin/main")
    assert statuses[1] == 2
    assert "git knows more than one `origin/main`" in log
    assert repository.review(base="refs/remotes/origin/main")[0][1] == 1


@pytest.mark.long
def test_a_folder_may_be_called_as_the_base(repository):
    (repository.top / "main").mkdir()
    assert repository.review(base="main")[0] == [0, 0]


@pytest.mark.long
def test_a_base_that_is_not_in_the_checkout_is_said_with_what_to_do(repository):
    for base in ("origin/nothing", "0" * 40):
        statuses, log, _ = repository.review(base=base)
        assert statuses == [0, 2]
        (command,) = find_commands(log)
        assert "fetch-depth: 0" in command


@pytest.mark.long
def test_a_target_is_not_compared_with_itself(repository):
    """That is what the event `pull_request_target` checks out."""
    append(repository.policy / "policy.csv", VIEWER)
    repository.commit()
    repository.run("git", "checkout", "--quiet", "--detach", repository.base)
    statuses, log, _ = repository.review()
    assert statuses == [0, 2]
    (command,) = find_commands(log)
    assert "The change is not in this checkout" in command


@pytest.fixture
def parted(repository):
    """A change, and a target that has gone on: it lost one right, and gave another."""
    append(repository.policy / "policy.csv", "# a comment\n")
    change = repository.commit()
    repository.run("git", "checkout", "--quiet", "--detach", repository.base)
    lines = repository.policy / "policy.csv"
    lines.write_text("# of the target\n" + lines.read_text().replace(UPDATE, "\n") + VIEWER)
    target = repository.commit()
    repository.head = change
    return repository, target, change


@pytest.mark.long
def test_what_others_merged_meanwhile_is_not_the_changes(parted):
    """Seen from the change, what the target lost would be a gain."""
    repository, target, change = parted
    repository.run("git", "checkout", "--quiet", "--detach", change)
    repository.base = target
    assert repository.review()[0] == [0, 0]
    assert repository.review(base=target)[0] == [0, 0]


@pytest.mark.long
def test_nor_is_it_in_the_merge_that_github_makes_however_old_the_event_is(parted):
    """The event names the target of when it was made, the merge has that of now."""
    repository, target, change = parted
    (repository.policy / "matrix.csv").unlink()
    target = repository.commit()
    repository.run("git", "merge", "--quiet", "--no-edit", "-X", "theirs", change)
    repository.head = change
    assert repository.run("git", "rev-parse", "HEAD^1", "HEAD^2").stdout.split() == [target, change]
    statuses, log, _ = repository.review()
    assert statuses[1] == 0, log
    append(repository.policy / "policy.csv", VIEWER.replace("viewer", "other"))
    repository.run("git", "commit", "--quiet", "--all", "--amend", "--no-edit")
    assert repository.review()[0][1] == 1


@pytest.mark.long
@pytest.mark.parametrize("text", HOSTILE[:2])
def test_a_hostile_change_is_an_error_and_no_command(repository, text):
    append(repository.policy / "policy.csv", f"{text}\np, {text}, site, group, read, allow\n")
    repository.commit()
    statuses, log, summary = repository.review()
    assert statuses == [1, 2]
    assert {parse_command(line)[0] for line in find_commands(log)} == {"error"}
    assert text not in summary.read_text()
    assert text in read_summary(summary)


@pytest.mark.long
def test_a_link_to_a_folder_with_a_commands_name_is_no_command(repository):
    target = repository.top / "##[add-mask]allow"
    repository.policy.rename(target)
    repository.policy.symlink_to(target.name)
    repository.commit()
    statuses, log, _ = repository.review()
    assert statuses == [0, 2]  # servers follow links, and a diff does not
    assert "is a symbolic link" in log
    assert find_commands(log) == []


@pytest.mark.long
def test_an_input_is_a_path_and_not_code(repository):
    for text in ('x"; touch pwned; "', "$(touch pwned)", "--help", "`touch pwned`\ntouch pwned"):
        statuses, *_ = repository.review(policy=text, base=text, approvals=text)
        assert statuses == [1, 2]
        assert not (repository.top / "pwned").exists()


# -- the hooks --


def test_the_hooks_are_named_in_the_page_and_no_commit_goes_without_them():
    """Before a commit that deletes a file, or makes it a link, pre-commit names no file."""
    (config,) = [yaml.safe_load(b) for b in read_blocks(PAGE, "yaml") if b.startswith("repos")]
    assert [hook["id"] for hook in HOOKS] == [hook["id"] for hook in config["repos"][0]["hooks"]]
    for hook in HOOKS:
        assert hook["always_run"] is True
        assert hook["pass_filenames"] is False


@pytest.mark.long
def test_the_commands_of_the_hooks_pass_and_fail_as_the_page_says(repository):
    (config,) = [yaml.safe_load(b) for b in read_blocks(PAGE, "yaml") if b.startswith("repos")]
    entries = {hook["id"]: hook["entry"].split() for hook in HOOKS}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def run_hooks():
        return [
            repository.run(*entries[hook["id"]], *hook["args"], PATH=path).returncode
            for hook in config["repos"][0]["hooks"]
        ]

    repository.run("git", "update-ref", "refs/remotes/origin/main", "HEAD")
    assert run_hooks() == [0, 0]
    append(repository.policy / "policy.csv", VIEWER)
    assert run_hooks() == [1, 1]
    append(repository.policy / "matrix.csv", "viewer,group,read,allow,organization\n")
    assert run_hooks() == [0, 1]
    (repository.top / "approved-gains.csv").write_text(APPROVED)
    assert run_hooks() == [0, 0]
    repository.commit()
    append(repository.policy / "policy.csv", "# a second commit of the change\n")
    assert run_hooks() == [0, 0]
    repository.commit()
    (repository.policy / "matrix.csv").unlink()
    assert run_hooks() == [1, 0]
    repository.policy.rename(repository.top / "lab")
    repository.policy.symlink_to("lab")
    assert run_hooks() == [1, 2]


# -- with what they install --


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A repository of govbudget as the working tree has it."""
    folder = tmp_path_factory.mktemp("copy") / "govbudget"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.wheel
def test_the_first_step_of_the_action_installs_what_the_others_run(repository, copy):
    append(repository.policy / "policy.csv", VIEWER)
    repository.commit()
    (repository.top / "venv.py").write_text("raise SystemExit('code of the change ran')")
    shutil.rmtree(repository.temp)
    env = {"SOURCE": str(copy), "VENV": str(repository.temp / "govbudget")}
    assert STEPS[0]["env"].keys() == env.keys()
    done = repository.run("bash", "-eo", "pipefail", "-c", STEPS[0]["run"], **env)
    assert done.returncode == 0, done.stdout + done.stderr
    statuses, _, summary = repository.review()
    assert statuses == [1, 1]
    assert "| gain |" in summary.read_text()


@pytest.mark.wheel
def test_pre_commit_installs_the_hooks_and_a_gain_stops_the_commit(repository, copy):
    hub = Repository.__new__(Repository)
    hub.top = copy
    hub.run("git", "init", "--quiet", "--initial-branch=main")
    hub.commit()
    (config,) = [b for b in read_blocks(PAGE, "yaml") if b.startswith("repos")]
    config = config.replace("https://git.example/you/govbudget", str(copy))
    (repository.top / ".pre-commit-config.yaml").write_text(config)
    repository.run("git", "update-ref", "refs/remotes/origin/main", "HEAD")
    tool = {"PRE_COMMIT_HOME": str(repository.root / "hooks")}
    pre_commit = (sys.executable, "-m", "pre_commit")
    assert repository.run(*pre_commit, "install", **tool).returncode == 0
    append(repository.policy / "policy.csv", VIEWER)
    append(repository.policy / "matrix.csv", "viewer,group,read,allow,organization\n")
    repository.run("git", "add", "--all")
    refused = repository.run("git", "commit", "-m", "a gain", **tool)
    assert refused.returncode == 1, refused.stdout + refused.stderr
    said = refused.stdout + refused.stderr
    assert re.search(r"govbudget policy check\.+Passed", said), said
    assert re.search(r"govbudget policy diff\.+Failed", said), said
    assert "+ gains group read: deny -> allow" in said
    (repository.top / "approved-gains.csv").write_text(APPROVED)
    repository.run("git", "add", "--all")
    passed = repository.run("git", "commit", "-m", "an approved gain", **tool)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    (repository.policy / "matrix.csv").unlink()
    repository.run("git", "add", "--all")
    refused = repository.run("git", "commit", "-m", "only less", **tool)
    assert refused.returncode == 1, refused.stdout + refused.stderr
