"""`govbudget notices`: what is printed in each form, of something, of nothing, and of a mistake."""

from __future__ import annotations

import csv
import io
import json
from uuid import UUID

import pytest
from tests.spend.test_notices import Watcher

from govbudget.spend.answers import NoticeAnswer
from govbudget.text import write_time

pytestmark = pytest.mark.slow

NOBODY = str(UUID(int=7))
COLUMNS = [*NoticeAnswer.model_fields]


@pytest.fixture
def watcher(world):
    watcher = Watcher(world)
    watcher.limit(world.a1, 100)
    return watcher


@pytest.fixture
def notices(run, url):
    return lambda *arguments, **more: run("notices", *arguments, database_url=url, **more)


def test_text_says_when_who_how_much_of_what_and_what_was_spent(world, watcher, notices):
    watcher.use(95)
    newest, oldest = watcher.list()
    result = notices("list", world.a)
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines() == [
        f"{one.created_at:%Y-%m-%dT%H:%M:%SZ}  user {world.member}: {one.threshold} % of"
        f" 100000000 micros in {one.month}; spent 95000000"
        for one in (newest, oldest)
    ]


def test_json_jsonl_and_csv_have_what_the_api_has(world, watcher, notices):
    watcher.use(95)
    expected = [
        {
            "id": str(one.id),
            "created_at": write_time(one.created_at),
            "organization_id": str(world.a),
            "user_id": str(world.member),
            "month": one.month,
            "threshold": one.threshold,
            "spend_limit_micros": 100_000_000,
            "limit_source": "group",
            "group_id": str(world.a1),
            "spent_micros": 95_000_000,
        }
        for one in watcher.list()
    ]
    forms = {form: notices("list", world.a, "--format", form) for form in ("json", "jsonl", "csv")}
    assert {(result.status, result.err) for result in forms.values()} == {(0, "")}
    assert json.loads(forms["json"].out) == expected
    assert [*map(json.loads, forms["jsonl"].out.splitlines())] == expected
    rows = [*csv.DictReader(io.StringIO(forms["csv"].out))]
    assert rows == [{name: str(value) for name, value in one.items()} for one in expected]
    assert list(rows[0]) == COLUMNS


@pytest.mark.parametrize(
    ("form", "expected"),
    [("text", ""), ("json", "[]\n"), ("jsonl", ""), ("csv", ",".join(COLUMNS) + "\n")],
)
def test_of_an_organization_without_a_notice_there_is_an_empty_list(world, notices, form, expected):
    result = notices("list", world.b, "--format", form)
    assert (result.status, result.out.replace("\r", ""), result.err) == (0, expected, "")


def test_since_a_day_that_is_to_come_there_is_none(world, watcher, notices):
    watcher.use(95)
    assert notices("list", world.a, "--since", "2999-01-01").out == ""
    assert len(notices("list", world.a, "--since", "2020-01-01").out.splitlines()) == 2


def test_a_sweep_prints_what_is_new_and_how_many_and_once_more_none(world, watcher, notices):
    watcher.use(60)
    assert notices("sweep").out == "0 crossings found\n"
    watcher.set_limit(world.a1, 80)
    result = notices("sweep", "--organization", world.a)
    (one,) = watcher.list()
    words = f"75 % of 80000000 micros in {one.month}; spent 60000000"
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines() == [
        f"{one.created_at:%Y-%m-%dT%H:%M:%SZ}  user {world.member}: {words}",
        "1 crossing found",
    ]
    for which in ((), ("--organization", world.a), ("--organization", world.b)):
        assert notices("sweep", *which).out == "0 crossings found\n"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("list",), 2, "Missing argument"),
        (("list", "x"), 2, "`x`"),
        (("list", NOBODY), 1, "organization"),
        (("list", NOBODY, "--format", "xml"), 2, "xml"),
        (("list", NOBODY, "--since", "yesterday"), 2, "yesterday"),
        (("sweep", "--organization", "x"), 2, "`x`"),
        (("sweep", "--organization", NOBODY), 1, "organization"),
        (("sweep", "x"), 2, "x"),
    ],
    ids=str,
)
def test_a_mistake_is_named_and_nothing_is_printed(notices, arguments, status, words):
    result = notices(*arguments)
    assert (result.status, result.out) == (status, "")
    assert words in result.err
    assert "Traceback" not in result.err
