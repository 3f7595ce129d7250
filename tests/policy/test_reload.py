"""Reloads: all or nothing; threads never see another answer, and the newest files win."""

from __future__ import annotations

import sys
import threading
import time

import pytest
from tests.policy.helpers import LINES, MATRIX, MODEL, write_policy

from govbudget import Policy, PolicyError
from govbudget.authz import policy as policies
from govbudget.identity import Action, ObjectType

READS = b"p, owner, site, group, read, allow\n"
UPDATES = b"p, owner, site, group, update, allow\n"
BUDGETS = b"p, owner, site, group_ai_budget, read, allow\n"
REVIEW = b"role,object,action,decision\nowner,group,read,allow\n"
REVIEWED_BUDGETS = REVIEW + b"owner,group_ai_budget,read,allow\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with one line, which nobody has reviewed."""
    return write_policy(tmp_path / "policy", lines=READS)


def may_update(policy):
    return policy.decide({"owner"}, "group", "update").allowed


@pytest.mark.usefixtures("casbin")
def test_a_reload_puts_the_new_files_in_force(folder):
    policy = Policy.load(folder)
    before = policy.digest
    write_policy(folder, lines=READS + UPDATES)
    assert not may_update(policy)
    policy.reload()
    assert may_update(policy)
    assert policy.decide({"owner"}, "group", "update").policy_digest == policy.digest != before


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"lines": READS + b"p, owner, site, group, read, dney\n"}, "unknown-effect"),
        ({"lines": b""}, "no-lines"),
        ({"model": MODEL.replace(b"_, _, _", b"_, _")}, "model-not-pinned"),
        ({"matrix": REVIEW.replace(b"read", b"update")}, "matrix-differs"),
        ({"lines": READS + BUDGETS}, "not-reviewed"),
        ({"lines": READS + BUDGETS, "matrix": REVIEWED_BUDGETS}, "needs-restart"),
    ],
)
def test_a_reload_that_raises_keeps_the_table_in_force(folder, change, code):
    policy = Policy.load(folder)
    table = policy.table
    write_policy(folder, **{"lines": READS, **change})
    with pytest.raises(PolicyError, match=code):
        policy.reload()
    assert policy.table is table
    write_policy(folder, lines=READS + UPDATES, matrix=REVIEW + b"owner,group,update,allow\n")
    policy.reload()
    assert may_update(policy)


def test_a_reload_without_the_folder_keeps_the_table_in_force(folder):
    policy = Policy.load(folder)
    folder.rename(folder.with_name("away"))
    with pytest.raises(PolicyError, match="unreadable-file"):
        policy.reload()
    assert policy.decide({"owner"}, "group", "read").allowed


def test_a_reload_demands_the_pinned_digest(folder):
    digest = Policy.load(folder).digest
    policy = Policy.load(folder, digest=digest)
    policy.reload()
    write_policy(folder, lines=READS + UPDATES)
    with pytest.raises(PolicyError, match="digest-differs"):
        policy.reload()
    assert policy.digest == digest
    assert not may_update(policy)


THREADS = 3


@pytest.fixture
def quick_switches():
    """Threads take turns every few microseconds: more interleavings, and nobody starves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def list_answers(policy):
    return [
        policy.decide(roles, obj, action)
        for roles in ((), ("owner",), ("group-member",), ("org-admin", "group-member"))
        for obj in ObjectType
        for action in Action
    ]


def decide_during(reload, times, policy):
    """Decide in threads while reloading; give each answer set that was not the first one."""
    expected = list_answers(policy)
    done = threading.Event()
    strange, counts = [], []

    def decide():
        count = 0
        while not done.is_set():
            count += 1
            try:
                answers = list_answers(policy)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                answers = error
            if answers != expected:
                strange.append(answers)
            time.sleep(0.0005)  # the reloads are to get somewhere, too
        counts.append(count)

    threads = [threading.Thread(target=decide) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(times):
            reload()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert min(counts) > 0
    return strange


@pytest.mark.usefixtures("casbin")
@pytest.mark.slow
def test_threads_that_decide_during_reloads_of_the_same_files_never_see_another_answer(
    tmp_path, quick_switches
):
    policy = Policy.load(write_policy(tmp_path, matrix=MATRIX))
    tables = {id(policy.table): policy.table}

    def reload():
        policy.reload()
        tables[id(policy.table)] = policy.table

    assert decide_during(reload, 20, policy) == []
    assert len(tables) == 21


@pytest.mark.usefixtures("casbin")
@pytest.mark.slow
def test_threads_that_decide_during_reloads_of_a_bad_file_never_see_another_answer(
    tmp_path, quick_switches
):
    policy = Policy.load(write_policy(tmp_path))
    write_policy(tmp_path, lines=LINES + b"p, owner, site, group, read, dney\n")

    def reload():
        with pytest.raises(PolicyError, match="unknown-effect"):
            policy.reload()

    assert decide_during(reload, 50, policy) == []


@pytest.mark.usefixtures("casbin")
@pytest.mark.slow
def test_many_reloads_at_once_all_succeed(tmp_path, quick_switches):
    policy = Policy.load(write_policy(tmp_path))
    before, failures = list_answers(policy), []

    def reload():
        try:
            policy.reload()
        except Exception as error:  # noqa: BLE001 - as above
            failures.append(error)

    threads = [threading.Thread(target=reload) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list_answers(policy) == before


@pytest.mark.usefixtures("casbin")
@pytest.mark.slow
def test_of_two_reloads_at_once_the_one_that_read_the_newer_files_wins(folder, monkeypatch):
    """The first reload has read the old lines when the second starts, and goes on later."""
    policy = Policy.load(folder)
    has_read, goes_on, read = threading.Event(), threading.Event(), policies.read_policy_files

    def read_and_wait(path):
        files = read(path)
        if not has_read.is_set():
            has_read.set()
            goes_on.wait()
        return files

    monkeypatch.setattr(policies, "read_policy_files", read_and_wait)
    reloads = [threading.Thread(target=policy.reload) for _ in range(2)]
    reloads[0].start()
    has_read.wait()
    write_policy(folder, lines=READS + UPDATES)
    reloads[1].start()
    reloads[1].join(0.3)  # time to be done, if it did not wait for the first
    goes_on.set()
    for reload in reloads:
        reload.join()
    assert policy.digest == Policy.load(folder).digest
    assert may_update(policy)
