"""The wheel: what it carries, and that it works in a new environment outside the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from tests.server.support import environment, open_folder
from tools.release import UV

pytestmark = pytest.mark.wheel

CHECKOUT = Path(__file__).parents[2]

GET = """
import json
from pathlib import Path
import sqlalchemy as sa
import govbudget
from govbudget.server.embedded import start_postgres
from govbudget.migrations import upgrade
from govbudget.layout import Layout
from govbudget.server.app import create_app, make_engine

with start_postgres() as url:
    engine = make_engine(sa.make_url(url), 1)
    with engine.begin() as connection:
        upgrade(connection, Layout())
    client = create_app(engine, {}).test_client()
    ready = client.get("/readyz")
    unknown = client.get("/api/v2/ai/prices/a/b")
    engine.dispose()
print(json.dumps([ready.status_code, unknown.status_code, govbudget.__file__]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this checkout, by the build backend of this environment."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel"]
    run(*build, "--outdir", folder, CHECKOUT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel):
    """The folder of a new environment with the wheel and its two extras; nothing of ours else.

    What it needs is installed by uv, in a second, and the wheel itself by pip, as users do it.
    """
    with open_folder() as folder:
        python = install(folder, "--compile-bytecode", f"{wheel}[embedded,serve]")
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
        run(*pip, "install", "--quiet", "--no-deps", "--force-reinstall", wheel, cwd=folder)
        yield folder


def install(folder, *arguments):
    """Install into a new environment in the folder, by uv; give its Python."""
    python = folder / "venv" / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    run(UV, "pip", "install", "--quiet", "--python", python, *arguments, cwd=folder)
    return python


def run(*command, cwd):
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_it_carries_the_policy_the_data_the_migrations_and_the_types_marker(wheel):
    names = set(ZipFile(wheel).namelist())
    carried = {name.removeprefix("govbudget/") for name in names if name.startswith("govbudget/")}
    assert carried >= {
        "server/demo.json",
        "policy/README.md",
        "policy/matrix.csv",
        "policy/model.conf",
        "policy/policy.csv",
        "prices/seed.json",
        "py.typed",
    }
    revisions = CHECKOUT / "src" / "govbudget" / "migrations" / "versions"
    assert carried >= {f"migrations/versions/{path.name}" for path in revisions.glob("*.py")}


def test_it_carries_every_file_of_the_package_and_nothing_else(wheel):
    names = {name for name in ZipFile(wheel).namelist() if not name.endswith("/")}
    ours = files_under(CHECKOUT / "src") | files_under(CHECKOUT / "policy", "govbudget/policy/")
    metadata = {name for name in names if re.match(r"govbudget-[^/]+\.dist-info/", name)}
    assert names - metadata == set(ours)
    assert not any("test_" in name for name in names)


def test_the_policy_in_it_is_that_of_the_checkout(wheel):
    with ZipFile(wheel) as archive:
        for name, path in files_under(CHECKOUT / "policy", "govbudget/policy/").items():
            assert archive.read(name) == path.read_bytes()


def files_under(folder, prefix=""):
    """The files of a folder by the names that they have in the wheel."""
    return {
        prefix + path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_policy_check_works_outside_the_checkout(installed):
    done = run(installed / "venv" / "bin" / "govbudget", "policy", "check", cwd=installed)
    which, said = done.stdout.splitlines()
    assert which.startswith(f"policy: {installed.resolve() / 'venv'}{os.sep}")
    assert said.startswith("no findings: ")
    assert str(CHECKOUT) not in done.stdout + done.stderr


def test_a_get_is_answered_from_an_embedded_postgresql_outside_the_checkout(installed):
    done = run(installed / "venv" / "bin" / "python", "-c", GET, cwd=installed)
    ready, unknown, file = json.loads(done.stdout)
    assert (ready, unknown) == (200, 401)
    assert Path(file).is_relative_to(installed.resolve() / "venv")
    assert done.stderr == ""


def test_a_get_is_answered_on_sqlalchemy_2_0_too(wheel):
    """Every other test here has 2.1. A database is made, and served."""
    with open_folder() as folder:
        python = install(folder, f"{wheel}[embedded,serve]", "sqlalchemy==2.0.*")
        done = run(python, "-c", GET, cwd=folder)
        assert json.loads(done.stdout)[:2] == [200, 401]


def test_the_demo_works_outside_the_checkout(installed):
    done = run(installed / "venv" / "bin" / "govbudget", "demo", cwd=installed)
    assert done.stdout.endswith("every answer was as policy/matrix.csv and the limits say\n")
    assert done.stderr == ""
