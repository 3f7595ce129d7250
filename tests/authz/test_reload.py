"""Reloads under threads: nobody sees another answer, and the newest files win."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest
from tests.policy.helpers import LINES, MATRIX, write_policy

from govbudget import Action, ObjectType, Policy, PolicyError

THREADS = 3


@pytest.fixture(autouse=True)
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


@pytest.mark.parametrize("times", [50, pytest.param(1000, marks=pytest.mark.long)])
def test_threads_that_decide_during_reloads_of_the_same_files_never_see_another_answer(
    tmp_path, times
):
    policy = Policy.load(write_policy(tmp_path, matrix=MATRIX))
    tables = {id(policy.table): policy.table}

    def reload():
        policy.reload()
        tables[id(policy.table)] = policy.table

    assert decide_during(reload, times, policy) == []
    assert len(tables) == times + 1


def test_threads_that_decide_during_reloads_of_a_bad_file_never_see_another_answer(tmp_path):
    policy = Policy.load(write_policy(tmp_path))
    write_policy(tmp_path, lines=LINES + b"p, owner, site, group, read, dney\n")

    def reload():
        with pytest.raises(PolicyError, match="unknown-effect"):
            policy.reload()

    assert decide_during(reload, 50, policy) == []


def test_many_reloads_at_once_all_succeed(tmp_path):
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="holds a reload up with a named pipe")
def test_of_two_reloads_at_once_the_one_that_read_the_newer_files_wins(tmp_path):
    """The first reload has read the old lines and hangs at the matrix; the second starts then."""
    old = b"p, owner, site, group, read, allow\n"
    new = old + b"p, owner, site, group, update, allow\n"
    folder = write_policy(tmp_path / "policy", lines=old)
    policy = Policy.load(folder)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (folder / "matrix.csv").symlink_to(pipe)

    first = threading.Thread(target=policy.reload)
    first.start()
    writer = pipe.open("wb")  # returns when the first reload has opened it, its lines read
    (folder / "matrix.csv").unlink()
    write_policy(folder, lines=new)
    second = threading.Thread(target=policy.reload)
    second.start()
    second.join(0.3)
    writer.write(b"role,object,action,decision\nowner,group,read,allow\n")
    writer.close()
    first.join()
    second.join()
    assert policy.digest == Policy.load(folder).digest
    assert policy.decide({"owner"}, "group", "update").allowed
