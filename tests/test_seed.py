"""What the system that this follows does, row by row: tests/seed.toml, over HTTP and in SQL."""

from __future__ import annotations

import re
import tomllib
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.support import Client, World, count_statements, make_app, names_budget_table

ROOT = Path(__file__).parents[1]
ROWS = tomllib.loads((ROOT / "tests" / "seed.toml").read_text())["rows"]
PARTS = {"row", "here", "because", "features", "held_by", "steps"}


def fill(value, names):
    """Put ids and names for `{a1}` and the like, and None for "null", which TOML does not have."""
    if isinstance(value, dict):
        return {key: fill(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [fill(part, names) for part in value]
    if isinstance(value, str):
        filled = re.sub(r"\{(\w+)\}", lambda name: names(name[1]), value)
        return None if filled == "null" else filled
    return value


@cache
def make_app_with(engine, features):
    return make_app(engine, {} if features is None else {"GOVBUDGET_FEATURES": features})


class Play:
    """Runs the steps of one row."""

    def __init__(self, engine, features):
        self.engine, self.saved = engine, {}
        self.world, self.model = World(engine), f"m-{uuid4()}"
        self.send = Client(make_app_with(engine, features))

    def name(self, name):
        return self.model if name == "model" else str(getattr(self.world, name))

    def run(self, step):
        step = fill(step, self.name)
        if "sql" in step:
            self.run_sql(**step)
        else:
            self.run_request(getattr(self.world, step.pop("as")), **step)

    def run_request(
        self,
        person,
        *,
        call,
        status,
        json=None,
        code=None,
        answer=(),
        keys=None,
        statements=None,
        of_budgets=None,
    ):
        method, path = call.split()
        options = {} if json is None else {"json": json}
        with count_statements(self.engine) as sent:
            response = self.send(method, path, person, **options)
        assert response.status_code == status, response.get_data()
        body = response.get_json(silent=True) or {}
        assert body.get("code") == code
        assert dict(body, **dict(answer)) == body
        assert keys is None or sorted(body) == keys
        if statements is not None:
            assert (len(sent), sum(map(names_budget_table, sent))) == (statements, of_budgets)

    def run_sql(self, *, sql, rows=None, sqlstate=None, save=None, like=None, unlike=None):
        refused = pytest.raises(sa.exc.DBAPIError) if sqlstate else nullcontext()
        found = None
        with refused as error, self.engine.begin() as connection:
            result = connection.exec_driver_sql(sql)
            found = [list(row) for row in result] if result.returns_rows else None
        if sqlstate:
            assert error.value.orig.sqlstate == sqlstate
        assert rows is None or found == rows
        if save:
            assert found
            self.saved[save] = found
        assert like is None or found == self.saved[like]
        assert unlike is None or found != self.saved[unlike]


@pytest.mark.parametrize("row", ROWS, ids=[row["row"][:60] for row in ROWS])
def test_a_row_of_the_system_that_this_follows_is_so_here(engine, row):
    """Each step of the row gives what the file says."""
    play = Play(engine, row.get("features"))
    for step in row.get("steps", ()):
        play.run(step)
    for test in row.get("held_by", ()):
        path, _, function = test.partition("::")
        assert f"def {function or 'test_'}" in (ROOT / path).read_text()


def test_every_row_says_whether_it_is_the_same_here_and_why_not():
    """A deviation has its reason, and a row is tested by steps or by the tests that it names."""
    for row in ROWS:
        assert row.keys() <= PARTS, row
        assert row["here"] in {"same", "deviates"}
        assert ("because" in row) == (row["here"] == "deviates"), row["row"]
        assert row.get("steps") or row.get("held_by"), row["row"]
    assert len({row["row"] for row in ROWS}) == len(ROWS)
