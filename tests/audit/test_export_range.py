"""`govbudget audit export`: of a range of time, and of some types."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.audit.support import NOBODY
from tests.support import TABLES

from govbudget.server.directory_file import AUDITED

pytestmark = pytest.mark.slow

TIMES = {
    "october": datetime(2025, 10, 31, 23, 59, 59, 999999, UTC),
    "first": datetime(2025, 11, 1, tzinfo=UTC),
    "noon": datetime(2025, 11, 15, 12, tzinfo=UTC),
    "last": datetime(2025, 11, 30, 23, 59, 59, 999999, UTC),
    "december": datetime(2025, 12, 1, tzinfo=UTC),
}


@pytest.fixture(scope="module")
def organization(engine):
    """One whose trail has an entry at each of these times, the odd ones about roles."""
    organization = uuid4()
    rows = [
        {
            "organization_id": organization,
            "at": at,
            "object_type": ("group_ai_budget", "role_assignment")[number % 2],
            "object_id": name,
            "receipt": NOBODY,
        }
        for number, (name, at) in enumerate(TIMES.items())
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(TABLES.audit_log), rows)
    return organization


@pytest.fixture
def export(run, url, organization):
    """Export with these options; give the objects of the entries."""

    def export(*options, **variables):
        words = ("audit", "export", "--organization", organization, *options)
        result = run(*words, database_url=url, **variables)
        assert (result.status, result.err) == (0, "")
        return [json.loads(line)["object_id"] for line in result.out.splitlines()]

    return export


@pytest.mark.parametrize("page", [1, 2, 1000])
@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], ["december", "last", "noon", "first", "october"]),
        (["--since", "2025-11-01", "--until", "2025-12-01"], ["last", "noon", "first"]),
        (["--since", "2025-11-15T12:00:00Z"], ["december", "last", "noon"]),
        (["--until", "2025-11-15T12:00:00+00:00"], ["first", "october"]),
        (["--until", "2025-11-15t13:00:00.5z"], ["noon", "first", "october"]),
        (["--since", "2025-11-02", "--until", "2025-11-03"], []),
        (["--since", "2025-11-03", "--until", "2025-11-02"], []),
        (["--type", "role_assignment"], ["last", "first"]),
        (["--type", "api_token"], []),
        (["--since", "2025-11-02", "--type", "group_ai_budget"], ["december", "noon"]),
    ],
    ids=str,
)
def test_what_is_asked_for_is_exported_whatever_the_size_of_a_page(
    export, monkeypatch, page, options, found
):
    """From --since on, before --until, of the types alone; the newest first."""
    monkeypatch.setattr("govbudget.cli.environment.PAGE", page)
    assert export(*options) == found


def test_several_types_are_those_of_any(export):
    """An option that is given twice adds a type."""
    options = ("--type", "role_assignment", "--type", "group_ai_budget")
    assert len(export(*options)) == len(TIMES)


def test_a_day_is_one_of_the_time_zone_of_the_setting(export):
    """In Tokyo the first of November starts nine hours before it does in UTC."""
    options = ("--since", "2025-11-01", "--until", "2025-12-01")
    assert export(*options, time_zone="Asia/Tokyo") == ["noon", "first", "october"]


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("text", ["yesterday", "2025-11-31", "2025-11", "", "1764000000"])
def test_what_is_not_a_time_is_wrong_usage(run, url, option, text):
    """The sentence shows how a day and a time are written."""
    result = run("audit", "export", option, text, database_url=url)
    assert result.status == 2
    assert f"`{text}` is not a time; write a day, 2026-11-01, or a time" in result.sentence


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31"])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_the_ends_of_the_calendar_are_times_too(export, text, zone):
    """Nothing is before the first one, and nothing after the last."""
    options = {"0001-01-01": "--since", "9999-12-31": "--until"}
    assert len(export(options[text], text, time_zone=zone)) == len(TIMES)
    (other,) = {"--since", "--until"} - {options[text]}
    assert export(other, text, time_zone=zone) == []


def test_an_unknown_organization_is_so_in_any_range(run, url, organization):
    """One that has entries is known, though none is in the range."""
    words = ("audit", "export", "--until", "2020-01-01", "--organization")
    assert run(*words, uuid4(), database_url=url).status == 1
    assert run(*words, organization, database_url=url).status == 0


def test_every_type_can_be_asked_for_and_no_other(run, url):
    """A mistyped one would look as if nothing had ever changed."""
    from govbudget.cli.audit import TYPES

    tables = TABLES.metadata.tables.values()
    audited = {table.info["audit"].object_type for table in tables if "audit" in table.info}
    others = {"api_token", "ai_usage", "ai_closing"}  # of corrections, and of months
    assert {*audited, *(name.removesuffix("s") for name in AUDITED)} | others == set(TYPES)
    result = run("audit", "export", "--type", "budget", database_url=url)
    assert result.status == 2
    assert "'group_ai_budget'" in result.sentence
