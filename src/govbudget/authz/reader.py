"""The strict reader: policy files in, policy lines or every finding out.

Casbin's own loader skips what it does not understand, and what it skips may have been a deny. So
this reader accepts closed sets only (line types, scopes, objects, actions, effects, characters,
field counts), reports all defects at once, and accepts a single model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from govbudget.authz.files import LINES_FILE, MODEL_FILE, PolicyFiles
from govbudget.authz.model import compare_with_pinned_model
from govbudget.errors import Finding
from govbudget.identity import Action, ObjectType, Scope

# The number of a line, and its fields.
Row = tuple[int, tuple[str, ...]]

NOT_ASCII = "not-ascii"
# With the attribute `export-subst`, git replaces what follows, up to the next `$`, in an archive.
PLACEHOLDER = "$Format:"

MAX_ROLES = 64
MAX_LINES = 3000  # with comments and blank lines; a file of that many is read in about a second
MAX_FINDINGS = 200
FIELDS = ("role", "scope", "object", "action", "effect")

ROLE_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
MAX_ROLE_LENGTH = 64

_STRANGE = re.compile(r"[^ -~\t\n]")
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Effect(StrEnum):
    """What a matching line says."""

    ALLOW = "allow"
    DENY = "deny"


_CLOSED_SETS = tuple(frozenset[str](known) for known in (Scope, ObjectType, Action, Effect))


@dataclass(frozen=True, slots=True)
class Line:
    """One right: whoever holds `role` in a domain of `scope` is allowed or denied this."""

    number: int
    role: str
    scope: Scope
    object: ObjectType
    action: Action
    effect: Effect

    @property
    def name(self) -> str:
        """Give `policy.csv:<number>`."""
        return f"{LINES_FILE}:{self.number}"

    @property
    def fields(self) -> list[str]:
        """Give the five fields as Casbin holds them."""
        return [self.role, str(self.scope), str(self.object), str(self.action), str(self.effect)]

    @property
    def text(self) -> str:
        """Give it as a policy file has it."""
        return ", ".join(("p", *self.fields))


def decode(content: bytes, file: str) -> tuple[str, list[Finding]]:
    """Decode a file that may hold printable ASCII, tabs and newlines, and nothing else.

    The text is given in any case, so that one defect does not hide the others.
    """
    findings = []
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "latin-1")
    if encoding != "latin-1":
        sentence = "the file starts with a byte order mark; save it as plain ASCII"
        findings.append(Finding(file, 1, "byte-order-mark", sentence))
    text = content.decode(encoding, "replace").replace("\r\n", "\n")
    if text.count("\n") > MAX_LINES:
        sentence = f"more than {MAX_LINES} lines, the rest is not read; put the right file there"
        findings.append(Finding(file, 0, "too-many-lines", sentence))
        text = "\n".join(text.split("\n", MAX_LINES)[:MAX_LINES])
    is_clean = not _STRANGE.search(text) and PLACEHOLDER not in text
    for number, line in enumerate([] if is_clean else text.split("\n"), start=1):
        if strange := _STRANGE.search(line):
            sentence = (
                f"character 0x{ord(strange[0]):02x} in column {strange.start() + 1} is not "
                "printable ASCII; type it again"
            )
            findings.append(Finding(file, number, NOT_ASCII, sentence))
        if PLACEHOLDER in line:
            sentence = (
                f"`{PLACEHOLDER}` makes `git archive` write other lines than are reviewed here; "
                "remove it"
            )
            findings.append(Finding(file, number, "placeholder", sentence))
    return text, findings


def read_rows(content: bytes, file: str) -> tuple[list[Row], list[Finding]]:
    """Read rows of comma-separated fields: each line but blank, comment and unreadable ones."""
    text, findings = decode(content, file)
    unreadable = {finding.line for finding in findings if finding.code == NOT_ASCII}
    lines = ((number, line.strip(" \t")) for number, line in enumerate(text.split("\n"), start=1))
    rows = [
        (number, tuple(field.strip(" \t") for field in line.split(",")))
        for number, line in lines
        if line and not line.startswith("#") and number not in unreadable
    ]
    return rows, findings


def read_policy(files: PolicyFiles) -> tuple[tuple[Line, ...], list[Finding]]:
    """Read the model and the lines; the lines can be used only where there are no findings."""
    model_text, findings = decode(files.model, MODEL_FILE)
    known = {finding.line for finding in findings}
    differing = compare_with_pinned_model(model_text, MODEL_FILE)
    findings += [finding for finding in differing if finding.line not in known]
    rows, defects = read_rows(files.lines, LINES_FILE)
    lines: list[Line] = []
    for number, (kind, *fields) in rows:
        wrong = list(_check_row(number, kind, fields))
        defects += wrong
        if not wrong:
            role, scope, obj, action, effect = fields
            right = (Scope(scope), ObjectType(obj), Action(action), Effect(effect))
            lines.append(Line(number, role, *right))
    defects += _check_roles(lines)
    if not lines and not defects:
        sentence = "no line allows anything: all would be denied; restore the file, or add lines"
        defects.append(Finding(LINES_FILE, 0, "no-lines", sentence))
    findings.sort(key=lambda finding: finding.line)
    findings += sorted(defects, key=lambda finding: finding.line)
    if len(findings) > MAX_FINDINGS:
        sentence = f"{len(findings) - MAX_FINDINGS} more findings are not shown; fix these first"
        findings[MAX_FINDINGS:] = [Finding(LINES_FILE, 0, "too-many-findings", sentence)]
    return tuple(lines), findings


def _check_row(number: int, kind: str, fields: list[str]) -> Iterator[Finding]:
    if kind == "g":
        sentence = (
            "`g` lines are not accepted: who holds which role comes from the directory; remove it"
        )
        yield Finding(LINES_FILE, number, "unknown-line-type", sentence)
    elif kind != "p":
        sentence = f"`{_cut(kind)}` is not a line type; write `p, {', '.join(FIELDS)}`"
        yield Finding(LINES_FILE, number, "unknown-line-type", sentence)
    elif len(fields) != len(FIELDS):
        sentence = f"{len(fields)} fields after `p`; write these {len(FIELDS)}: {', '.join(FIELDS)}"
        yield Finding(LINES_FILE, number, "field-count", sentence)
    else:
        role, *words = fields
        if len(role) > MAX_ROLE_LENGTH or not ROLE_NAME.fullmatch(role):
            sentence = (
                f"`{_cut(role)}` is not a role name; write lower-case letters and digits in words "
                f"joined by `-`, starting with a letter, at most {MAX_ROLE_LENGTH} characters"
            )
            yield Finding(LINES_FILE, number, "role-name", sentence)
        for what, value, known in zip(FIELDS[1:], words, _CLOSED_SETS, strict=True):
            if value not in known:
                advice = "put the comment on a line of its own"
                if "#" not in value:
                    advice = suggest(value, known)
                sentence = f"`{_cut(value)}` is not a known {what}; {advice}"
                yield Finding(LINES_FILE, number, f"unknown-{what}", sentence)


def _check_roles(lines: list[Line]) -> Iterator[Finding]:
    """Find roles with two scopes, and more roles than the table is made for."""
    first: dict[str, Line] = {}
    for line in lines:
        declared = first.setdefault(line.role, line)
        if declared.scope != line.scope:
            sentence = (
                f"role `{line.role}` has scope `{line.scope}` here and `{declared.scope}` on line "
                f"{declared.number}; a role has exactly one; keep it"
            )
            yield Finding(LINES_FILE, line.number, "two-scopes", sentence)
    if len(first) > MAX_ROLES:
        sentence = f"{len(first)} roles, at most {MAX_ROLES} are accepted; merge some"
        yield Finding(LINES_FILE, 0, "too-many-roles", sentence)


def suggest(value: str, known: Iterable[str]) -> str:
    """Say what is accepted, and what was probably meant."""
    options = sorted(str(option) for option in known)
    folded = {option.lower(): option for option in options}
    close = get_close_matches(value.lower()[:80], folded, n=1)
    meant = f"did you mean `{folded[close[0]]}`? " if close else ""
    return f"{meant}known are: {', '.join(f'`{option}`' for option in options)}"


def _cut(value: str) -> str:
    """Keep a quoted value short."""
    limit = 60
    return value if len(value) <= limit else value[:limit] + "..."
