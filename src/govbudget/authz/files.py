"""Read the files of a policy folder once, as bytes, and name their contents by a digest."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from govbudget.errors import Finding, PolicyError

MODEL_FILE = "model.conf"
LINES_FILE = "policy.csv"
MATRIX_FILE = "matrix.csv"

MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """The contents of one policy folder; `matrix` is None where nobody has reviewed the policy."""

    model: bytes
    lines: bytes
    matrix: bytes | None

    @property
    def digest(self) -> str:
        """Name the two files that decide (`sha256:<hex>` over both, each with its length)."""
        digest = hashlib.sha256()
        for content in (self.model, self.lines):
            digest.update(len(content).to_bytes(8, "big"))
            digest.update(content)
        return f"sha256:{digest.hexdigest()}"

    def compare_digest(self, demanded: str | None, folder: Path) -> list[Finding]:
        """Give a finding about the folder where another digest is demanded."""
        if demanded in {None, self.digest}:
            return []
        sentence = (
            f"the files have the digest {self.digest}, but {demanded} is demanded "
            "(GOVBUDGET_POLICY_DIGEST); review the change, then demand the new one"
        )
        return [Finding(folder.name, 0, "digest-differs", sentence)]


def packaged_policy_dir() -> Path:
    """Give the folder of the packaged policy: inside the wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "policy"
    return installed if installed.is_dir() else package.parents[1] / "policy"


def show_path(path: Path) -> str:
    """Write a path on one line: what can't be printed is escaped.

    So is what starts a command anywhere in a line of a workflow's log.
    """
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(path))
    return shown.replace("##[", r"#\x23[")


def read_regular_file(path: Path) -> bytes:
    """Read a file of at most MAX_FILE_BYTES; raise OSError for anything else, at once.

    A pipe or a device is refused and not waited for.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(
            errno.EFBIG, f"it is larger than {MAX_FILE_BYTES} bytes; is it the right file?"
        )
    return content


def read_policy_files(folder: Path) -> PolicyFiles:
    """Read a policy folder; raise PolicyError where a file is missing, unreadable or too large."""
    findings: list[Finding] = []

    def read(name: str) -> bytes:
        path = folder / name
        try:
            return read_regular_file(path)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            advice = "put a readable text file there"
            if not folder.is_dir():
                advice = "name the folder that holds model.conf and policy.csv"
            sentence = f"can't read `{show_path(path)}`: {reason}; {advice}"
            if error.errno == errno.EFBIG:
                findings.append(Finding(name, 0, "file-too-large", sentence))
            else:
                findings.append(Finding(name, 0, "unreadable-file", sentence))
            return b""

    model, lines = read(MODEL_FILE), read(LINES_FILE)
    # A link to nothing is not "no file": a review that got lost must not pass for none.
    matrix = read(MATRIX_FILE) if os.path.lexists(folder / MATRIX_FILE) else None
    if findings:
        raise PolicyError(findings)
    return PolicyFiles(model, lines, matrix)
