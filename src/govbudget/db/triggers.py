"""The triggers: each change of a budget, a price or an override leaves its entry in the audit log.

Each audited table has one function. Its text stands here once, with what `Audited` says filled in:
functions that read columns by name keep their plans, and are as fast as any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from govbudget.identity import Cause
from govbudget.layout import Layout
from govbudget.new_ids import write_new_id

_PREPARER = pg.dialect().identifier_preparer  # type: ignore[no-untyped-call]
quote = _PREPARER.quote
name_table = _PREPARER.format_table

# As the answers have a time, whatever the settings of the session are.
_TIME = """to_char(timezone('UTC', {}), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

_EVENTS = ("INSERT", "UPDATE", "DELETE")
_SETS = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}

_OF_TRIGGER = "() RETURNS trigger LANGUAGE plpgsql"
_REFUSE = """
BEGIN
  RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END """

# {name_x}, {show_x} and {direct_x}: the name of row x, what an entry shows of it as JSON, and the
# receipt of a change of it that govbudget did not make.
#
# A change carries its receipt in the row; one without a receipt of its own was made behind
# govbudget's back. An authorized delete writes its entry in its own statement: under the revision
# that it deleted, or, of a price, as it was. Any other comes with what the row belonged to (by the
# foreign key), or directly. TRUNCATE fires no triggers of rows.
_SHOWN = "organization_id, object_type, object_id, before, after, receipt"
_LOG = f"INSERT INTO {{s}}.audit_log (id, {_SHOWN})"
_OF_SITE = write_new_id()
_OF_RECEIPT = write_new_id("receipt ->> 'organization_id'")
_TRUNCATE = f"""{_LOG}
    SELECT {write_new_id("d.receipt ->> 'organization_id'")},
           (d.receipt ->> 'organization_id')::{{id}}, '{{object_type}}', {{name_o}}, {{show_o}},
           NULL, d.receipt
    FROM {{table}} o, LATERAL (SELECT {{direct_o}} AS receipt) d;"""  # noqa: S608 - our names
_OF_ROWS = f"""
DECLARE
  stays boolean;
  receipt jsonb;
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    {_TRUNCATE}
    RETURN NULL;
  ELSIF TG_OP = 'DELETE' AND EXISTS (
    SELECT FROM {{s}}.audit_log l
    WHERE l.deleted_revision = OLD.revision AND l.at >= statement_timestamp()
  ) THEN
    RETURN NULL;
  END IF;
  stays := TG_OP = 'UPDATE' AND {{same}};
  IF TG_OP <> 'INSERT' AND NOT stays THEN
    receipt := {{direct_OLD}};
    IF {{gone}} THEN
      receipt := receipt || jsonb_build_object('cause', '{Cause.CASCADE}');
    END IF;
    {_LOG}
    VALUES ({_OF_RECEIPT}, (receipt ->> 'organization_id')::{{id}}, '{{object_type}}', {{name_OLD}},
            {{show_OLD}}, NULL, receipt);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    receipt := NEW.receipt;
    IF receipt -> 'id' IS NULL OR (TG_OP = 'UPDATE' AND receipt -> 'id' = OLD.receipt -> 'id') THEN
      receipt := {{direct_NEW}};
    END IF;
    {_LOG}
    VALUES ({_OF_RECEIPT}, (receipt ->> 'organization_id')::{{id}}, '{{object_type}}', {{name_NEW}},
            CASE WHEN stays THEN {{show_OLD}} END, {{show_NEW}}, receipt);
  END IF;
  RETURN NULL;
END """

# Rows that change in batches: an entry a row, written set by set. In an update the two sides meet
# in a FULL JOIN, though each row has its partner unless its key was changed: that can only be
# hashed or merged, so no plan for few rows is kept that loops over many.
_OF_SETS = f"""
BEGIN
  IF TG_OP = 'INSERT' THEN
    {_LOG}
    SELECT {_OF_SITE}, NULL, '{{object_type}}', {{name_n}}, NULL, {{show_n}},
           CASE WHEN n.receipt -> 'id' IS NULL THEN {{direct_n}} ELSE n.receipt END
    FROM new_rows n;
  ELSIF TG_OP = 'UPDATE' THEN
    {_LOG}
    SELECT {_OF_SITE}, NULL, '{{object_type}}', coalesce({{name_n}}, {{name_o}}),
           CASE WHEN {{o_is_there}} THEN {{show_o}} END,
           CASE WHEN {{n_is_there}} THEN {{show_n}} END,
           CASE WHEN {{o_is_there}} AND n.receipt -> 'id' <> coalesce(o.receipt -> 'id', 'null')
                THEN n.receipt ELSE {{direct_n}} END
    FROM new_rows n FULL JOIN old_rows o USING ({{key}});
  ELSIF TG_OP = 'DELETE' THEN
    {_LOG}
    SELECT {_OF_SITE}, NULL, '{{object_type}}', {{name_o}}, {{show_o}}, NULL, {{direct_o}}
    FROM old_rows o WHERE NOT EXISTS (
      SELECT FROM {{s}}.audit_log l
      WHERE l.organization_id IS NULL AND l.at >= statement_timestamp()
        AND l.object_type = '{{object_type}}' AND l.object_id = {{name_o}}
        AND l.before = {{show_o}} AND l.after IS NULL AND l.receipt -> 'id' IS NOT NULL
    );
  ELSE
    {_TRUNCATE}
  END IF;
  RETURN NULL;
END """  # noqa: S608 - our names


