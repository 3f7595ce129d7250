"""In what a database differs from the tables, their triggers and their functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from govbudget.db.revisions import VERSION_TABLE
from govbudget.db.tables import Tables
from govbudget.db.triggers import list_triggers, write_functions
from govbudget.layout import Layout

_OPTIONS = sa.text("""
    SELECT c.relname, array_to_string(c.reloptions, ', ') FROM pg_catalog.pg_class c
    WHERE c.relnamespace = to_regnamespace(quote_ident(:schema)) AND c.relkind = 'r'
""")
_CHECKS = sa.text("""
    SELECT k.conname FROM pg_catalog.pg_constraint k
    WHERE k.connamespace = to_regnamespace(quote_ident(:schema)) AND k.contype = 'c'
""")
_TRIGGERS = sa.text("""
    SELECT t.tgname, c.relname, t.tgtype, p.proname FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    WHERE c.relnamespace = to_regnamespace(quote_ident(:schema))
      AND NOT t.tgisinternal AND (t.tgenabled = 'A' OR t.tgenabled = 'O'
          AND current_setting('session_replication_role') <> 'replica')
""")
_FUNCTIONS = sa.text("""
    SELECT p.proname, p.prosrc FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = to_regnamespace(quote_ident(:schema))
""")
# https://github.com/postgres/postgres/blob/REL_15_0/src/include/catalog/pg_trigger.h
_TYPE_BITS = {
    "STATEMENT": 0,
    "ROW": 1,
    "AFTER": 0,
    "BEFORE": 2,
    "INSERT": 4,
    "DELETE": 8,
    "UPDATE": 16,
    "TRUNCATE": 32,
}


def find_differences(connection: sa.Connection, layout: Layout) -> list[str]:
    """Say in what the database differs from the tables that this package expects.

    Needs a transaction: settings are changed in a savepoint, which is rolled back.
    """
    tables = Tables(layout)
    # Alembic's name for the schema that the search path starts with is None.
    is_default = connection.dialect.default_schema_name == layout.schema
    schema = None if is_default else layout.schema
    # What stands in another schema, the host's groups too, is then seen by its full name.
    settings = {
        "search_path": layout.schema if is_default else "pg_catalog",
        "quote_all_identifiers": "off",
    }
    with connection.begin_nested() as savepoint:
        for name, value in settings.items():
            connection.execute(sa.select(sa.func.set_config(name, value, True)))  # noqa: FBT003
        context = MigrationContext.configure(connection, opts=_choose_options(layout, schema))
        expected = Tables(layout, with_schema=not is_default).metadata
        differences = [repr(change) for change in compare_metadata(context, expected)]
        differences += _compare_the_rest(connection, tables)
        savepoint.rollback()
    return differences


def _compare_the_rest(connection: sa.Connection, tables: Tables) -> Iterator[str]:
    """Compare what Alembic does not: storage options, checks, triggers and functions."""
    schema = {"schema": tables.layout.schema}
    options = {name: text for name, text in connection.execute(_OPTIONS, schema)}  # noqa: C416 - rows
    checks = set(connection.scalars(_CHECKS, schema))
    triggers = {name: tuple(row) for name, *row in connection.execute(_TRIGGERS, schema)}
    for table in tables.metadata.sorted_tables:
        if table.schema != tables.layout.schema or table.name not in options:
            continue  # of one that is gone, enough is said
        full = table.info.get("fillfactor")
        text = full and f"fillfactor={full}"
        if options[table.name] != text:
            yield f"`{table.name}` has the options `{options[table.name]}`, not `{text}`"
        for check in table.constraints:
            if isinstance(check, sa.CheckConstraint) and check.name not in checks:
                yield f"no check `{check.name}`"
        for trigger in list_triggers(table):
            name = f"{table.name}_{trigger.suffix}"
            bits = sum(_TYPE_BITS[w] for w in (trigger.timing, trigger.level, *trigger.events))
            if triggers.get(name) != (table.name, bits, trigger.function):
                yield f"no trigger `{name}` in force as it should be"
    bodies = {name: body for name, body in connection.execute(_FUNCTIONS, schema)}  # noqa: C416 - rows
    for name, (_, body) in write_functions(tables.metadata, tables.layout).items():
        if bodies.get(name) != body:
            yield f"no function `{name}` as it should be"


def _choose_options(layout: Layout, schema: str | None) -> dict[str, Any]:
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
