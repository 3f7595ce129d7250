"""The command, run in this process: a status, what went to stdout, what went to stderr."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from uuid import UUID

import pytest
import sqlalchemy as sa
from tests.support import World


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def sentence(self):
        """The one line that went to stderr, where nothing else was said."""
        assert self.out == ""
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        assert line.startswith("govbudget: ")
        return line.removeprefix("govbudget: ")


@pytest.fixture
def run(monkeypatch, capfd):
    """Run the command with these arguments, and with no GOVBUDGET_* variables but the given."""
    from govbudget.cli import main

    def run(*arguments, stdin=b"", **variables):
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("GOVBUDGET_")]:
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(f"GOVBUDGET_{name.upper()}", str(value))
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main([str(argument) for argument in arguments])
            return Result(ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def url(database_url):
    """The shared database, as one writes it into GOVBUDGET_DATABASE_URL."""
    return as_text(database_url)


@pytest.fixture
def empty_url(make_database):
    """A database in which nothing was installed."""
    return as_text(make_database())


@pytest.fixture
def own_url(make_database, template):
    """A migrated database of one test, which may change it."""
    return as_text(make_database(template=template))


def as_text(url):
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def served_url(make_database, template):
    """A migrated database for servers: their tests may lock its tables."""
    return as_text(make_database(template=template))


@pytest.fixture(scope="session")
def served_world(served_url):
    """A world in that database, and a token of everybody in it (`tokens["member"]`)."""
    from govbudget.db.connection import normalize_url
    from govbudget.server.tokens import BearerTokens

    engine = sa.create_engine(normalize_url(served_url), poolclass=sa.NullPool)
    world = World(engine)
    store = BearerTokens(world.tables)
    with engine.begin() as connection:
        world.tokens = {
            name: store.create(connection, UUID(str(person)), days=1)
            for name, person in world.people.items()
        }
    return world


@pytest.fixture
def here(run, url):
    """Run the command on the shared database."""

    def here(*arguments, **options):
        return run(*arguments, database_url=url, **options)

    return here
