"""A policy against a table of expected decisions; what the table does not list is denied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from govbudget.authz.matrix import list_cells, read_matrix
from govbudget.authz.table import Verdict

if TYPE_CHECKING:
    from os import PathLike

    from govbudget.authz.policy import Policy

Expected = Mapping[tuple[str, str, str], bool]


@dataclass(frozen=True, slots=True)
class Case:
    """One cell: a role, an object type, an action, and whether it is expected to be allowed."""

    role: str
    object: str
    action: str
    allowed: bool

    def __str__(self) -> str:
        """Name the case, for `ids=str`."""
        return f"{self.role}-{self.object}-{self.action}-{'allow' if self.allowed else 'deny'}"


def matrix_cases(policy: Policy, table: str | PathLike[str] | Expected) -> list[Case]:
    """Give one case for every cell of the policy, for `pytest.mark.parametrize(..., ids=str)`.

    `table` is the path of a CSV file that begins with the columns role, object, action, decision
    (`allow` means allowed, `deny` and `forbid` denied), or a mapping of (role, object, action) to a
    bool. A cell that it does not list is expected to be denied. Raises ValueError where the file is
    not such a table, or lists a cell that the policy does not have; TypeError for another value
    than a bool.
    """
    expected = table if isinstance(table, Mapping) else _read_table(policy, Path(table))
    cells = [(role, str(obj), str(action)) for role, obj, action in list_cells(policy.table)]
    known = set(cells)
    unknown = [cell for cell in expected if cell not in known]
    if unknown:
        raise ValueError(f"the policy has no cell {unknown[0]}; is a name misspelt?")
    for cell, allowed in expected.items():
        if not isinstance(allowed, bool):
            raise TypeError(f"{', '.join(cell)}: `{allowed!r}` is not True or False")
    return [Case(*cell, expected.get(cell, False)) for cell in cells]


def assert_matrix(policy: Policy, table: str | PathLike[str] | Expected) -> None:
    """Raise AssertionError that names every cell in which policy and table differ."""
    wrong = []
    for case in matrix_cases(policy, table):
        decision = policy.decide((case.role,), case.object, case.action)
        if decision.allowed is not case.allowed:
            why = ", ".join(decision.lines) or "no line allows it"
            answer = "allows" if decision.allowed else "denies"
            cell = f"{case.role}, {case.object}, {case.action}"
            wrong.append(f"{cell}: the policy {answer} it ({why})")
    if wrong:
        raise AssertionError("\n".join(wrong))


def _read_table(policy: Policy, path: Path) -> dict[tuple[str, ...], bool]:
    """Read the expected decisions; raise ValueError with the line of anything that is not one."""
    rows, findings = read_matrix(policy.table, path.read_bytes(), str(path), has_notes=True)
    if findings:
        raise ValueError(str(findings[0]))
    return {cell: decision == Verdict.ALLOW for cell, (_, (decision, *_)) in rows.items()}
