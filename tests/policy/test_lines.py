"""Hostile policy.csv files: what Casbin would skip, cut off or misread is refused at load."""

from __future__ import annotations

import pytest
from tests.policy.helpers import LINES, MODEL, find, load

from govbudget.authz.files import PolicyFiles
from govbudget.authz.reader import read_policy

GOOD = b"p, owner, site, group, read, allow\n"

REFUSED_LINES = {
    # an effect that Casbin would take for no effect at all, so that the deny is lost
    "effect-mistyped": ("p, owner, site, group, read, dney", "unknown-effect"),
    "effect-capitalised": ("p, owner, site, group, read, Deny", "unknown-effect"),
    "effect-empty": ("p, owner, site, group, read,", "unknown-effect"),
    "effect-with-comment": ("p, owner, site, group, read, deny # until May", "unknown-effect"),
    "effect-with-semicolon": ("p, owner, site, group, read, deny;", "unknown-effect"),
    "effect-quoted": ('p, owner, site, group, read, "deny"', "unknown-effect"),
    "effect-single-quoted": ("p, owner, site, group, read, 'deny'", "unknown-effect"),
    # characters that look like others, or like nothing
    "homoglyph": ("p, owner, site, group, read, d\u0435ny", "not-ascii"),
    "zero-width-space": ("p, owner, site, group, read, deny\u200b", "not-ascii"),
    "zero-width-joiner": ("p, own\u200der, site, group, read, deny", "not-ascii"),
    "soft-hyphen": ("p, own\u00ader, site, group, read, deny", "not-ascii"),
    "no-break-space": ("p,\u00a0owner, site, group, read, deny", "not-ascii"),
    "fullwidth-comma": ("p\uff0c owner, site, group, read, deny", "not-ascii"),
    "right-to-left-override": ("p, owner, site, group, read, \u202edeny", "not-ascii"),
    "line-separator": ("p, owner, site, group, read, deny\u2028", "not-ascii"),
    "byte-order-mark-inside": ("\ufeffp, owner, site, group, read, deny", "not-ascii"),
    "strange-comment": ("# caf\u00e9", "not-ascii"),
    "nul": ("p, owner, site, group, read, deny\0", "not-ascii"),
    "lone-cr": ("p, owner, site, group, read, deny\r\r", "not-ascii"),
    "lone-cr-inside": ("# harmless\rp, owner, site, group, read, deny", "not-ascii"),
    "form-feed": ("\fp, owner, site, group, read, deny", "not-ascii"),
    "vertical-tab": ("p, owner, site, group, read, deny\v", "not-ascii"),
    "escape": ("p, owner, site, group, read, \x1b[8mdeny", "not-ascii"),
    "delete": ("p, owner, site, group, read, deny\x7f", "not-ascii"),
    # files that are something else
    "g-line": ("g, mallory, owner, site", "unknown-line-type"),
    "g-line-too-long": ("g, mallory, owner, site, and, more", "unknown-line-type"),
    "g2-line": ("g2, a, b", "unknown-line-type"),
    "p2-line": ("p2, owner, site, group, read, deny", "unknown-line-type"),
    "capital-p": ("P, owner, site, group, read, deny", "unknown-line-type"),
    "no-line-type": (", owner, site, group, read, deny", "unknown-line-type"),
    "quoted-line-type": ('"p", owner, site, group, read, deny', "unknown-line-type"),
    "quoted-line": ('"p, owner, site, group, read, deny"', "unknown-line-type"),
    "header-row": ("ptype,v0,v1,v2,v3,v4", "unknown-line-type"),
    "html": ("<!DOCTYPE html><html><body>502 Bad Gateway</body></html>", "unknown-line-type"),
    "json": ('{"p": ["owner", "site", "group", "read", "deny"]}', "unknown-line-type"),
    "semicolons": ("p; owner; site; group; read; deny", "unknown-line-type"),
    "tabs": ("p\towner\tsite\tgroup\tread\tdeny", "unknown-line-type"),
    "assignment": ("p = owner, site, group, read, deny", "unknown-line-type"),
    "slash-comment": ("// owner reads", "unknown-line-type"),
    "conflict-ours": ("<<<<<<< HEAD", "unknown-line-type"),
    "conflict-middle": ("=======", "unknown-line-type"),
    "conflict-theirs": (">>>>>>> main", "unknown-line-type"),
    # a field too few or too many
    "one-field-less": ("p, owner, site, group, deny", "field-count"),
    "no-effect": ("p, owner, site, group, read", "field-count"),
    "one-field-more": ("p, owner, site, group, read, deny, allow", "field-count"),
    "comma-at-the-end": ("p, owner, site, group, read, deny,", "field-count"),
    "comma-doubled": ("p, owner,, site, group, read, deny", "field-count"),
    "p-alone": ("p", "field-count"),
    # names outside the closed sets
    "role-quoted": ('p, "owner", site, group, read, deny', "role-name"),
    "role-empty": ("p, , site, group, read, deny", "role-name"),
    "role-capitalised": ("p, Owner, site, group, read, deny", "role-name"),
    "role-with-space": ("p, site owner, site, group, read, deny", "role-name"),
    "role-with-underscore": ("p, site_owner, site, group, read, deny", "role-name"),
    "role-with-colon": ("p, user:1, site, group, read, deny", "role-name"),
    "role-with-two-hyphens": ("p, a--b, site, group, read, deny", "role-name"),
    "role-with-hyphen-first": ("p, -a, site, group, read, deny", "role-name"),
    "role-with-hyphen-last": ("p, a-, site, group, read, deny", "role-name"),
    "role-with-digit-first": ("p, 1a, site, group, read, deny", "role-name"),
    "role-with-bracket": ("p, owner(, site, group, read, deny", "role-name"),
    "role-star": ("p, *, site, group, read, deny", "role-name"),
    "role-too-long": (f"p, {'a' * 65}, site, group, read, deny", "role-name"),
    "scope-capitalised": ("p, owner, Site, group, read, deny", "unknown-scope"),
    "scope-short": ("p, auditor, org, group, read, deny", "unknown-scope"),
    "scope-star": ("p, owner, *, group, read, deny", "unknown-scope"),
    "scope-empty": ("p, owner, , group, read, deny", "unknown-scope"),
    "scope-with-id": ("p, auditor, organization:1, group, read, deny", "unknown-scope"),
    "object-plural": ("p, owner, site, groups, read, deny", "unknown-object"),
    "object-star": ("p, owner, site, *, read, deny", "unknown-object"),
    "object-pattern": ("p, owner, site, gr*, read, deny", "unknown-object"),
    "object-expression": ("p, owner, site, eval(True), read, deny", "unknown-object"),
    "action-other": ("p, owner, site, group, write, deny", "unknown-action"),
    "action-capitalised": ("p, owner, site, group, READ, deny", "unknown-action"),
    "action-alternatives": ("p, owner, site, group, read|update, deny", "unknown-action"),
    "action-star": ("p, owner, site, group, *, deny", "unknown-action"),
    "role-in-two-scopes": ("p, owner, organization, group, read, deny", "two-scopes"),
}


