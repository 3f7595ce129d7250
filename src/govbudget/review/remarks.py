"""Findings and changes, written for a code host: SARIF 2.1.0, GitHub's annotations, Markdown."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from govbudget.authz.files import LINES_FILE, read_regular_file
from govbudget.authz.reader import decode
from govbudget.errors import Finding
from govbudget.review.diff import Change, Right
from govbudget.review.sides import FILES, find_in_repository

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)

# The number of a line in a sentence, which an edit elsewhere changes.
_LINE_NUMBER = re.compile(r"(:|\bline )\d+")
# In SARIF, `[text](target)` is a link and `{0}` a placeholder. What a file says is neither.
_LINK, _BRACES = ("](", "] ("), str.maketrans({"{": "{{", "}": "}}"})
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})
_MARKUP = re.compile(r"[^A-Za-z0-9 ,/=-]")


@dataclass(frozen=True, slots=True)
class Remark:
    """What to show beside a line of a file in a repository.

    `level` is `error`, `warning` or `note`. `path` is relative to the top of the repository; `line`
    is 1-based, and 0 stands for the whole file. `identity` stays the same when the line moves.
    """

    code: str
    level: str
    path: str
    line: int
    sentence: str
    identity: str


def remark_findings(findings: Iterable[Finding], folder: Path) -> Iterator[Remark]:
    """Remark each finding of a folder. Its identity is the text of its line, if any."""
    within, lines = find_in_repository(folder), {}
    for name in FILES:
        with suppress(OSError):
            lines[name] = decode(read_regular_file(folder / name), name)[0].split("\n")
    for finding in findings:
        name, number = finding.file if finding.file in FILES else LINES_FILE, finding.line
        text = "".join(lines.get(name, [])[number - 1 : number]).strip()
        identity = text or _LINE_NUMBER.sub("", finding.sentence)
        yield Remark(finding.code, "error", str(within / name), number, finding.sentence, identity)


def remark_changes(
    changes: Iterable[Change], approved: Container[Right], rest: Iterable[str], path: str
) -> Iterator[Remark]:
    """Remark each gain, each loss and the rest of what is said, in the file of lines at this path.

    The identity of a change is the right. What nobody has to look at is a note.
    """
    for change in changes:
        code = "gain" if change.is_gain else "loss"
        level = "error" if change.is_gain and change.right not in approved else "note"
        number = next((n for n in change.lines if n.startswith("new ")), ":0").rpartition(":")[2]
        sentence = f"{change.role} (held in scope {change.scope}) {change}"
        yield Remark(code, level, path, int(number), sentence, ",".join(change.right))
    for text in rest:
        yield Remark("differs", "warning", path, 0, " ".join(text.split()), text)


def write_sarif(remarks: Sequence[Remark], about: Sequence[str], docs: str) -> Iterator[str]:
    """Write one SARIF log. `docs` is the URI of the folder that has `findings.md`."""
    helps = {r.code: f"{docs}/findings.md#{r.code}" for r in remarks}
    rules = [
        {"id": code, "shortDescription": {"text": code}, "helpUri": uri, "help": {"text": uri}}
        for code, uri in helps.items()
    ]
    driver = {"name": "govbudget", "version": version("govbudget"), "rules": rules}
    seen: Counter[str] = Counter()
    results = [_describe(remark, seen) for remark in remarks]
    kept_as = {"id": f"govbudget-policy-{about[0]}/"}  # a code host keeps the newest run of each
    run = {"tool": {"driver": driver}, "automationDetails": kept_as, "results": results}
    yield json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _describe(remark: Remark, seen: Counter[str]) -> dict[str, Any]:
    named = f"{remark.code}\0{remark.path}\0{remark.identity}"
    digest = hashlib.sha256(os.fsencode(named)).hexdigest()[:16]
    seen[digest] += 1
    region = {"region": {"startLine": remark.line}} if remark.line else {}
    location = {"artifactLocation": {"uri": quote(os.fsencode(remark.path))}, **region}
    return {
        "ruleId": remark.code,
        "level": remark.level,
        "message": {"text": remark.sentence.replace(*_LINK).translate(_BRACES)},
        "locations": [{"physicalLocation": location}],
        # The name that GitHub reads. Equal ones are numbered.
        "partialFingerprints": {"primaryLocationLineHash": f"{digest}:{seen[digest]}"},
    }


def write_github(remarks: Sequence[Remark], _about: Sequence[str], _docs: str) -> Iterator[str]:
    """Write workflow commands, one a line. No text of a file can end one or start another."""
    for remark in remarks:
        kind = remark.level.replace("note", "notice")
        line = f",line={remark.line}" if remark.line else ""
        file, sentence = remark.path.translate(_PROPERTY), remark.sentence.translate(_DATA)
        yield f"::{kind} file={file}{line},title={remark.code}::{sentence}"


def write_markdown(remarks: Sequence[Remark], about: Sequence[str], _docs: str) -> Iterator[str]:
    """Write a table under a heading. No text of a file is taken for markup."""
    yield f"### govbudget policy {about[0]}\n"
    yield from (f"- {_escape(line)}" for line in about[1:])
    yield "\n| | | |\n|---|---|---|" if remarks else "\nNothing to report."
    for remark in remarks:
        where = f"{remark.path}:{remark.line}".removesuffix(":0")
        yield f"| {remark.code} | {_escape(remark.sentence)} | {_escape(where)} |"


def _escape(text: str) -> str:
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", text)


WRITERS = {"sarif": write_sarif, "github": write_github, "md": write_markdown}
