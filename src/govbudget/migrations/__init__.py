"""Alembic migrations of govbudget's own schema, with a version table of its own.

For hosts: `upgrade` in a transaction of theirs, `write_sql` for a DBA, and `exclude_govbudget` for
the `env.py` of their own Alembic.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import alembic.context
import alembic.op
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from govbudget.errors import SettingsError
from govbudget.migrations.filters import VERSION_TABLE, exclude_govbudget
from govbudget.migrations.triggers import compare_triggers
from govbudget.tables import Layout, Tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = [
    "downgrade",
    "exclude_govbudget",
    "find_differences",
    "head_revision",
    "read_revision",
    "upgrade",
    "write_sql",
]

BASE = "base"
HEAD = "head"

_alembic_is_ours = Lock()


def upgrade(connection: Connection, layout: Layout | None = None, revision: str = HEAD) -> None:
    """Bring the schema to a revision, in the caller's transaction. Never commits.

    `layout` is `settings.layout` of the installation; default: `Layout()`. Works inside a migration
    of the host's own, too: `upgrade(op.get_bind(), layout)`. Raises SettingsError where the schema
    is at a revision that this package does not know, or holds tables of somebody else.
    """
    layout = layout or Layout()
    _refuse_strangers(connection, layout)
    with _borrow_alembic():
        command.upgrade(_config(layout, connection=connection), revision)


def downgrade(connection: Connection, layout: Layout, revision: str) -> None:
    """Take the schema back to a revision (`base`: nothing left), in the caller's transaction."""
    with _borrow_alembic():
        command.downgrade(_config(layout, connection=connection), revision)


def write_sql(layout: Layout | None = None, start: str | None = None) -> str:
    """Write the SQL that `upgrade` would send, as one transaction; needs no database.

    From nothing, or from the revision `start`. Raises SettingsError where that is unknown.
    """
    if start is not None and start not in _list_revisions():
        raise SettingsError(
            f"`{start}` is no revision; there are {', '.join(f'`{r}`' for r in _list_revisions())}"
        )
    output = io.StringIO()
    with _borrow_alembic():
        config = _config(layout or Layout(), output=output)
        command.upgrade(config, f"{start or BASE}:{HEAD}", sql=True)
    return output.getvalue().replace(";;\n", ";\n")


def read_revision(connection: Connection, layout: Layout) -> str | None:
    """Give the revision that the database is at; None where nothing was installed."""
    options = {"version_table_schema": layout.schema, "version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


@cache
def head_revision() -> str | None:
    """Give the newest revision that this package knows."""
    return _scripts().get_current_head()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent))


def _list_revisions() -> list[str]:
    """Give all revisions, the oldest first."""
    return [script.revision for script in _scripts().walk_revisions()][::-1]


def _refuse_strangers(connection: Connection, layout: Layout) -> None:
    """Refuse a schema that is not, or not only, govbudget's."""
    revision = read_revision(connection, layout)
    if revision is not None and revision not in _list_revisions():
        raise SettingsError(
            f"the schema `{layout.schema}` is at `{revision}`, which this version of govbudget "
            "does not know; a newer one made it, or it is the schema of something else "
            "(GOVBUDGET_SCHEMA)"
        )
    if revision is None:
        names = set(sa.inspect(connection).get_table_names(schema=layout.schema))
        if others := sorted(names - {VERSION_TABLE}):
            raise SettingsError(
                f"the schema `{layout.schema}` holds tables already (`{others[0]}`); give "
                "govbudget a schema of its own (GOVBUDGET_SCHEMA)"
            )


@contextmanager
def _borrow_alembic() -> Iterator[None]:
    """Let one run at a time have Alembic's `context` and `op`, which are one for the process.

    An outer run, of a host whose own migration calls `upgrade`, has them back afterwards.
    """
    modules = (alembic.context, alembic.op)
    with _alembic_is_ours:
        outer = [getattr(module, "_proxy", None) for module in modules]
        try:
            yield
        finally:
            for proxy in outer:
                if proxy is not None:
                    proxy._install_proxy()  # noqa: SLF001 - Alembic has no public way


def find_differences(connection: Connection, layout: Layout) -> list[str]:
    """Say in what the database differs from the tables that this package expects.

    Needs a transaction: some settings are changed in a savepoint, which is rolled back.
    """
    # Alembic's name for the schema that the search path starts with is None.
    is_default = connection.dialect.default_schema_name == layout.schema
    schema = None if is_default else layout.schema
    with connection.begin_nested() as savepoint:
        # What stands in another schema, the host's groups too, is then seen by its full name.
        path = layout.schema if is_default else "pg_catalog"
        # Quotes around every name would be a difference of their own.
        for name, value in (("search_path", path), ("quote_all_identifiers", "off")):
            connection.execute(sa.select(sa.func.set_config(name, value, True)))  # noqa: FBT003
        context = MigrationContext.configure(connection, opts=comparison_options(layout, schema))
        expected = _expect(Tables(layout).metadata, layout.schema if is_default else None)
        with catch_warnings():  # SQLAlchemy's, of a constraint that is NOT VALID for old rows
            simplefilter("ignore", sa.exc.SAWarning)
            differences = [repr(change) for change in compare_metadata(context, expected)]
        savepoint.rollback()
    return [*differences, *compare_triggers(connection, layout.schema, write_sql(layout))]


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


def _config(layout: Layout, **attributes: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes.update(layout=layout, **attributes)
    return config
