"""Shows that `Enforcer.load_policy()` lets through what the policy denies while it runs.

Needs pycasbin and nothing else: python reload_under_threads.py [SECONDS]
The policy does not change, and the answer to the question is always "denied".

First without threads: a role manager asks right after it was cleared, as another thread may. Then
one thread reloads and three ask. Prints how many answers there were and how many were wrong, for
`Enforcer`, for `SyncedEnforcer`, and for a new `Enforcer` that replaces the old one. Ends with
status 1 where an answer of `Enforcer` was wrong, else with 0.
"""

import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

import casbin
from casbin.rbac.default_role_manager import RoleManager

MODEL = """
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act, eft

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
"""

# alice may read the data, and whoever is suspended may not. alice is suspended, the last of 500.
POLICY = "p, alice, data, read, allow\np, suspended, data, read, deny\n" + "".join(
    f"g, {user}, suspended\n" for user in (*(f"user{n}" for n in range(499)), "alice")
)


def ask_while_cleared(enforcer):
    """Reload once; whether the question was allowed in the middle of it, and afterwards."""
    answers = []

    class Asking(RoleManager):
        def clear(self):
            super().clear()
            answers.append(enforcer.enforce("alice", "data", "read"))

    enforcer.set_role_manager(Asking(10))
    enforcer.load_policy()  # from here on it is in use
    enforcer.load_policy()
    return answers[-1], enforcer.enforce("alice", "data", "read")


def count_answers(seconds, enforce, reload):
    """Ask from three threads while a fourth reloads; the answers and the wrong ones."""
    ends, answers, wrong = time.monotonic() + seconds, [], []

    def ask():
        while time.monotonic() < ends:
            try:
                (wrong if enforce("alice", "data", "read") else answers).append(1)
            except SystemError:  # of `ast.parse` in threads, on CPython 3.11; another matter
                pass

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    while time.monotonic() < ends:
        reload()
    for asker in askers:
        asker.join()
    return len(answers) + len(wrong), len(wrong)


def main(seconds=2.0):
    with tempfile.TemporaryDirectory() as folder:
        model, policy = Path(folder, "model.conf"), Path(folder, "policy.csv")
        model.write_text(MODEL)
        policy.write_text(POLICY)
        files = str(model), str(policy)

        shared, synced = casbin.Enforcer(*files), casbin.SyncedEnforcer(*files)
        current = [casbin.Enforcer(*files)]

        def replace():
            current[0] = casbin.Enforcer(*files)

        print(f"pycasbin {version('pycasbin')}, Python {sys.version.split()[0]}")
        while_cleared, afterwards = ask_while_cleared(casbin.Enforcer(*files))
        print(
            f"in the middle of a reload: {'allowed' if while_cleared else 'denied'}, "
            f"afterwards: {'allowed' if afterwards else 'denied'}"
        )
        found = {
            "Enforcer": count_answers(seconds, shared.enforce, shared.load_policy),
            "SyncedEnforcer": count_answers(seconds, synced.enforce, synced.load_policy),
            "replaced": count_answers(seconds, lambda *asked: current[0].enforce(*asked), replace),
        }
    for name, (answers, wrong) in found.items():
        print(f"{name}: {answers} answers, {wrong} wrong")
    return 1 if while_cleared or found["Enforcer"][1] else 0


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
