"""Alembic migrations of govbudget's own schema, with a version table of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from govbudget.tables import Layout, Tables

if TYPE_CHECKING:
    from sqlalchemy import Connection

VERSION_TABLE = "alembic_version"
BASE = "base"
HEAD = "head"


def upgrade(connection: Connection, layout: Layout, revision: str = HEAD) -> None:
    """Bring the schema to a revision, in the caller's transaction. Never commits."""
    command.upgrade(_config(connection, layout), revision)


def downgrade(connection: Connection, layout: Layout, revision: str) -> None:
    """Take the schema back to a revision (`base`: nothing left), in the caller's transaction."""
    command.downgrade(_config(connection, layout), revision)


def read_revision(connection: Connection, layout: Layout) -> str | None:
    """Give the revision that the database is at; None where nothing was installed."""
    options = {"version_table_schema": layout.schema, "version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def head_revision() -> str | None:
    """Give the newest revision that this package knows."""
    return ScriptDirectory(str(Path(__file__).parent)).get_current_head()


def find_differences(connection: Connection, layout: Layout) -> list[str]:
    """Say in what the database differs from the tables that this package expects."""
    context = MigrationContext.configure(connection, opts=comparison_options(layout))
    return [repr(change) for change in compare_metadata(context, Tables(layout).metadata)]


def comparison_options(layout: Layout) -> dict[str, Any]:
    """Give Alembic's options for looking at govbudget's schema and at nothing else."""

    def is_ours(item: Any, name: str | None, kind: str, *_: Any) -> bool:  # noqa: ANN401
        if kind != "table":
            return True
        return item.schema == layout.schema and name != VERSION_TABLE

    return {
        "version_table_schema": layout.schema,
        "version_table": VERSION_TABLE,
        "include_schemas": True,
        "include_name": lambda name, kind, _: kind != "schema" or name == layout.schema,
        "include_object": is_ours,
        "compare_type": True,
        "compare_server_default": True,
    }


def _config(connection: Connection, layout: Layout) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes.update(connection=connection, layout=layout)
    return config
