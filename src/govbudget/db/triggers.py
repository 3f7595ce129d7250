"""The triggers: each change of a budget, a price or an override leaves its entry in the audit log.

The trigger functions stand here once, and are told by a trigger's arguments what to show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.dialects import postgresql as pg

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import sqlalchemy as sa

    from govbudget.layout import Layout

_PREPARER = pg.dialect().identifier_preparer  # type: ignore[no-untyped-call]
quote = _PREPARER.quote
name_table = _PREPARER.format_table

# TRUNCATE fires no triggers of rows.
_EVENTS = ("INSERT", "UPDATE", "DELETE")
_ROWS = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}

# {s}: the schema; {id}: the SQL type of ids.
#
# A change carries its receipt in the row; one without a receipt of its own was made behind
# govbudget's back. An authorized delete writes its entry in its own statement: under the revision
# that it deleted, or, of a price, as it was. Any other comes with what the row belonged to (by the
# foreign key), or directly.
#
# The two sides of a batch meet in a FULL JOIN, though each row has its partner unless its key was
# changed: it can only be hashed or merged, so no plan for few rows is kept that loops over many.
_FUNCTIONS = {
    "refuse_audit_change() RETURNS trigger": """
BEGIN
  RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END """,
    # `find` gives the organization of what a row belongs to; no row where that is gone.
    "write_direct_receipt(was jsonb, becomes jsonb, find text) RETURNS jsonb": """
DECLARE
  cause text := 'direct';
  place text;
  found integer;
BEGIN
  IF find IS NOT NULL THEN
    EXECUTE find INTO place USING coalesce(becomes, was);
    GET DIAGNOSTICS found = ROW_COUNT;
    IF found = 0 THEN
      cause := 'cascade';
    END IF;
  END IF;
  RETURN jsonb_build_object('actor', NULL) || jsonb_strip_nulls(jsonb_build_object(
    'cause', cause,
    'organization_id', coalesce(
      place, coalesce(becomes, was) ->> 'organization_id',
      was -> 'receipt' ->> 'organization_id', becomes -> 'receipt' ->> 'organization_id')));
END """,
    "record_changes() RETURNS trigger": """
DECLARE
  names CONSTANT text[] := TG_ARGV[1];   -- the columns that name the object
  key CONSTANT text[] := TG_ARGV[2];     -- the primary key
  hidden CONSTANT text[] := TG_ARGV[3];  -- the columns that an entry does not show
  was jsonb[];
  becomes jsonb[];
BEGIN
  IF TG_LEVEL = 'ROW' THEN
    IF TG_OP = 'DELETE' AND EXISTS (
      SELECT FROM {s}.audit_log l
      WHERE l.deleted_revision = OLD.revision AND l.at >= statement_timestamp()
    ) THEN
      RETURN NULL;
    END IF;
    was := ARRAY[to_jsonb(OLD)];
    becomes := ARRAY[to_jsonb(NEW)];
    IF TG_OP = 'UPDATE' AND ARRAY[was[1] ->> key[1], was[1] ->> key[2], was[1] ->> key[3]]
      <> ARRAY[becomes[1] ->> key[1], becomes[1] ->> key[2], becomes[1] ->> key[3]] THEN
      was := was || NULL::jsonb;
      becomes := NULL::jsonb || becomes;
    END IF;
  ELSIF TG_OP = 'TRUNCATE' THEN
    EXECUTE 'SELECT array_agg(to_jsonb(o)) FROM ' || TG_RELID::regclass || ' o' INTO was;
  ELSIF TG_OP = 'INSERT' THEN
    SELECT array_agg(to_jsonb(n)) INTO becomes FROM new_rows n;
  ELSIF TG_OP = 'UPDATE' THEN
    SELECT array_agg(o), array_agg(n) INTO was, becomes
    FROM (SELECT to_jsonb(r) AS o FROM old_rows r OFFSET 0) a
    FULL JOIN (SELECT to_jsonb(r) AS n FROM new_rows r OFFSET 0) b
      ON ARRAY[o ->> key[1], o ->> key[2], o ->> key[3]]
       = ARRAY[n ->> key[1], n ->> key[2], n ->> key[3]];
  ELSE
    SELECT array_agg(o) INTO was FROM (SELECT to_jsonb(r) AS o FROM old_rows r OFFSET 0) a
    WHERE NOT EXISTS (
      SELECT FROM {s}.audit_log l
      WHERE l.organization_id IS NULL AND l.at >= statement_timestamp()
        AND l.object_type = TG_ARGV[0]
        AND l.object_id = concat_ws('/', o ->> names[1], o ->> names[2])
        AND l.before = o - hidden AND l.after IS NULL AND l.receipt -> 'id' IS NOT NULL
    );
  END IF;
  INSERT INTO {s}.audit_log (organization_id, object_type, object_id, before, after, receipt)
  SELECT (receipt ->> 'organization_id')::{id}, TG_ARGV[0],
         concat_ws('/', coalesce(n, o) ->> names[1], coalesce(n, o) ->> names[2]),
         o - hidden, n - hidden, receipt
  FROM unnest(was, becomes) c (o, n), LATERAL (
    SELECT CASE WHEN n -> 'receipt' -> 'id' <> coalesce(o -> 'receipt' -> 'id', 'null')
                     AND (o IS NOT NULL OR TG_OP = 'INSERT')
                THEN n -> 'receipt' ELSE {s}.write_direct_receipt(o, n, TG_ARGV[4]) END AS receipt
    OFFSET 0
  ) r;
  RETURN NULL;
