"""The shop's database, made as the tutorial makes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tests.host.servers import HERE

# What the tutorial does in seven commands, in one process.
MAKE = """
import logging
import flask_migrate as migrations
from shop.main import create_app
from shop.models import fill

app = create_app()
with app.app_context():
    migrations.init()
    migrations.migrate()
    migrations.upgrade()
    fill()
# As docs/how-to/your-own-tables.md warns: migrations belong in a process of their own.
assert logging.getLogger("govbudget.request").disabled
for command in (["db", "upgrade"], ["prices", "load", "prices.json"]):
    done = app.test_cli_runner().invoke(args=["govbudget", *command])
    assert done.exit_code == 0, done.output
"""
PRICE = """[{"provider": "acme", "model": "parrot", "input_price": 1000000,
    "output_price": 1000000, "cache_read_price": null, "cache_write_price": null}]"""
collect_ignore = ["shop"]  # its tests run in a process of their own, as a host's do


@pytest.fixture(scope="session")
def shop_project(make_database, tmp_path_factory):
    """The shop in a folder of its own, with Flask-Migrate's migrations, tables and rows."""
    url, folder = make_database(), tmp_path_factory.mktemp("project")
    shutil.copytree(HERE / "shop", folder / "shop")
    (folder / "prices.json").write_text(PRICE)
    settings = {
        "SHOP_DATABASE": url.render_as_string(hide_password=False),
        "SHOP_SECRET": "a secret of the shop's",
    }

    done = subprocess.run(
        [sys.executable, "-c", MAKE],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder, settings=settings, url=url)
