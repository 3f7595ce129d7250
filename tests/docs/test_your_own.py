"""The how-tos about a host's own tables and roles: what they tell to write is written and run."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from flask import Flask, request

from govbudget import (
    GovBudget,
    IdType,
    Layout,
    Policy,
    PolicyError,
    SettingsError,
    SqlDirectory,
)
from govbudget.migrations import head_revision, read_revision, upgrade

pytestmark = pytest.mark.slow

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
TABLES, ROLES = HOW_TO / "your-own-tables.md", HOW_TO / "your-own-roles.md"
BLOCK = re.compile(r"(?:^`([\w./]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_blocks(page, language):
    return [text for file, kind, text in BLOCK.findall(page.read_text()) if kind == language]


def run_python(page):
    """Run the page's Python from top to bottom, but for what goes into files; give its names."""
    names = {}
    for file, language, text in BLOCK.findall(page.read_text()):
        if language == "python" and not file:
            exec(compile(text, page.name, "exec"), names)
    return names


# -- your-own-tables.md --

LAYOUT = Layout(IdType.BIGINT, groups="public.workspace.id")
HOST = """
    CREATE TABLE workspace (
        id integer PRIMARY KEY, account_id integer, kind text, archived_at timestamptz);
    CREATE TABLE workspace_user (workspace_id integer, user_id integer);
    CREATE TABLE account_user (account_id integer, user_id integer, is_admin boolean);
    CREATE TABLE supporter (user_id integer);
    CREATE VIEW staff AS
        SELECT user_id, 'admin' AS role, account_id AS organization_id
        FROM account_user WHERE is_admin
        UNION ALL SELECT user_id, 'support', NULL FROM supporter;
    INSERT INTO workspace VALUES (7, 1, 'room'), (9, 1, 'lobby'), (8, 2, 'room');
    INSERT INTO workspace VALUES (10, 1, 'room', now());
    INSERT INTO workspace_user VALUES (7, 100);
    INSERT INTO account_user VALUES (1, 100, false), (1, 200, true);
    INSERT INTO supporter VALUES (300);
"""


@pytest.fixture(scope="module")
def names():
    return run_python(TABLES)


@pytest.fixture
def engine(make_database):
    """The host's database; nothing of govbudget's in it."""
    engine = sa.create_engine(make_database())
    with engine.begin() as connection:
        connection.exec_driver_sql(HOST)
    yield engine
    engine.dispose()


@pytest.fixture
def tables(engine):
    """The host's tables, as it describes them itself."""
    metadata = sa.MetaData()
    metadata.reflect(engine, only=["workspace", "workspace_user", "account_user", "supporter"])
    return metadata.tables


@pytest.fixture
def directory(names, tables):
    host = ("workspace", "workspace_user", "account_user")
    return names["make_directory"](*(tables[name] for name in host))


def test_the_directory_of_the_page_is_right(names, engine, directory):
    """The page's own test, run over the page's own directory."""
    names["test_directory"](engine, directory)


def test_the_directory_that_asks_the_log_in_service_is_right_too(names, engine, directory):
    """It knows the owner, whom the tables do not know any more."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM supporter")
    vouched = names["VouchedDirectory"](
        directory, lambda user: ["owner"] if user == 300 else [], lambda: [300]
    )
    names["test_directory"](engine, vouched)
    with engine.begin() as connection:
        found = names["check_directory"](directory, connection, names["FACTS"])
    assert "load_group left out owner in site" in found


@pytest.fixture
def host(names, engine, directory):
    """The host's application, with budgets as the page adds them."""
    app = Flask(__name__)
    names["add_budgets"](app, engine, identify, directory)
    assert app.extensions["govbudget"].settings.layout == LAYOUT
    with engine.begin() as connection:
        upgrade(connection, LAYOUT)
    return app


def identify():
    return request.headers.get("X-User")


def ask(app, method, path, user, limit=None):
    body = None if limit is None else {"spend_limit_micros": limit}
    headers = {"X-User": str(user)}
    return app.test_client().open("/api/v2" + path, method=method, headers=headers, json=body)


def budget_of(group):
    return f"/groups/{group}/ai/budget"


def read_left(engine):
    """The groups that have budgets, and the number of those that went with their groups."""
    with engine.connect() as connection:
        groups = connection.exec_driver_sql(
            "SELECT group_id FROM govbudget.group_ai_budgets ORDER BY 1"
        )
        gone = connection.exec_driver_sql(
            "SELECT count(*) FROM govbudget.audit_log WHERE receipt->>'cause' = 'cascade'"
        )
        return groups.scalars().all(), gone.scalar_one()


