"""What the migrations make beside tables, triggers and functions, compared with a database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

# In the order in which they run: what is made, and what is taken away again.
_STATEMENT = re.compile(
    r"^CREATE (?:OR REPLACE )?FUNCTION (?P<function>[^\s(]+)\(.*?\bAS \$\$(?P<body>.*?)\$\$"
    r"|^CREATE (?:OR REPLACE )?TRIGGER (?P<trigger>\S+)\s.*?\sON (?P<table>\S+)"
    r"|^DROP FUNCTION (?:IF EXISTS )?(?P<dropped_function>[^\s(;]+)"
    r"|^DROP TRIGGER (?:IF EXISTS )?(?P<dropped_trigger>\S+) ON (?P<its_table>[^\s;]+)"
    r"|^DROP TABLE (?:IF EXISTS )?(?P<dropped_table>[^\s;]+)",
    re.MULTILINE | re.DOTALL,
)

_TRIGGERS = sa.text("""
    SELECT c.relname, t.tgname
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
""")
_FUNCTIONS = sa.text("""
    SELECT p.proname, p.prosrc FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = :schema
""")


def compare_triggers(connection: Connection, schema: str, sql: str) -> Iterator[str]:
    """Say what of the triggers and functions that `sql` makes is missing, off or changed."""
    triggers, functions = _read_expected(sql)
    found = connection.execute(_TRIGGERS, {"schema": schema})
    in_force = {(table, trigger) for table, trigger in found}
    bodies = {name: body for name, body in connection.execute(_FUNCTIONS, {"schema": schema})}  # noqa: C416 - rows
    tables = set(
        sa.inspect(connection).get_table_names(schema)
    )  # of one that is gone, enough is said
    for table, trigger in triggers:
        if table in tables and (table, trigger) not in in_force:
            yield f"no trigger `{trigger}` in force"
    for name, body in functions.items():
        if bodies.get(name) != body:
            yield f"no function `{name}` as the migrations make it"


def _read_expected(sql: str) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Read the triggers, as table and name, and the functions' bodies that remain after `sql`."""
    triggers: list[tuple[str, str]] = []
    functions: dict[str, str] = {}
    for match in _STATEMENT.finditer(sql):
        part = {key: _bare(text) for key, text in match.groupdict().items() if text is not None}
        if "function" in part:
            functions[part["function"]] = match["body"]
        elif "trigger" in part:
            triggers.append((part["table"], part["trigger"]))
        elif "dropped_function" in part:
            functions.pop(part["dropped_function"], None)
        else:
            gone = part.get("its_table") or part["dropped_table"]
            name = part.get("dropped_trigger")
            triggers = [t for t in triggers if t[0] != gone or name not in (None, t[1])]
    return triggers, functions


def _bare(name: str) -> str:
    """Give a name without its schema and quotes."""
    return name.rpartition(".")[2].strip('"')
