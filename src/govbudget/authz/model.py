"""The pinned model: the one language that govbudget accepts policy lines in."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import zip_longest

from govbudget.errors import Finding

PINNED_MODEL = """\
[request_definition]
r = sub, org, grp, usr, obj, act

[policy_definition]
p = role, scope, obj, act, eft

[role_definition]
g = _, _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = r.obj == p.obj && r.act == p.act && (p.scope == "site" && g(r.sub, p.role, "site") || \
p.scope == "organization" && g(r.sub, p.role, r.org) || \
p.scope == "group" && g(r.sub, p.role, r.grp) || \
p.scope == "user" && g(r.sub, p.role, r.usr))
"""

_TOKEN = re.compile(r'"[^"]*"|[\w.]+|&&|\|\||==|[^ \t]')


def _meaningful_lines(text: str) -> list[tuple[int, str, tuple[str, ...]]]:
    """Give number, text and tokens of each line that is neither blank nor a comment.

    A section's name is one token: to Casbin, a space inside the brackets is part of it.
    """
    numbered = enumerate((line.strip(" \t\r") for line in text.split("\n")), start=1)
    return [
        (number, line, (line,) if line.startswith("[") else tuple(_TOKEN.findall(line)))
        for number, line in numbered
        if line and not line.startswith("#")
    ]


_PINNED = _meaningful_lines(PINNED_MODEL)


def compare_with_pinned_model(text: str, file: str) -> list[Finding]:
    """Find every line that differs from the pinned model in more than spacing and comment lines."""
    findings = []
    given = _meaningful_lines(text)
    end = (given[-1][0] if given else 1, "", ())
    mine_all, theirs_all = ([tokens for _, _, tokens in lines] for lines in (_PINNED, given))
    if mine_all == theirs_all:
        return []
    differences = SequenceMatcher(None, mine_all, theirs_all, autojunk=False).get_opcodes()
    for kind, i, i_end, j, j_end in differences:
        if kind == "equal":
            continue
        following = given[j_end] if j_end < len(given) else end
        for mine, theirs in zip_longest(_PINNED[i:i_end], given[j:j_end]):
            number, line, _ = theirs or following
            expected = f"`{mine[1]}`" if mine else "nothing here"
            found = f"`{line[:300]}`" if line else "the end of the file"
            advice = "write the expected line" if mine else "remove it"
            sentence = f"the model is pinned: expected {expected}, found {found}; {advice}"
            findings.append(Finding(file, number, "model-not-pinned", sentence))
    return findings
