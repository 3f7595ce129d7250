"""The revision that a database is at, and those that this package knows, without Alembic.

Alembic takes a third of a second to import, and only an upgrade needs it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import sqlalchemy as sa

from govbudget.layout import Layout

VERSION_TABLE = "alembic_version"
_VERSIONS = Path(__file__).parents[1] / "migrations" / "versions"


def read_revision(connection: sa.Connection, layout: Layout) -> str | None:
    """Give the revision that the database is at; None where nothing was installed."""
    if not sa.inspect(connection).has_table(VERSION_TABLE, schema=layout.schema):
        return None
    version = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text), schema=layout.schema)
    return connection.scalar(sa.select(version.c.version_num))


@cache
def list_revisions() -> tuple[str, ...]:
    """Give all revisions, the oldest first: the numbers that their files are named by."""
    return tuple(sorted(path.name.partition("_")[0] for path in _VERSIONS.glob("*_*.py")))


def head_revision() -> str:
    """Give the newest revision that this package knows."""
    return list_revisions()[-1]
