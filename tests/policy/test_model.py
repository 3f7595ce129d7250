"""The model is pinned: this one, up to spacing and comment lines, and no other."""

from __future__ import annotations

import pytest
from tests.policy.helpers import MODEL, find

from govbudget.authz.model import compare_with_pinned_model

ONE_LINE = b"p, owner, site, group, read, allow\n"
TEXT = MODEL.decode()
ROWS = TEXT.split("\n")
LAST = len(ROWS) - 1  # the file ends with a newline


def number_of(start):
    """The line of the shipped model that starts like this."""
    (number,) = (n for n, row in enumerate(ROWS, start=1) if row.startswith(start))
    return number


R, P, G, E, M = (number_of(f"{key} = ") for key in "rpgem")

ACCEPTED = {
    "as it is": TEXT,
    "carriage returns": TEXT.replace("\n", "\r\n"),
    "no last newline": TEXT.rstrip("\n"),
    "no spaces around operators": TEXT.replace(" == ", "==").replace(" && ", "&&"),
    "no spaces around commas and =": TEXT.replace(", ", ",").replace(" = ", "="),
    "wide": TEXT.replace(" ", "  \t"),
    "indented": "\n".join("   " + row for row in ROWS),
    "more space in parentheses": TEXT.replace("(", "( ").replace(")", " )"),
    "a comment before each line": "".join(f"  # it's a comment\n{row}\n" for row in ROWS),
    "no comments, no blank lines": "\n".join(
        row for row in ROWS if row.strip() and not row.startswith("#")
    ),
}


def test_spacing_comment_lines_and_line_ends_may_differ():
    for name, text in ACCEPTED.items():
        found = compare_with_pinned_model(text.replace("\r\n", "\n"), "model.conf")
        assert found == [], name


def test_the_shipped_model_with_carriage_returns_is_accepted_by_the_reader():
    lines = b"nonsense"
    assert find(model=MODEL.replace(b"\n", b"\r\n"), lines=lines) == [
        ("policy.csv", 1, "unknown-line-type")
    ]


def change(old, new):
    assert TEXT.count(old) >= 1
    return TEXT.replace(old, new)


def replace_line(number, new):
    return "\n".join([*ROWS[: number - 1], new, *ROWS[number:]])


MATCHER = ROWS[M - 1]
AFTER_LAST = LAST + 1