def test_the_pages_host_serves_budgets_that_go_with_their_groups(host, engine):
    """A member reads, the lobby is everyone's, the archived is not there; support is everywhere."""
    for group in (7, 9):
        assert ask(host, "PUT", budget_of(group), 200, 5).status_code == 200
        assert ask(host, "GET", budget_of(group), 100).json["spend_limit_micros"] == 5
    assert ask(host, "PUT", budget_of(7), 100, 5).status_code == 403
    for group in (8, 10):
        assert ask(host, "PUT", budget_of(group), 200, 5).json["code"] == "group-not-found"
    assert ask(host, "PUT", budget_of(8), 300, 5).status_code == 200
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM workspace WHERE id = 7")
        connection.exec_driver_sql("UPDATE workspace SET archived_at = now() WHERE id = 9")
    assert read_left(engine) == ([8, 9], 1)
    assert ask(host, "GET", budget_of(9), 200).status_code == 404


def test_an_organization_is_there_while_it_has_a_group(host, engine):
    path = "/organizations/1/ai/audit"
    assert ask(host, "GET", path, 200).status_code == 200
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM workspace WHERE account_id = 1")
    assert ask(host, "GET", path, 200).status_code == 404


def test_without_a_foreign_key_the_pages_call_takes_budgets_along(names, engine, directory, tables):
    """The one of the deleted group, and the one of the archived group."""
    app = Flask(__name__)
    app.config.update(GOVBUDGET_ID_TYPE="bigint", GOVBUDGET_GROUPS="none")
    gov = GovBudget().init_app(app, engine=engine, identify=identify, directory=directory)
    with engine.begin() as connection:
        upgrade(connection, gov.settings.layout)
    for group in (7, 8, 9):
        assert ask(app, "PUT", budget_of(group), 300, 5).status_code == 200
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE workspace SET archived_at = now() WHERE id = 9")
        names["delete_workspace"](app, connection, tables["workspace"], 7)
    assert read_left(engine) == ([8], 2)


