"""503: a schema that is missing, older or newer is named: in answers, the log and commands."""

from __future__ import annotations

from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.commands import as_text, run  # noqa: F401 - a fixture
from tests.migrations.support import make_revision_0004
from tests.support import Client, World, budget_path, list_path, make_app, spend_requests
from tests.web.helpers import outcome

pytestmark = pytest.mark.slow

SENTENCE = "missing or of another version; run `govbudget db upgrade`"


def gone(connection):
    connection.exec_driver_sql("DROP SCHEMA govbudget CASCADE")


def without_tables(connection):
    gone(connection)
    connection.exec_driver_sql("CREATE SCHEMA govbudget")


def older(connection):
    gone(connection)
    make_revision_0004(connection)


def with_a_column_that_must_be_filled(connection):
    for table in ("group_ai_budgets", "ai_holds", "ai_usage", "member_ai_overrides"):
        connection.exec_driver_sql(f"ALTER TABLE govbudget.{table} ADD COLUMN new text NOT NULL")


def with_another_key(connection):
    for table in ("group_ai_budgets", "ai_spend_counters", "ai_usage"):
        connection.exec_driver_sql(f"ALTER TABLE govbudget.{table} DROP CONSTRAINT {table}_pkey")


def with_another_name(connection):
    for table in ("group_ai_budgets", "organization_members", "ai_usage"):
        connection.exec_driver_sql(f"ALTER TABLE govbudget.{table} RENAME TO {table}_2")


SCHEMAS = (
    gone,
    without_tables,
    older,
    with_a_column_that_must_be_filled,
    with_another_key,
    with_another_name,
)


def ask_everything(engine, town):
    """Ask every route; give the answers by name."""
    send = Client(make_app(engine))
    requests = {
        "get": ("GET", budget_path(town.a1), None),
        "put": ("PUT", budget_path(town.a1), {"spend_limit_micros": 5}),
        "delete": ("DELETE", budget_path(town.a1), None),
        "list": ("GET", list_path(town.a), None),
        **spend_requests(town, "m"),
    }
    callers = {"hold", "find hold", "extend", "settle", "release", "record"}
    return {
        name: send(method, path, town.gateway if name in callers else town.owner, json=body)
        for name, (method, path, body) in requests.items()
    }


@pytest.mark.parametrize("change", SCHEMAS, ids=lambda change: change.__name__)
def test_no_route_fails_on_a_schema_that_does_not_match(make_database, template, caplog, change):
    """It works where nothing that is needed differs, and says what is wrong otherwise."""
    engine = sa.create_engine(make_database(template=template), poolclass=sa.NullPool)
    town = World(engine)
    with engine.begin() as connection:
        change(connection)
    if change is older:
        town = World(engine)
    town.hold = uuid4()
    answers = ask_everything(engine, town)
    unavailable = {name for name, got in answers.items() if got.status_code == 503}
    assert unavailable
    assert {name: got.status_code for name, got in answers.items() if got.status_code == 500} == {}
    for name in unavailable:
        assert outcome(answers[name]) == (503, "unavailable")
        assert answers[name].json["detail"].endswith(SENTENCE)
    assert SENTENCE in caplog.text


def test_a_newer_schema_that_has_only_more_serves(make_database, template):
    engine = sa.create_engine(make_database(template=template), poolclass=sa.NullPool)
    town = World(engine)
    town.hold = uuid4()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE govbudget.ai_usage ADD COLUMN new text")
        connection.exec_driver_sql("UPDATE govbudget.alembic_version SET version_num = '9999'")
    statuses = {name: got.status_code for name, got in ask_everything(engine, town).items()}
    assert not {500, 503} & set(statuses.values()), statuses


@pytest.mark.parametrize("change", [gone, older, with_another_name], ids=lambda c: c.__name__)
def test_a_command_says_it_in_one_line(make_database, template, run, change):  # noqa: F811
    url = make_database(template=template)
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        change(connection)
    results = {
        words: run(*words.split(), database_url=as_text(url))
        for words in ("spend verify", "prices gaps", "prices load --shipped")
    }
    failed = {words: result for words, result in results.items() if result.status}
    assert failed
    for result in failed.values():
        assert result.status == 2
        assert result.sentence.endswith("run `govbudget db upgrade`")