REFUSED = {
    # each of these makes stock Casbin allow what the pinned model denies, or silently drops a part
    "continuation lost": (change(" || p.scope ==", " ||\np.scope =="), [M, M + 1, M + 2, M + 3]),
    "continuation by backslash": (change(" || p.scope == ", " || \\\np.scope == "), None),
    "effect for eft": (change("act, eft", "act, effect"), [P]),
    "comment on the p line": (change("act, eft", "act, eft # allow or deny"), [P]),
    "comment hides eft": (change(", eft", " # , eft"), [P]),
    "comment on the matcher": (replace_line(M, MATCHER + " # all of it"), [M]),
    "comment hides the end of the matcher": (change(" && (p.scope", " # && (p.scope"), [M]),
    "hash inside quotes": (change('"site" &&', '"#site" &&'), [M]),
    "second matcher": (TEXT + "m = true\n", [AFTER_LAST]),
    "second matcher before the first": (replace_line(M, f"m = true\n{MATCHER}"), [M]),
    "second section": (TEXT + "[matchers]\nm = true\n", [AFTER_LAST, AFTER_LAST + 1]),
    "second effect": (TEXT + "[policy_effect]\ne = !some(where (p.eft == deny))\n", None),
    "second p": (replace_line(P, f"{ROWS[P - 1]}\np2 = sub, obj"), [P + 1]),
    "misspelt section": (change("[matchers]", "[matcher]"), [M - 1]),
    "section in capitals": (change("[matchers]", "[Matchers]"), [M - 1]),
    "misspelt key": (change("m = ", "n = "), [M]),
    "unknown key": (TEXT + "x = 1\n", [AFTER_LAST]),
    "g without domain": (change("g = _, _, _", "g = _, _"), [G]),
    "g with a condition": (change("g = _, _, _", "g = _, _, _, (_, _)"), [G]),
    "second g": (change("g = _, _, _", "g = _, _, _\ng2 = _, _"), [G + 1]),
    "default allow": (replace_line(E, "e = !some(where (p.eft == deny))"), [E]),
    "deny ignored": (replace_line(E, "e = some(where (p.eft == allow))"), [E]),
    "first line wins": (replace_line(E, "e = priority(p.eft) || deny"), [E]),
    "effect says or": (change(")) && !some", ")) || !some"), [E]),
    "effect lost its not": (change("&& !some", "&& some"), [E]),
    "deny misspelt": (change("p.eft == deny", "p.eft == dney"), [E]),
    "no parentheses": (replace_line(M, MATCHER.replace("(p.scope", "p.scope")[:-1]), [M]),
    "or for and": (change("r.act == p.act &&", "r.act == p.act ||"), [M]),
    "action not read": (change("r.act == p.act && ", ""), [M]),
    "action compared with itself": (change("r.act == p.act", "r.act == r.act"), [M]),
    "scope not read": (change('p.scope == "group" && ', ""), [M]),
    "organization and group swapped": (change("p.role, r.org)", "p.role, r.grp)"), [M]),
    "role held anywhere": (change(", r.org)", ")"), [M]),
    "single quotes": (change('"site"', "'site'"), [M]),
    "space inside quotes": (change('"site"', '"site "'), [M]),
    "space inside an operator": (change("r.obj == p.obj", "r.obj = = p.obj"), [M]),
    "space inside a name": (change("r.obj ==", "r. obj =="), [M]),
    "capitals": (change("r.obj == p.obj", "R.obj == P.obj"), [M]),
    "matcher true": (replace_line(M, "m = true"), [M]),
    "eval": (replace_line(M, "m = eval(p.obj)"), [M]),
    "keyMatch": (change("r.obj == p.obj", "keyMatch(r.obj, p.obj)"), [M]),
    "regexMatch": (change("r.act == p.act", "regexMatch(r.act, p.act)"), [M]),
    "superuser": (replace_line(M, MATCHER + ' || r.sub == "root"'), [M]),
    "a field less": (change("r = sub, org, grp,", "r = sub, org,"), [R]),
    "a field more": (change("obj, act\n", "obj, act, env\n"), [R]),
    "user not read": (change(' || p.scope == "user" && g(r.sub, p.role, r.usr)', ""), [M]),
    "fields swapped": (change("r = sub, org, grp", "r = sub, grp, org"), [R]),
    "semicolon comment": (TEXT + "; a comment\n", [AFTER_LAST]),
    "no matcher": (TEXT.replace(MATCHER, ""), [M - 1]),
    "html": ("<html>", None),
    "empty": ("", None),
}


def test_any_other_model_is_refused_with_the_line_that_differs():
    for name, (text, numbers) in REFUSED.items():
        findings = find(model=text.encode(), lines=ONE_LINE)
        assert findings, name
        assert {(file, code) for file, _, code in findings} == {("model.conf", "model-not-pinned")}
        assert numbers in (None, [line for _, line, _ in findings]), name


def test_the_model_of_before_spend_is_refused_with_what_to_write_instead():
    old = change(" grp, usr,", " grp,")
    old = old.replace(' || p.scope == "user" && g(r.sub, p.role, r.usr)', "")
    asked, matcher = compare_with_pinned_model(old, "model.conf")
    assert (asked.line, matcher.line) == (R, M)
    assert f"`{ROWS[R - 1]}`" in asked.sentence
    assert f"`{MATCHER}`" in matcher.sentence


def test_the_difference_is_shown():
    (finding,) = compare_with_pinned_model(change("_, _, _", "_, _"), "model.conf")
    assert "expected `g = _, _, _`, found `g = _, _`" in finding.sentence


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (b"\xef\xbb\xbf" + MODEL, [(1, "byte-order-mark")]),
        (MODEL.replace(b"# ", "# \u00e9 ".encode(), 1), [(1, "not-ascii")]),
        (MODEL.replace(b'"site"', '"s\u0456te"'.encode()), [(M, "not-ascii")]),
        (MODEL.replace(b"eft\n", b"eft\0\n"), [(P, "not-ascii")]),
        (MODEL.replace(b"eft\n", b"eft\r\r\n"), [(P, "not-ascii")]),
        (
            MODEL.replace(b"# ", "# \u00e9 ".encode(), 1).replace(b", eft", b", effect"),
            [(1, "not-ascii"), (P, "model-not-pinned")],
        ),
    ],
    ids=["mark", "comment", "homoglyph", "nul", "lone-cr", "comment-and-another"],
)
def test_strange_characters_in_the_model_are_refused_and_hide_nothing(model, expected):
    assert find(model=model) == [("model.conf", line, code) for line, code in expected]
