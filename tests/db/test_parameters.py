"""What is asked often costs the driver little: it reads a long text anew at every call.

psycopg keeps what it made of a text of at most so many bytes and parameters. What is longer takes
its time once more for each parameter that the text names.
"""

from __future__ import annotations

import re

import pytest
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH, MAX_CACHED_STATEMENT_PARAMS
from sqlalchemy.dialects.postgresql import psycopg
from tests.support import make_gov

from govbudget.statements import list_governed

GOVERNED = list_governed()
SELDOM = {
    "spend.verify": "a command that reads the whole ledger",
    "spend.settle_fallback": "another model answered than was held",
    "overview.members": "a page to look at",
    **dict.fromkeys(("overview.highest", "overview.crossed"), "a page to look at"),
    "prices.upsert": "a book of thousands of rows",
}
OFTEN = [name for name in GOVERNED if name not in SELDOM]


@pytest.mark.parametrize("name", OFTEN)
def test_the_driver_keeps_a_statement_or_finds_each_parameter_once(name):
    prepared = GOVERNED[name].prepare(make_gov(), elsewhere=False, is_first=False)
    text = str(prepared.compile(dialect=psycopg.dialect()))
    found = re.findall(r"%\((\w+)\)s", text)
    is_kept = (
        len(text.encode()) <= MAX_CACHED_STATEMENT_LENGTH
        and len(set(found)) <= MAX_CACHED_STATEMENT_PARAMS
    )
    assert is_kept or sorted(found) == sorted(set(found))
