"""Policy.load and reload, from real folders."""

from __future__ import annotations

import logging
import os
import shutil

import pytest
from tests.policy.helpers import LINES, MATRIX, MODEL, list_findings, write_policy

from govbudget import Policy, PolicyError
from govbudget.authz.files import packaged_policy_dir, read_policy_files

READS = b"p, owner, site, group, read, allow\n"
UPDATES = b"p, owner, site, group, update, allow\n"
REVIEW = b"role,object,action,decision\nowner,group,read,allow\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with one line, which nobody has reviewed."""
    return write_policy(tmp_path / "policy", lines=READS)


def refuse(folder, **options):
    with pytest.raises(PolicyError) as caught:
        Policy.load(folder, **options)
    return list_findings(caught.value)


def may_update(policy):
    return policy.decide({"owner"}, "group", "update").allowed


def test_the_packaged_policy_is_loaded_by_default(policy):
    assert Policy.load().digest == policy.digest


def test_who_searches_the_policy_for_budget_finds_what_a_budget_is_authorized_as():
    """No line of the shipped policy names a budget, so a comment has to."""
    (found,) = [line for line in LINES.decode().splitlines() if "budget" in line]
    assert found.startswith("# A budget is authorized as its group: ")


def test_a_folder_without_a_matrix_is_loaded(folder):
    assert Policy.load(str(folder)).decide({"owner"}, "group", "read").allowed


def test_a_folder_with_a_matrix_must_agree_with_it(folder):
    write_policy(folder, lines=READS, matrix=REVIEW)
    assert not may_update(Policy.load(folder))
    write_policy(folder, lines=READS + UPDATES)
    assert refuse(folder) == [("matrix.csv", 0, "matrix-differs")]


def refuse_to_read(folder):
    with pytest.raises(PolicyError) as caught:
        read_policy_files(folder)
    return list_findings(caught.value)


def test_missing_files_are_all_named_at_once(tmp_path):
    both = [("model.conf", 0, "unreadable-file"), ("policy.csv", 0, "unreadable-file")]
    assert refuse_to_read(tmp_path) == both
    assert refuse_to_read(tmp_path / "no-such-folder") == both
    (tmp_path / "model.conf").write_bytes(MODEL)
    assert refuse_to_read(tmp_path / "model.conf") == both


@pytest.mark.parametrize("name", ["model.conf", "policy.csv", "matrix.csv"])
def test_a_file_that_is_a_folder_or_a_lost_link_or_too_large_is_refused(folder, name):
    path = folder / name
    path.unlink(missing_ok=True)
    path.mkdir()
    assert refuse_to_read(folder) == [(name, 0, "unreadable-file")]
    path.rmdir()
    path.symlink_to(folder / "gone")
    assert refuse_to_read(folder) == [(name, 0, "unreadable-file")]
    path.unlink()
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    assert refuse_to_read(folder) == [(name, 0, "file-too-large")]


def test_a_file_of_one_mebibyte_is_read(folder):
    (folder / "policy.csv").write_bytes(b"#" * 1024 * 1024)
    assert len(read_policy_files(folder).lines) == 1024 * 1024


def test_the_digest_names_the_files_that_decide_and_nothing_else(folder):
    digest = Policy.load(folder).digest
    assert digest.startswith("sha256:")
    write_policy(folder, lines=READS, matrix=REVIEW)
    assert Policy.load(folder).digest == digest
    write_policy(folder, lines=READS + b"# a comment\n")
    commented = Policy.load(folder).digest
    write_policy(folder, lines=READS, model=MODEL + b"# a comment\n")
    assert len({digest, commented, Policy.load(folder).digest}) == 3


def test_a_pinned_digest_is_demanded(folder):
    digest = Policy.load(folder).digest
    assert Policy.load(folder, digest=digest).digest == digest
    for other in ("", digest.upper(), digest[:-1]):
        assert refuse(folder, digest=other) == [(folder.name, 0, "digest-differs")]


LOGGERS = [
    logging.getLogger(name)
    for name in (
        "casbin",
        "casbin.policy",
        "casbin.enforcer",
        "casbin.role",
        "casbin.of-the-host",
        "govbudget",
        "govbudget.request",
    )
]


def describe(logger):
    return logger.disabled, logger.level, list(logger.handlers), logger.propagate


@pytest.mark.usefixtures("casbin")
@pytest.mark.parametrize("disabled", [False, True])
@pytest.mark.parametrize("good", [True, False])
def test_loggers_are_as_the_host_had_them_after_a_load(folder, monkeypatch, caplog, disabled, good):
    for logger in LOGGERS:
        monkeypatch.setattr(logger, "disabled", disabled)
    before = [describe(logger) for logger in LOGGERS]
    write_policy(folder, lines=READS, matrix=REVIEW if good else REVIEW.replace(b"read", b"update"))
    with caplog.at_level(logging.DEBUG):
        if good:
            Policy.load(folder)
        else:
            refuse(folder)
        for logger in LOGGERS:
            assert logger.isEnabledFor(logging.ERROR) is not disabled
    assert [describe(logger) for logger in LOGGERS] == before
    assert caplog.records == []


def test_a_custom_role_is_a_line_in_the_policy_and_one_in_the_matrix(tmp_path):
    line = b"p, budget-viewer, organization, group, read, allow\n"
    row = b"budget-viewer,group,read,allow\n"
    folder = write_policy(tmp_path, lines=LINES + line, matrix=MATRIX)
    assert refuse(folder) == [("matrix.csv", 0, "matrix-differs")]
    write_policy(tmp_path, lines=LINES + line, matrix=MATRIX + row)
    policy = Policy.load(folder)
    number = LINES.count(b"\n") + 1
    assert policy.decide({"budget-viewer"}, "group", "read").lines == (f"policy.csv:{number}",)
    assert not policy.decide({"budget-viewer"}, "group", "update").allowed
    assert not policy.decide({"budget-viewer"}, "ai_model_price", "read").allowed


@pytest.mark.parametrize("name", ["model.conf", "policy.csv", "matrix.csv"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path, name, make):
    folder = shutil.copytree(packaged_policy_dir(), tmp_path / "policy")
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(PolicyError, match="not a regular file") as refused:
        Policy.load(folder)
    assert [(f.file, f.code) for f in refused.value.findings] == [(name, "unreadable-file")]
