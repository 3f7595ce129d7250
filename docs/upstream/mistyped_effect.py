"""Shows that a mistyped effect turns a deny line into nothing, so that an allow line decides.

Needs pycasbin and nothing else: python mistyped_effect.py
Prints, for each way to write the effect, whether alice is allowed, and the line that `enforce_ex`
gives as the reason. Ends with status 1 where any of them allowed her, else with 0.
"""

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import casbin

MODEL = """
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act, eft

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
"""

EFFECTS = (
    "deny",
    "dney",
    "Deny",
    "denied",
    "",
    "deny # since May",
    "d\u0435ny",
)  # a Cyrillic letter


def ask(effect):
    """Whether alice is allowed by a policy with this deny line, and why; or the error."""
    with tempfile.TemporaryDirectory() as folder:
        model, policy = Path(folder, "model.conf"), Path(folder, "policy.csv")
        model.write_text(MODEL)
        lines = f"p, alice, data, read, allow\np, alice, data, read, {effect}\n"
        policy.write_text(lines, encoding="utf-8")
        try:
            return casbin.Enforcer(str(model), str(policy)).enforce_ex("alice", "data", "read")
        except Exception as error:  # which is what we would like to see
            return False, repr(error)


def main():
    print(f"pycasbin {version('pycasbin')}, Python {sys.version.split()[0]}")
    answers = {effect: ask(effect) for effect in EFFECTS}
    for effect, (allowed, why) in answers.items():
        print(f"{effect!a}: {'allowed' if allowed else 'denied'}, because of {why!a}")
    return 1 if any(allowed for allowed, _ in answers.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