def show(column: str, row: str = "") -> str:
    """Write what an entry shows of a column of a row; one that ends in `_at` holds a time."""
    value = f"{row and row + '.'}{column}"
    return _TIME.format(value) if column.endswith("_at") else value


@dataclass(frozen=True, slots=True)
class Audited:
    """What the entries of a table's changes say.

    - `names`: the columns that name the object, whose type is `object_type`; `shown`: the columns
      that an entry shows.
    - `find`: SQL that gives the organization of what `{row}` belongs to, and no row where that is
      gone; None: it is not known.
    - `each`: `ROW`, or `STATEMENT` where rows of the site change in batches.
    """

    object_type: str
    names: tuple[str, ...]
    shown: tuple[str, ...]
    find: str | None = None
    each: str = "ROW"

    def write(self, table: sa.Table, schema: str, id_type: str) -> str:
        """Write the body of the table's function."""
        key = table.primary_key.columns.keys()
        parts = {
            "s": schema,
            "id": id_type,
            "table": name_table(table),
            "object_type": self.object_type,
            "key": ", ".join(key),
            "same": " AND ".join(f"NEW.{column} = OLD.{column}" for column in key),
            "gone": f"NOT EXISTS ({self._find('OLD')})" if self.find else "false",
        }
        for row, other in (("o", "o"), ("n", "n"), ("OLD", "OLD"), ("NEW", "OLD")):
            shown = ", ".join(f"'{name}', {show(name, row)}" for name in self.shown)
            found = [f"({self._find(row)})::text"] if self.find else []
            found += [f"{row}.organization_id::text"] if "organization_id" in table.c else []
            if self.each == "ROW":
                found += [f"{r}.receipt ->> 'organization_id'" for r in (other, row)]
            whose = f"coalesce({', '.join(found)})" if found else "NULL"
            parts |= {
                f"name_{row}": " || '/' || ".join(f"{row}.{name}::text" for name in self.names),
                f"show_{row}": f"jsonb_build_object({shown})",
                f"{row}_is_there": f"{row}.{key[0]} IS NOT NULL",
                f"direct_{row}": "jsonb_build_object('actor', NULL) || jsonb_strip_nulls("
                f"jsonb_build_object('cause', '{Cause.DIRECT}', 'organization_id', {whose}))",
            }
        return (_OF_ROWS if self.each == "ROW" else _OF_SETS).format(**parts)

    def _find(self, row: str) -> str:
        return (self.find or "").replace("{row}", row)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of a table, as it is made and as `db check` expects it."""

    suffix: str
    timing: str
    events: tuple[str, ...]
    level: str
    function: str

    def write(self, table: sa.Table, schema: str) -> str:
        """Write the statement that makes it; its function is in the schema."""
        has_sets = (self.timing, self.level) == ("AFTER", "STATEMENT")
        rows = _SETS[self.events[0]] if has_sets else ()
        sets = " ".join(f"{row} TABLE AS {row.lower()}_rows" for row in rows)
        return (
            f"CREATE OR REPLACE TRIGGER {table.name}_{self.suffix}"
            f" {self.timing} {' OR '.join(self.events)} ON {name_table(table)}"
            f"{sets and ' REFERENCING ' + sets} FOR EACH {self.level}"
            f" EXECUTE FUNCTION {schema}.{self.function}()"
        )


def list_triggers(table: sa.Table) -> Iterator[Trigger]:
    """Give the triggers of a table."""
    if table.info.get("is_append_only"):
        events = ("UPDATE", "DELETE", "TRUNCATE")
        yield Trigger("append_only", "BEFORE", events, "STATEMENT", "refuse_audit_change")
    audit: Audited | None = table.info.get("audit")
    if audit is not None:
        function = f"record_{table.name}"
        if audit.each == "ROW":
            yield Trigger("audit", "AFTER", _EVENTS, "ROW", function)
        else:  # a trigger with a table of changed rows is for one event
            for event in _EVENTS:
                suffix = f"audit_{event.lower()}"
                yield Trigger(suffix, "AFTER", (event,), "STATEMENT", function)
        yield Trigger("audit_truncate", "BEFORE", ("TRUNCATE",), "STATEMENT", function)


def write_functions(metadata: sa.MetaData, layout: Layout) -> dict[str, tuple[str, str]]:
    """Give what follows the name, and the body, of each function, by name."""
    names = (quote(layout.schema), str(layout.id_type))
    found = {"refuse_audit_change": (_OF_TRIGGER, _REFUSE)}
    for table in metadata.sorted_tables:
        found |= table.info.get("functions", {})
        if "audit" in table.info:
            body = table.info["audit"].write(table, *names)
            found[f"record_{table.name}"] = _OF_TRIGGER, body
    return found


def write_behaviour(metadata: sa.MetaData, layout: Layout) -> Iterator[str]:
    """Write the statements that make, or make anew, all functions and triggers."""
    schema = quote(layout.schema)
    for name, (head, body) in write_functions(metadata, layout).items():
        yield f"CREATE OR REPLACE FUNCTION {schema}.{name}{head} AS $${body}$$"
    for table in metadata.sorted_tables:
        for trigger in list_triggers(table):
            yield trigger.write(table, schema)
