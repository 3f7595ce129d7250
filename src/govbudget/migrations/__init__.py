"""Alembic migrations of govbudget's own schema, with a version table of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
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
    """Say in what the database differs from the tables that this package expects.

    Needs a transaction: the search path is narrowed in a savepoint, which is rolled back.
    """
    # Alembic's name for the schema that the search path starts with is None.
    is_default = connection.dialect.default_schema_name == layout.schema
    schema = None if is_default else layout.schema
    with connection.begin_nested() as savepoint:
        # What stands in another schema, the host's groups too, is then seen by its full name.
        path = layout.schema if is_default else "pg_catalog"
        connection.execute(sa.select(sa.func.set_config("search_path", path, True)))  # noqa: FBT003
        context = MigrationContext.configure(connection, opts=comparison_options(layout, schema))
        expected = _expect(Tables(layout).metadata, layout.schema if is_default else None)
        differences = [repr(change) for change in compare_metadata(context, expected)]
        savepoint.rollback()
    return differences


def _expect(metadata: sa.MetaData, left_out: str | None) -> sa.MetaData:
    """Copy the tables with one schema's name left out, as they are reflected."""
    if left_out is None:
        return metadata
    copy = sa.MetaData(naming_convention=metadata.naming_convention)
    blank: Any = sa.schema.BLANK_SCHEMA
    for table in metadata.sorted_tables:
        schema: Any = None if table.schema == left_out else table.schema
        table.to_metadata(
            copy,
            schema=schema,
            referred_schema_fn=lambda _table, _to, _constraint, referred: (
                blank if referred == left_out else referred
            ),
        )
    return copy


def comparison_options(layout: Layout, schema: str | None) -> dict[str, Any]:
    """Give Alembic's options for looking at govbudget's schema and at nothing else."""

    def is_ours(item: Any, name: str | None, kind: str, *_: Any) -> bool:  # noqa: ANN401
        if kind != "table":
            return True
        return item.schema == schema and name != VERSION_TABLE

    return {
        "version_table_schema": layout.schema,
        "version_table": VERSION_TABLE,
        "include_schemas": True,
        "include_name": lambda name, kind, _: kind != "schema" or name == schema,
        "include_object": is_ours,
        "compare_type": True,
        "compare_server_default": True,
    }


def _config(connection: Connection, layout: Layout) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes.update(connection=connection, layout=layout)
    return config
