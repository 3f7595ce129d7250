"""`policy check`: every finding of a policy folder, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from govbudget.authz.files import MATRIX_FILE, read_policy_files
from govbudget.authz.policy import load_table
from govbudget.errors import Finding, PolicyError

if TYPE_CHECKING:
    from pathlib import Path

    from govbudget.authz.table import DecisionTable


@dataclass(frozen=True, slots=True)
class Review:
    """What came of checking a folder: findings, or a table (None where the reader refused)."""

    digest: str | None
    table: DecisionTable | None
    findings: tuple[Finding, ...]
    reviewed: bool


def check_policy(folder: Path) -> Review:
    """Check a policy folder; never raises for what the folder holds."""
    try:
        files = read_policy_files(folder)
    except PolicyError as error:
        return Review(None, None, error.findings, reviewed=False)
    try:
        table = load_table(files)
    except PolicyError as error:
        return Review(files.digest, None, error.findings, files.matrix is not None)
    findings: tuple[Finding, ...] = ()
    if files.matrix is None:
        sentence = (
            "nobody has reviewed this policy: read `govbudget policy matrix`, then keep its "
            f"`--format csv` as {MATRIX_FILE}"
        )
        findings = (Finding(MATRIX_FILE, 0, "not-reviewed", sentence),)
    return Review(files.digest, table, findings, files.matrix is not None)