@pytest.fixture
def alembic(engine, tmp_path, monkeypatch):
    """The host's own Alembic, with the two files of the page, and its module `myapp`."""
    template = "revision = ${repr(up_revision)}\ndown_revision = ${repr(down_revision)}\n"
    template += "def upgrade():\n    ${upgrades}\n"
    files = {file: text for file, _, text in BLOCK.findall(TABLES.read_text()) if file}
    for file, text in {**files, "migrations/script.py.mako": template}.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    metadata = sa.MetaData()
    metadata.reflect(engine)
    myapp = SimpleNamespace(LAYOUT=LAYOUT, engine=engine, metadata=metadata)
    monkeypatch.setitem(sys.modules, "myapp", myapp)
    config = Config()
    config.set_main_option("script_location", str(tmp_path / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def test_the_hosts_own_migration_makes_the_tables_and_autogenerate_leaves_them(alembic, engine):
    """With the page's `env.py`, over all schemas; without the filter they would be dropped."""
    command.upgrade(alembic, "head")
    with engine.begin() as connection:
        assert read_revision(connection, LAYOUT) == head_revision()
    command.check(alembic)
    env = Path(alembic.get_main_option("script_location")) / "env.py"
    env.write_text(env.read_text().replace("**exclude_govbudget(LAYOUT),", ""))
    with pytest.raises(CommandError, match=r"remove_table.*group_ai_budgets"):
        command.check(alembic)


# -- your-own-roles.md --


@pytest.fixture
def project(tmp_path):
    """A project in which somebody did what the page says; `run` runs a block of it there."""

    def run(script):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    copy, *_ = read_blocks(ROLES, "sh")
    run(copy)
    for file, language in (("policy.csv", "text"), ("matrix.csv", "csv")):
        (added,) = read_blocks(ROLES, language)
        with (tmp_path / "policy" / file).open("a") as out:
            out.write(added)
    return SimpleNamespace(folder=tmp_path, run=run)


def test_the_commands_of_the_page_find_the_role_well_made(project):
    """Nothing to find, the decisions of the matrix, and the line that lets finance set budgets."""
    _, look, _ = read_blocks(ROLES, "sh")
    said = project.run(look)
    (added,) = read_blocks(ROLES, "csv")
    assert "no findings: 19 lines, 7 roles" in said
    assert set(added.splitlines()) <= set(said.splitlines())
    assert "allowed: finance, group, update" in said


def test_without_its_rows_in_the_matrix_the_policy_does_not_start(project):
    (added,) = read_blocks(ROLES, "csv")
    matrix = project.folder / "policy" / "matrix.csv"
    matrix.write_text(matrix.read_text().removesuffix(added))
    with pytest.raises(PolicyError) as refused:
        Policy.load(project.folder / "policy")
    assert {finding.code for finding in refused.value.findings} == {"matrix-differs"}


def test_the_digest_that_the_page_shows_is_printed_like_that(project):
    (shown,) = read_blocks(ROLES, "json")
    printed = project.run("govbudget policy check policy --format json")
    printed = printed.replace(str(project.folder), "/home/ada/project")
    masked = [re.sub(r"sha256:[0-9a-f]{64}", "a digest", text) for text in (shown, printed)]
    assert masked[0] == masked[1]


@pytest.fixture
def finance(project, engine, directory, monkeypatch):
    """A function that makes the host with the page's policy, whose admins are finance."""
    names = run_python(ROLES)
    policy = project.folder / "policy"
    monkeypatch.setenv("POLICY_DIGEST", Policy.load(policy).digest)

    def make(mapping):
        selectables = ("groups", "group_members", "organization_members")
        given = {name: getattr(directory, name) for name in selectables}
        staff = sa.table("staff", *map(sa.column, ("user_id", "role", "organization_id")))
        own = SqlDirectory(**given, role_assignments=staff, roles=mapping)
        app = Flask(__name__)
        app.config.update(GOVBUDGET_ID_TYPE="bigint", GOVBUDGET_GROUPS="none")
        names["add_budgets"](app, engine, identify, own, project.folder)
        return app

    with engine.begin() as connection:
        upgrade(connection, Layout(IdType.BIGINT, groups="none"))
    return make


def test_the_new_role_sets_budgets_and_sees_spend_in_its_organization(finance):
    app = finance({"admin": "finance"})
    assert ask(app, "PUT", budget_of(7), 200, 5).status_code == 200
    assert ask(app, "GET", "/organizations/1/members/100/ai/spend", 200).status_code == 200
    assert ask(app, "GET", "/organizations/1/members/200/ai/spend", 100).status_code == 404
    assert ask(app, "PUT", budget_of(8), 200, 5).status_code == 404
    assert ask(app, "PUT", budget_of(8), 300, 5).status_code == 404  # support is not mapped


def test_a_role_that_the_policy_does_not_know_is_an_error_at_start(finance):
    with pytest.raises(SettingsError, match="finanse"):
        finance({"admin": "finanse"})


def test_other_files_than_those_of_the_digest_do_not_start_or_come_into_force(finance, project):
    """A reload keeps the old policy."""
    app = finance({"admin": "finance"})
    gov = app.extensions["govbudget"]
    policy = project.folder / "policy" / "policy.csv"
    policy.write_text(policy.read_text() + "# a comment\n")
    for attempt in (gov.reload_policy, partial(finance, {"admin": "finance"})):
        with pytest.raises(PolicyError) as refused:
            attempt()
        assert [finding.code for finding in refused.value.findings] == ["digest-differs"]
    assert ask(app, "PUT", budget_of(7), 200, 5).status_code == 200


def test_the_mapping_of_the_page_gives_its_roles(directory, engine):
    """A manager is an org-admin of the company, a founder an owner, a clerk nothing."""
    names = run_python(ROLES)
    rows = (1, "manager", 5), (1, "clerk", 5), (2, "founder", None), (3, "founder", 5)
    columns = {"user_id": sa.BigInteger, "role": sa.Text, "organization_id": sa.BigInteger}
    held = sa.values(*itertools.starmap(sa.column, columns.items()), name="held").data(rows)
    selectables = ("groups", "group_members", "organization_members")
    given = {name: getattr(directory, name) for name in selectables}
    own = names["make_directory"](**given, role_assignments=held)
    with engine.connect() as connection:
        found = {
            user: {role: str(domain) for role, domain in own.load_assignments(connection, user)}
            for user in (1, 2, 3)
        }
    assert found == {
        1: {"org-admin": "organization:5"},
        2: {"owner": "site"},
        3: {"owner": "organization:5"},  # where it counts for nothing
    }