def test_a_defective_line_is_refused_with_its_number_and_code():
    for name, (line, code) in REFUSED_LINES.items():
        lines = GOOD + line.encode() + b"\n" + GOOD
        assert find(lines=lines) == [("policy.csv", 2, code)], name


REFUSED_FILES = {
    "empty": (b"", [(0, "no-lines")]),
    "only-comments": (b"# p, owner, site, group, read, allow\n\n \t\n", [(0, "no-lines")]),
    "utf-8-mark": (b"\xef\xbb\xbf" + GOOD, [(1, "byte-order-mark")]),
    "utf-16-mark": ("\ufeff".encode("utf-16-le") + GOOD.decode().encode("utf-16-le"),
                    [(1, "byte-order-mark")]),
    "utf-16-big-mark": ("\ufeff".encode("utf-16-be") + GOOD.decode().encode("utf-16-be"),
                        [(1, "byte-order-mark")]),
    "utf-16-no-mark": (GOOD.decode().strip().encode("utf-16-le"), [(1, "not-ascii")]),
    "old-mac-newlines": (GOOD.replace(b"\n", b"\r") * 3, [(1, "not-ascii")]),
    "binary": (bytes(range(256)), [(1, "not-ascii"), (2, "not-ascii")]),
    "header-of-words": (
        b"p, role, scope, object, action, effect\n" + GOOD,
        [(1, "unknown-scope"), (1, "unknown-object"), (1, "unknown-action"), (1, "unknown-effect")],
    ),
    "git-lfs-pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        [(n, "unknown-line-type") for n in (1, 2, 3)],
    ),
    "merge-conflict": (
        b"<<<<<<< a\n" + GOOD + b"=======\n" + GOOD + b">>>>>>> b\n",
        [(n, "unknown-line-type") for n in (1, 3, 5)],
    ),
}  # fmt: skip


