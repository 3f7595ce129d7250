"""What the tests of the schema share: hosts, catalogs, and databases of revision 0004."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from govbudget import IdType, Layout

SQL_TYPES = {IdType.UUID: "uuid", IdType.BIGINT: "bigint", IdType.TEXT: "text"}
REVISION_0004 = Path(__file__).with_name("revision_0004")

# All that the catalog knows about a schema, without the schema's own name.
CATALOG = sa.text("""
    SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
           concat_ws(' ', a.attnotnull, a.attidentity, a.attgenerated,
                     pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = to_regnamespace(quote_ident(:schema))
        AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT 'constraint', c.relname, k.conname, concat_ws(' ', k.contype, k.convalidated),
           pg_get_constraintdef(k.oid)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE k.connamespace = to_regnamespace(quote_ident(:schema))
    UNION ALL
    SELECT 'index', tablename, indexname, '', indexdef FROM pg_indexes WHERE schemaname = :schema
    UNION ALL
    SELECT 'relation', relname, relkind::text, '', array_to_string(reloptions, ',')
    FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(:schema))
    UNION ALL
    SELECT 'function', proname, '', '', pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = to_regnamespace(quote_ident(:schema))
    UNION ALL
    SELECT 'trigger', c.relname, tgname, tgenabled::text, pg_get_triggerdef(t.oid)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = to_regnamespace(quote_ident(:schema)) AND NOT tgisinternal
    UNION ALL
    SELECT 'type', typname, typtype::text, '', '' FROM pg_type
    WHERE typnamespace = to_regnamespace(quote_ident(:schema)) AND typtype IN ('d', 'e')
""")


def read_schema(connection, schema):
    """Read all that a schema holds, without its name; the version table aside."""
    quoted = connection.dialect.identifier_preparer.quote(schema)
    return sorted(
        tuple(str(part).replace(f"{quoted}.", "") for part in row)
        for row in connection.execute(CATALOG, {"schema": schema})
        if not row[1].startswith("alembic_version")
    )


def make_host_tables(connection, layout=Layout()):  # noqa: B008 - a frozen value
    """Make what a host has: its groups, and tables that are nobody else's business."""
    kind = SQL_TYPES[layout.id_type]
    for statement in (
        "CREATE SCHEMA host",
        f"CREATE TABLE host.teams (id {kind} PRIMARY KEY, name text)",
        "CREATE TABLE host.orders (id bigint PRIMARY KEY)",
        f"CREATE TABLE public.teams (id {kind} PRIMARY KEY)",
        "CREATE TABLE public.alembic_version (version_num text)",
        "INSERT INTO public.alembic_version VALUES ('the host''s')",
        "CREATE TABLE public.groups (id bigint)",
    ):
        connection.exec_driver_sql(statement)


def make_revision_0004(connection, layout=Layout()):  # noqa: B008 - a frozen value
    """Make the schema as `write_sql` of revision 0004 wrote it."""
    groups = layout.groups if layout.groups in {"own", "none"} else "host"
    sql = (REVISION_0004 / f"{groups}.sql").read_text()
    quote = connection.dialect.identifier_preparer.quote
    sql = sql.replace("{id}", SQL_TYPES[layout.id_type])
    sql = sql.replace("govbudget.", f"{quote(layout.schema)}.")
    sql = sql.replace("SCHEMA IF NOT EXISTS govbudget;", f"SCHEMA {quote(layout.schema)};")
    sql = sql.removeprefix("BEGIN;").rstrip().removesuffix("COMMIT;")
    connection.connection.driver_connection.execute(sql)
