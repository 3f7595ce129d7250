"""What the database role of a connection may do beside serving, or not do; see `list_rights`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import groupby

import sqlalchemy as sa

from govbudget.db.tables import Tables, list_rights
from govbudget.db.triggers import name_table
from govbudget.layout import Layout

# Whom it logged in as counts too: `RESET ROLE` is anybody's. A membership may be entered by
# `SET ROLE`, whatever is inherited.
_FINDINGS = sa.text("""
    WITH role AS (
        SELECT oid, rolname, rolsuper, rolcreaterole, to_regnamespace(quote_ident(:schema)) AS place
        FROM pg_catalog.pg_roles WHERE rolname IN (current_user, session_user)
    ), owned AS (
        SELECT oid AS place, nspowner AS owner FROM pg_catalog.pg_namespace
        UNION SELECT relnamespace, relowner FROM pg_catalog.pg_class
        UNION SELECT pronamespace, proowner FROM pg_catalog.pg_proc
    ), described AS (
        SELECT *, EXISTS (SELECT FROM owned WHERE owned.place = role.place
            AND pg_has_role(role.oid, owned.owner, 'MEMBER')) AS owns
        FROM role
    )
    SELECT rolname, 'is a superuser', NULL FROM described WHERE rolsuper
    UNION ALL SELECT rolname, 'can create roles', NULL FROM described
        WHERE rolcreaterole AND NOT rolsuper
    UNION ALL SELECT rolname, 'owns the schema or a part of it', NULL FROM described
        WHERE owns AND NOT rolsuper
    UNION ALL SELECT rolname, 'has CREATE on the schema', NULL FROM described
        WHERE has_schema_privilege(oid, place, 'CREATE') AND NOT owns
    UNION ALL SELECT rolname, verb, relname FROM described
        JOIN pg_catalog.pg_class c ON c.relnamespace = place AND c.relkind = 'r'
        CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS verb
        WHERE NOT owns AND (has_table_privilege(described.oid, c.oid, verb) OR verb IN ('INSERT',
            'UPDATE') AND has_any_column_privilege(described.oid, c.oid, verb))
    ORDER BY 1, 3 NULLS FIRST, 2
""")

_LACKING = sa.text("""
    SELECT verb, name
    FROM unnest(CAST(:tables AS text[]), CAST(:rights AS text[])) AS needed (name, verb)
    WHERE NOT has_table_privilege(name, verb) LIMIT 1
""")


def find_excess(connection: sa.Connection, layout: Layout) -> Iterator[str]:
    """Say what more the role may do than serving needs, in a sentence for each role."""
    needed = {table.name: rights for table, rights in list_rights(Tables(layout))}
    rows = connection.execute(_FINDINGS, {"schema": layout.schema})
    for role, found in groupby(rows, lambda row: row[0]):
        more = [
            what if table is None else f"has {what} on {table}"
            for _, what, table in found
            if what not in needed.get(table, "")
        ]
        if more:
            yield f"the role `{role}` {', '.join(more)}"


def find_lack(connection: sa.Connection, layout: Layout) -> str | None:
    """Name the first right that serving needs and the role does not have; None: it has them all."""
    tables, rights = _list_needed(layout)
    lacking = connection.execute(_LACKING, {"tables": tables, "rights": rights}).first()
    return None if lacking is None else " on ".join(lacking)


@cache
def _list_needed(layout: Layout) -> tuple[list[str], list[str]]:
    """List the tables, each as often as serving needs a right to it, and these rights."""
    needed = [
        (name_table(table), right)
        for table, rights in list_rights(Tables(layout))
        for right in rights.split(", ")
    ]
    return [table for table, _ in needed], [right for _, right in needed]
