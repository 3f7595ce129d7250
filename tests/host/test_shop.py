"""A host on the usual stack: Flask-SQLAlchemy, Flask-Login, Flask-Migrate, and its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from tests.host.servers import ask, read_cookie, run_flask, serve, split

pytestmark = pytest.mark.slow

CALLERS = 40
LIMIT = b'{"spend_limit_micros": 1000000}'


def test_its_own_suite_passes_and_leaves_no_row(shop_project):
    """In the database that is served, as the page says: rows of both are rolled back."""
    before = count_rows(shop_project.url)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "shop/tests"],
        cwd=shop_project.folder,
        env={**os.environ, **shop_project.settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("3 passed")
    assert count_rows(shop_project.url) == before


def count_rows(url):
    """Give the number of rows of each table, the host's and ours."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        tables = connection.exec_driver_sql(
            "SELECT schemaname || '.' || tablename FROM pg_tables "
            "WHERE schemaname IN ('public', 'govbudget')"
        )
        return {
            name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one()
            for name in tables.scalars().all()
        }


def test_flask_db_migrate_finds_nothing_to_do_beside_ours(shop_project):
    """It neither drops our tables nor makes them, even where it looks at all schemas."""
    env = shop_project.folder / "migrations" / "env.py"
    (made,) = (env.parent / "versions").glob("*.py")
    assert "op.create_table('team'" in made.read_text()
    written = env.read_text()
    assert written.count("**conf_args") == 1
    env.write_text(written.replace("**conf_args", "include_schemas=True, **conf_args"))
    said = run_flask(
        *("--app", "shop.main", "db", "migrate"), cwd=shop_project.folder, **shop_project.settings
    )
    env.write_text(written)
    assert said == ""
    assert list(made.parent.glob("*.py")) == [made]


def test_forty_callers_at_once_are_answered_over_the_pools_defaults(shop_project, tmp_path):
    """The session of each holds a connection, for the log-in, while the view calls `hold()`."""
    with (
        serve(tmp_path, ("shop.main", shop_project.settings), cwd=shop_project.folder) as (port,),
        ThreadPoolExecutor(CALLERS) as callers,
    ):
        log_ins = {n: ask(port, "POST", "/login", body=b"name=" + n) for n in (b"ann", b"bob")}
        ann, bob = ({"Cookie": read_cookie(answer)} for answer in log_ins.values())
        budget = "/api/v2/groups/1/ai/budget"
        put = ask(port, "PUT", budget, {**bob, "Content-Type": "application/json"}, LIMIT)
        assert split(put).status == 200
        for request in (("POST", "/companies/1/ask", ann, b"question=hello"), ("GET", budget, ann)):
            asked = [callers.submit(ask, port, *request) for _ in range(CALLERS)]
            assert [split(answer.result()).status for answer in asked] == [200] * CALLERS