END """,
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of a table, as it is made and as `db check` expects it."""

    suffix: str
    timing: str
    events: tuple[str, ...]
    level: str
    function: str
    arguments: tuple[str, ...] = ()

    def write(self, table: sa.Table, schema: str) -> str:
        """Write the statement that makes it; its function is in the schema."""
        has_sets = (self.timing, self.level) == ("AFTER", "STATEMENT")
        rows = _ROWS[self.events[0]] if has_sets else ()
        tables = " ".join(f"{row} TABLE AS {row.lower()}_rows" for row in rows)
        arguments = ", ".join("'" + text.replace("'", "''") + "'" for text in self.arguments)
        return (
            f"CREATE OR REPLACE TRIGGER {table.name}_{self.suffix}"
            f" {self.timing} {' OR '.join(self.events)} ON {name_table(table)}"
            f"{tables and ' REFERENCING ' + tables} FOR EACH {self.level}"
            f" EXECUTE FUNCTION {schema}.{self.function}({arguments})"
        )


APPEND_ONLY = Trigger(
    "append_only",
    "BEFORE",
    ("UPDATE", "DELETE", "TRUNCATE"),
    "STATEMENT",
    "refuse_audit_change",
)


def audit(  # noqa: PLR0917 - what a trigger is told
    table: sa.Table,
    object_type: str,
    names: Iterable[str],
    shown: Iterable[str],
    find: str | None = None,
    each: str = "ROW",
) -> sa.Table:
    """Let each change of a table's rows leave an entry.

    - `names`: the columns that name the object (two at most); `shown`: what an entry shows.
    - `find`: SQL that gives, for a changed row as JSON (`$1`), the organization of what it belongs
      to: no row where that is gone.
    - `each`: `ROW`, or `STATEMENT` where rows come in batches.
    """
    key = table.primary_key.columns.keys()
    hidden = [column for column in table.columns.keys() if column not in set(shown)]  # noqa: SIM118 - its keys are not what it iterates
    lists = (f"{{{','.join(columns)}}}" for columns in (names, key, hidden))
    arguments = (object_type, *lists, *([find] if find else []))
    sets: dict[str, tuple[str, ...]] = {"audit": _EVENTS}
    if each == "STATEMENT":  # a trigger with a table of changed rows is for one event
        sets = {f"audit_{event.lower()}": (event,) for event in _EVENTS}
    triggers = [(name, "AFTER", events, each) for name, events in sets.items()]
    triggers.append(("audit_truncate", "BEFORE", ("TRUNCATE",), "STATEMENT"))
    table.info["triggers"] = [Trigger(*t, "record_changes", arguments) for t in triggers]
    return table


def write_functions(layout: Layout) -> dict[str, str]:
    """Give each function's body, by its name, arguments and what it returns."""
    schema = quote(layout.schema)
    return {head: body.format(s=schema, id=layout.id_type) for head, body in _FUNCTIONS.items()}


def write_behaviour(metadata: sa.MetaData, layout: Layout) -> Iterator[str]:
    """Write the statements that make, or make anew, all functions and triggers."""
    schema = quote(layout.schema)
    for head, body in write_functions(layout).items():
        yield f"CREATE OR REPLACE FUNCTION {schema}.{head} LANGUAGE plpgsql AS $${body}$$"
    for table in metadata.sorted_tables:
        for trigger in table.info.get("triggers", ()):
            yield trigger.write(table, schema)
