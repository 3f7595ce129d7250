"""A pytest plugin: a `matrix.csv` beside its `policy.csv` is a file of tests, one a decision.

It loads where it is asked for: `-p govbudget.testing.plugin`, or in the top `conftest.py`
`pytest_plugins = ["govbudget.testing.plugin"]`. Needs pytest and pycasbin alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from govbudget.authz.evaluator import read_table
from govbudget.authz.files import LINES_FILE, MATRIX_FILE, read_policy_files
from govbudget.authz.matrix import compare_cell, list_cells, read_matrix
from govbudget.authz.table import Verdict
from govbudget.errors import PolicyError

__all__ = ["MatrixWarning"]  # pytest finds the rest by itself


class MatrixWarning(pytest.PytestWarning):
    """Decisions that something asks for and `matrix.csv` does not list; tested as `deny`."""


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a `matrix.csv` that stands beside a `policy.csv`."""
    if file_path.name != MATRIX_FILE or not (file_path.parent / LINES_FILE).is_file():
        return None
    return Matrix.from_parent(parent, path=file_path)


class Matrix(pytest.File):
    """A `matrix.csv`: its rows, and the cells that are asked for and have none."""

    def collect(self) -> Iterator[Cell]:
        """Give a test for each; fail where policy or matrix can't be read, with every finding."""
        try:
            files = read_policy_files(self.path.parent)
            table = read_table(files)
        except PolicyError as error:
            raise self.CollectError(error.detail) from None
        rows, findings = read_matrix(table, files.matrix or b"")
        if findings:
            raise self.CollectError("\n".join(map(str, findings)))
        asked = list_cells(table, table.asked)
        if unlisted := [cell for cell in asked if cell not in rows]:
            said = f"{len(unlisted)} of {len(asked)} decisions that are asked for have no row: "
            self.warn(MatrixWarning(said + ", ".join(map("-".join, unlisted))))
        lines = {line.name: ", ".join(("p", *line.fields)) for line in table.lines}
        for cell in list_cells(table):
            decided = table.cell(*cell)
            if cell in rows or cell in asked or decided.verdict is not Verdict.DENY:
                number, (expected, *_) = rows.get(cell, (1, ("unlisted",)))
                test = Cell.from_parent(self, name="-".join((*cell, expected)))
                test.number = number
                deciding = (f"{name}: {lines[name]}" for name in decided.decision.lines)
                if wrong := [*map(str, compare_cell(table, cell, rows))]:
                    test.failure = "\n".join([*wrong, *deciding])
                yield test


class Cell(pytest.Item):
    """A decision, and the row that says what it should be."""

    number: int
    failure = ""

    def runtest(self) -> None:
        """Fail with what the review and the policy say, and with the lines that decide."""
        if self.failure:
            pytest.fail(self.failure, pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Give the file, the row (from 0) and the name."""
        return self.path, self.number - 1, self.name
