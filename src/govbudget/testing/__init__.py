"""What users import to test their own policy and their own directory. No database, no Flask.

Nothing here loads by itself: import what you use.

- `govbudget.testing.plugin`: for pytest, a test of every decision of a `matrix.csv`.
- `govbudget.testing.host`: for pytest, a fixture in which all of govbudget's work is rolled back.
- `matrix_cases` and `assert_matrix`: a policy against a table of expected decisions.
- `mutants`: is your `matrix.csv` strict enough to notice every one-step edit of your policy?
- `make_subject` and `make_group`: values to authorize with.
- `govbudget.testing.directory.check_directory`: is your Directory right? (Needs its database.)
"""

from __future__ import annotations

from govbudget.testing.matrix import Case, assert_matrix, matrix_cases
from govbudget.testing.mutation import Mutant, mutants
from govbudget.testing.values import make_group, make_subject

__all__ = [
    "Case",
    "Mutant",
    "assert_matrix",
    "make_group",
    "make_subject",
    "matrix_cases",
    "mutants",
]
