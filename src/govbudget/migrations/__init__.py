"""The way to the schema that stands in the tables, for hosts and for the command.

A new database is made from the tables. One that is there is brought along by Alembic migrations,
with a version table in its own schema. Functions and triggers are made anew after each.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Executable
from sqlalchemy.schema import CreateIndex, CreateSchema, CreateTable

from govbudget.db.revisions import VERSION_TABLE, head_revision, list_revisions, read_revision
from govbudget.db.tables import Tables
from govbudget.db.triggers import name_table, write_behaviour
from govbudget.errors import SettingsError
from govbudget.layout import Layout
from govbudget.migrations.differences import find_differences
from govbudget.migrations.filters import exclude_govbudget

__all__ = [
    "exclude_govbudget",
    "find_differences",
    "head_revision",
    "read_revision",
    "upgrade",
    "write_sql",
]


def upgrade(connection: Connection, layout: Layout | None = None) -> None:
    """Bring the schema to the newest revision, in the caller's transaction. Never commits.

    `layout` is `settings.layout` of the installation; default: `Layout()`. Works inside a migration
    of the host's own, too: `upgrade(op.get_bind(), layout)`. Raises SettingsError where the schema
    is at a revision that this package does not know, or holds tables of somebody else, and for what
    is not a Connection: where Alembic only prints SQL, there is none.
    """
    if not isinstance(connection, sa.Connection):
        raise SettingsError(
            f"`upgrade` got a `{type(connection).__name__}`; give an open Connection. Where "
            "Alembic prints SQL (`--sql`), leave this migration out and print `govbudget db sql`"
        )
    layout = layout or Layout()
    revision = read_revision(connection, layout)
    _refuse_strangers(connection, layout, revision)
    # Asked first: the statement needs a right on the database even where the schema is there.
    if not sa.inspect(connection).has_schema(layout.schema):
        connection.execute(CreateSchema(layout.schema))
    _run(Tables(layout), revision, connection)


def write_sql(layout: Layout | None = None, start: str | None = None) -> str:
    """Write the SQL that `upgrade` would send, as one transaction; needs no database.

    From nothing, or from the revision `start`. Raises SettingsError where that is unknown.
    """
    if start is not None and start not in list_revisions():
        raise SettingsError(
            f"`{start}` is not a revision. Write one of "
            f"{', '.join(f'`{r}`' for r in list_revisions())}"
        )
    output, tables = io.StringIO(), Tables(layout or Layout())
    options = {"as_sql": True, "starting_rev": start, "literal_binds": True}
    _run(tables, start, None, output_buffer=output, **options)
    return output.getvalue()


def _refuse_strangers(connection: Connection, layout: Layout, revision: str | None) -> None:
    """Refuse a schema that is not, or not only, govbudget's."""
    if revision is not None and revision not in list_revisions():
        raise SettingsError(
            f"the schema `{layout.schema}` is at `{revision}`, which this version of govbudget "
            "does not know. A newer version made it, or one from before the first release, or it "
            "is the schema of something else (GOVBUDGET_SCHEMA)"
        )
    if revision is None:
        names = set(sa.inspect(connection).get_table_names(schema=layout.schema))
        if others := sorted(names - {VERSION_TABLE}):
            raise SettingsError(
                f"the schema `{layout.schema}` holds tables already (`{others[0]}`); give "
                "govbudget a schema of its own (GOVBUDGET_SCHEMA)"
            )


def _run(tables: Tables, start: str | None, connection: Connection | None, **options: Any) -> None:  # noqa: ANN401 - Alembic's
    """Make the schema from the tables and stamp it, or run the migrations after `start`."""
    scripts = ScriptDirectory(str(Path(__file__).parent))
    plan = scripts._stamp_revs if start is None else scripts._upgrade_revs  # noqa: SLF001 - as Alembic's commands do
    context = MigrationContext.configure(
        connection,
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # so that a percent sign stays as it is
        opts={
            "fn": lambda revision, _: plan("head", revision),
            "version_table": VERSION_TABLE,
            "version_table_schema": tables.layout.schema,
            **options,
        },
    )
    with context.begin_transaction():
        if start is None:
            for statement in _make(tables, with_schema=connection is None):
                context.execute(statement)
        context.run_migrations(op=Operations(context), tables=tables)
        for text in write_behaviour(tables.metadata, tables.layout):
            context.execute(sa.DDL(text.replace("%", "%%")))  # type: ignore[no-untyped-call]


def _make(tables: Tables, *, with_schema: bool) -> Iterator[Executable]:
    """Give the statements that make all tables."""
    schema = tables.layout.schema
    if with_schema:
        yield CreateSchema(schema, if_not_exists=True)
    for table in tables.metadata.sorted_tables:
        if table.schema == schema:
            yield CreateTable(table)
            if full := table.info.get("fillfactor"):  # SQLAlchemy 2.0 has no option for it
                name = name_table(table).replace("%", "%%")
                yield sa.DDL(f"ALTER TABLE {name} SET (fillfactor = {full})")  # type: ignore[no-untyped-call]
            yield from map(CreateIndex, sorted(table.indexes, key=lambda index: str(index.name)))
