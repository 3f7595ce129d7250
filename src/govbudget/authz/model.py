"""The pinned model: the one language that govbudget accepts policy lines in."""

from __future__ import annotations

import re
from itertools import zip_longest

from govbudget.errors import Finding

PINNED_MODEL = """\
[request_definition]
r = sub, org, grp, obj, act

[policy_definition]
p = role, scope, obj, act, eft

[role_definition]
g = _, _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = r.obj == p.obj && r.act == p.act && (p.scope == "site" && g(r.sub, p.role, "site") || \
p.scope == "organization" && g(r.sub, p.role, r.org) || \
p.scope == "group" && g(r.sub, p.role, r.grp))
"""

_TOKEN = re.compile(r'"[^"]*"|[\w.]+|&&|\|\||==|[^ \t]')


def _meaningful_lines(text: str) -> list[tuple[int, str, list[str]]]:
    """Give number, text and tokens of each line that is neither blank nor a comment."""
    numbered = enumerate((line.strip(" \t\r") for line in text.split("\n")), start=1)
    return [
        (number, line, _TOKEN.findall(line))
        for number, line in numbered
        if line and not line.startswith("#")
    ]


def compare_with_pinned_model(text: str, file: str) -> list[Finding]:
    """Find every line that differs from the pinned model in more than spacing and comment lines."""
    findings = []
    pinned = _meaningful_lines(PINNED_MODEL)
    given = _meaningful_lines(text)
    last = given[-1][0] if given else 1
    for mine, theirs in zip_longest(pinned, given):
        if mine is not None and theirs is not None and mine[2] == theirs[2]:
            continue
        expected = f"`{mine[1]}`" if mine else "nothing more"
        found = f"`{theirs[1]}`" if theirs else "the end of the file"
        findings.append(
            Finding(
                file,
                theirs[0] if theirs else last,
                "model-not-pinned",
                f"the model is pinned: expected {expected}, found {found}",
            )
        )
    return findings
