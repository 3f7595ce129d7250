"""`flask govbudget ...` inside a host: the host's engine, settings and policy are used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from uuid import uuid4

import pytest
import sqlalchemy as sa
from flask import Flask, g, request
from tests.host.small_host import create_app, create_bare_app

from govbudget import GovBudget, SqlDirectory
from govbudget.authz.files import packaged_policy_dir
from govbudget.db.connection import normalize_url

pytestmark = pytest.mark.slow

ELSEWHERE = "postgresql://127.0.0.1:1/elsewhere"


@pytest.fixture
def database(make_database, monkeypatch):
    """The host's empty database; govbudget's own variable names one that is not there."""
    url = make_database().render_as_string(hide_password=False)
    monkeypatch.setenv("HOST_DATABASE", url)
    monkeypatch.setenv("GOVBUDGET_DATABASE_URL", ELSEWHERE)
    return url


@pytest.fixture
def flask(database):
    """Run `flask ...` in this process."""

    def flask(*arguments, stdin=None):
        runner = create_app().test_cli_runner()
        return runner.invoke(args=[str(part) for part in arguments], input=stdin)

    return flask


def test_migrations_go_to_the_hosts_engine_and_the_hosts_schema(flask, database):
    assert flask("govbudget", "db", "check").exit_code == 1
    upgraded = flask("govbudget", "db", "upgrade")
    assert (upgraded.exit_code, upgraded.stderr) == (0, "")
    assert "schema `money`" in upgraded.stdout
    assert flask("govbudget", "db", "check").exit_code == 0
    engine = sa.create_engine(normalize_url(database), poolclass=sa.NullPool)
    assert "group_ai_budgets" in sa.inspect(engine).get_table_names(schema="money")
    assert "govbudget" not in sa.inspect(engine).get_schema_names()


def test_directory_and_prices_use_the_hosts_engine_and_policy(flask, tmp_path, monkeypatch):
    shutil.copy(packaged_policy_dir() / "model.conf", tmp_path)
    lines = (packaged_policy_dir() / "policy.csv").read_text()
    (tmp_path / "policy.csv").write_text(lines + "p, boss, site, group, read, allow\n")
    monkeypatch.setenv("HOST_POLICY", str(tmp_path))
    flask("govbudget", "db", "upgrade")

    person = str(uuid4())
    file = {
        "users": [{"id": person, "name": "Ada"}],
        "roles": [{"user_id": person, "role": "boss", "organization_id": None}],
    }
    loaded = flask("govbudget", "directory", "load", "-", stdin=json.dumps(file))
    assert (loaded.exit_code, loaded.stderr) == (0, "")
    assert "role=boss" in loaded.stdout

    names = ("input_price", "output_price", "cache_read_price", "cache_write_price")
    row = {"provider": "acme", "model": "m", **dict.fromkeys(names, 1)}
    assert flask("govbudget", "prices", "load", "-", stdin=json.dumps([row])).exit_code == 0
    shown = json.loads(flask("govbudget", "prices", "show", "acme", "m").stdout)
    assert {key: shown[key] for key in row} == row


def test_policy_commands_speak_of_the_hosts_policy(flask, tmp_path, monkeypatch):
    for name in ("model.conf", "policy.csv", "matrix.csv"):
        shutil.copy(packaged_policy_dir() / name, tmp_path)
    monkeypatch.setenv("HOST_POLICY", str(tmp_path))
    monkeypatch.setenv("GOVBUDGET_POLICY_DIR", "/nowhere")
    (tmp_path / "policy").mkdir()  # the host's folder goes before one that is here, too
    monkeypatch.chdir(tmp_path)
    result = flask("govbudget", "policy", "check")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"policy: {tmp_path} sha256:")


def test_errors_are_one_line_with_status_2(flask):
    for arguments in (["prices", "show", "acme"], ["polcy"], ["prices", "show", "a", "b"]):
        result = flask("govbudget", *arguments)
        assert result.exit_code == 2, arguments
        (line,) = result.stderr.splitlines()
        assert line.startswith("govbudget: ")


def make_tenants(engine):
    """A host of whole numbers for ids, with tables of its own, whose engine a request finds."""
    app = Flask("tenants")
    app.config.update(GOVBUDGET_ID_TYPE="bigint", GOVBUDGET_GROUPS="public.team.id")
    table = sa.table("t", *map(sa.column, ("id", "organization_id", "user_id", "group_id", "role")))
    names = ("groups", "group_members", "organization_members", "role_assignments")
    directory = SqlDirectory(**dict.fromkeys(names, table))
    GovBudget(app, engine=engine, identify=lambda: None, directory=directory)
    return app.test_cli_runner()


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        (lambda: g.engine, "ended in `AttributeError`; let it give an engine also outside of a r"),
        (lambda: request.engine, "ended in `RuntimeError`; let it give an engine also outside of"),
        (
            lambda _: g.engine,
            "such as that of the site (None), and outside of a request",
        ),
    ],
)
def test_an_engine_that_only_a_request_finds_is_one_line(engine, sentence):
    result = make_tenants(engine).invoke(args=["govbudget", "spend", "member", "1", "2"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert sentence in line


def test_no_command_is_named_that_knows_nothing_of_the_hosts_users():
    result = make_tenants(lambda: None).invoke(args=["govbudget", "budget", "show", "ann"])
    assert result.stderr.endswith("`ann` is not an id; expected a whole number of 64 bits\n")


def test_the_stand_alone_server_is_not_for_a_host(flask):
    result = flask("govbudget", "serve")
    assert result.exit_code == 2
    assert "this application serves the endpoints itself" in result.stderr


def test_a_host_without_govbudget_has_no_such_command():
    assert "govbudget" not in create_bare_app().cli.commands


def test_it_works_from_the_shell(database):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "flask",
            "--app",
            "tests.host.small_host",
            "govbudget",
            "db",
            "check",
        ],
        env=os.environ | {"HOST_DATABASE": database},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "schema `money` is at nothing" in done.stdout