def test_a_file_that_is_no_policy_is_refused():
    for name, (lines, expected) in REFUSED_FILES.items():
        assert find(lines=lines) == [("policy.csv", *finding) for finding in expected], name


def test_all_defects_are_reported_at_once_in_the_order_of_files_and_lines():
    lines = (
        b"\xef\xbb\xbfp, owner, site, group, read, allow\n"  # 1: mark
        b"p, owner, organization, group, read, dney\n"  # 2: its effect is no effect
        b"p, owner, group, group, read, allow\n"  # 3: second scope
        b"p, Owner, Site, groups, write, Deny\n"  # 4: everything
        b"p, owner, site, group, read, den\xd1\x83\n"  # 5: homoglyph
        b"p, owner, site\n"  # 6: fields
        b"g, mallory, owner, site\n"  # 7: line type
    )
    model = MODEL.replace(b"p.eft == deny", b"p.eft == dney")
    effect_line = MODEL.split(b"\ne = ")[0].count(b"\n") + 2
    assert find(model=model, lines=lines) == [
        ("model.conf", effect_line, "model-not-pinned"),
        *(
            ("policy.csv", line, code)
            for line, code in (
                (1, "byte-order-mark"),
                (2, "unknown-effect"),
                (3, "two-scopes"),
                (4, "role-name"),
                (4, "unknown-scope"),
                (4, "unknown-object"),
                (4, "unknown-action"),
                (4, "unknown-effect"),
                (5, "not-ascii"),
                (6, "field-count"),
                (7, "unknown-line-type"),
            )
        ),
    ]


def test_a_hopeless_file_is_refused_without_a_flood():
    findings = find(lines=b"<p>\n" * 5000)
    assert len(findings) == 201
    assert findings[-1] == ("policy.csv", 0, "too-many-findings")


def test_3000_lines_are_accepted_and_one_more_is_a_finding():
    lines = GOOD + b"#\n" * 2999
    assert read_policy(PolicyFiles(MODEL, lines, None))[1] == []
    assert find(lines=lines + b"#\n") == [("policy.csv", 0, "too-many-lines")]


def list_roles(count):
    return "".join(f"p, r{n}, site, group, read, allow\n" for n in range(count)).encode()


def test_64_roles_are_accepted_and_one_more_is_a_finding():
    assert read_policy(PolicyFiles(MODEL, list_roles(64), None))[1] == []
    assert find(lines=list_roles(65)) == [("policy.csv", 0, "too-many-roles")]


def test_a_role_name_of_64_characters_is_accepted():
    name = "a" * 64
    policy = load(lines=f"p, {name}, site, group, read, allow".encode())
    assert policy.decide({name}, "group", "read").allowed


def test_spacing_comments_and_line_ends_mean_nothing_and_lines_keep_their_numbers():
    lines = (
        b'  # a comment, with a comma and a "quote\r\n'
        b"\t\r\n"
        b" \tp ,owner\t,  site,group , read,allow  \r\n"
        b"p,owner,site,group,read,allow"
    )  # fmt: skip
    decision = load(lines=lines).decide({"owner"}, "group", "read")
    assert decision.allowed
    assert decision.lines == ("policy.csv:3", "policy.csv:4")


def test_the_sentence_says_what_was_probably_meant():
    with pytest.raises(Exception, match="did you mean `deny`") as caught:
        load(lines=b"p, owner, site, group, read, dney")
    assert "policy.csv:1: unknown-effect: `dney` is not a known effect" in str(caught.value)


def test_a_long_value_is_cut_in_the_sentence():
    """Of a long one its first 60 characters are shown."""
    for length, shown in ((60, "x" * 60), (61, "x" * 60 + "..."), (100_000, "x" * 60 + "...")):
        with pytest.raises(Exception, match="unknown-line-type") as caught:
            load(lines=b"x" * length)
        assert f"`{shown}`" in str(caught.value)
        assert len(str(caught.value)) < 400


def test_the_shipped_policy_has_no_findings():
    assert read_policy(PolicyFiles(MODEL, LINES, None))[1] == []
