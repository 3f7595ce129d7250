"""Read the files of a policy folder once, as bytes, and name their contents by a digest."""

from __future__ import annotations

import hashlib
import os
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


def packaged_policy_dir() -> Path:
    """Give the folder of the packaged policy: inside the wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "policy"
    return installed if installed.is_dir() else package.parents[1] / "policy"


def read_policy_files(folder: Path) -> PolicyFiles:
    """Read a policy folder; raise PolicyError where a file is missing, unreadable or too large."""
    findings: list[Finding] = []

    def read(name: str, *, required: bool) -> bytes | None:
        path = folder / name
        try:
            # A link to nothing is not "no file": a review that got lost must not pass for none.
            if not required and not os.path.lexists(path):
                return None
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            reason = (error.strerror or "error").lower()
            findings.append(
                Finding(name, 0, "unreadable-file", f"can't read `{path}`: {reason}; put it there")
            )
            return None
        if len(content) > MAX_FILE_BYTES:
            findings.append(
                Finding(
                    name, 0, "file-too-large", f"the file is larger than {MAX_FILE_BYTES} bytes"
                )
            )
        return content

    model = read(MODEL_FILE, required=True)
    lines = read(LINES_FILE, required=True)
    matrix = read(MATRIX_FILE, required=False)
    if findings or model is None or lines is None:
        raise PolicyError(findings)
    return PolicyFiles(model, lines, matrix)
