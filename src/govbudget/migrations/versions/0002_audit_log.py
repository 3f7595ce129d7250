"""The audit log: append-only, written by triggers together with each change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql as pg

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PRICES = (
    "CASE WHEN {row}.provider IS NOT NULL THEN jsonb_build_object('input_price', {row}.input_price,"
    " 'output_price', {row}.output_price, 'cache_read_price', {row}.cache_read_price,"
    " 'cache_write_price', {row}.cache_write_price) END"
)

PLACE = "(SELECT to_jsonb(g.organization_id) FROM {groups} g WHERE g.id = {row}.group_id)"

# Of budgets from before the log, so that what happens to them later is listed where they are.
FIND_PLACES = """
UPDATE {s}.group_ai_budgets b
SET receipt = jsonb_build_object('organization_id', g.organization_id)
FROM {groups} g WHERE g.id = b.group_id
"""

# {s}: the schema; {t}: the SQL type of ids; {old}, {new}: the prices of a row as JSON, or NULL.
FUNCTIONS = """
CREATE FUNCTION {s}.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {s}.audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION {s}.refuse_audit_change();

-- A change carries its receipt in the row; one without a receipt of its own was made behind
-- govbudget's back. An authorized delete writes its entry in its own statement, under the revision
-- that it deleted; any other comes with the group (by the foreign key) or directly.
CREATE FUNCTION {s}.record_budget_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  stays boolean := TG_OP = 'UPDATE' AND NEW.group_id = OLD.group_id;
  receipt jsonb;
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (
    SELECT FROM {s}.audit_log l
    WHERE l.deleted_revision = OLD.revision AND l.at >= statement_timestamp()
  ) THEN
    RETURN NULL;
  END IF;
  IF TG_OP <> 'INSERT' AND NOT stays THEN
    receipt := jsonb_build_object(
      'actor', NULL, 'cause', CASE WHEN {group_is_gone} THEN 'cascade' ELSE 'direct' END,
      'organization_id', coalesce({old_place}, OLD.receipt -> 'organization_id'));
    INSERT INTO {s}.audit_log (organization_id, object_type, object_id, before, after, receipt)
    VALUES ((receipt ->> 'organization_id')::{t}, 'group_ai_budget', OLD.group_id::text,
            jsonb_build_object('spend_limit_micros', OLD.spend_limit_micros), NULL, receipt);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    receipt := NEW.receipt;
    IF receipt -> 'id' IS NULL OR (TG_OP = 'UPDATE' AND receipt -> 'id' = OLD.receipt -> 'id') THEN
      receipt := jsonb_build_object(
        'actor', NULL, 'cause', 'direct',
        'organization_id', coalesce({new_place}, OLD.receipt -> 'organization_id',
                                    NEW.receipt -> 'organization_id'));
    END IF;
    INSERT INTO {s}.audit_log (organization_id, object_type, object_id, before, after, receipt)
    VALUES ((receipt ->> 'organization_id')::{t}, 'group_ai_budget', NEW.group_id::text,
            CASE WHEN stays
                 THEN jsonb_build_object('spend_limit_micros', OLD.spend_limit_micros) END,
            jsonb_build_object('spend_limit_micros', NEW.spend_limit_micros), receipt);
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER group_ai_budgets_audit AFTER INSERT OR UPDATE OR DELETE ON {s}.group_ai_budgets
  FOR EACH ROW EXECUTE FUNCTION {s}.record_budget_change();

-- TRUNCATE fires no row triggers.
CREATE FUNCTION {s}.record_budget_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO {s}.audit_log (organization_id, object_type, object_id, before, after, receipt)
  SELECT (o.receipt ->> 'organization_id')::{t}, 'group_ai_budget', o.group_id::text,
         jsonb_build_object('spend_limit_micros', o.spend_limit_micros), NULL, {direct}
  FROM {s}.group_ai_budgets o;
  RETURN NULL;
END $$;

CREATE TRIGGER group_ai_budgets_audit_truncate BEFORE TRUNCATE ON {s}.group_ai_budgets
  FOR EACH STATEMENT EXECUTE FUNCTION {s}.record_budget_truncate();

-- Prices change in batches: one entry a changed model, written set by set.
CREATE FUNCTION {s}.record_price_inserts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO {s}.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', n.provider || '/' || n.model, NULL, {new},
         coalesce(n.receipt, {direct})
  FROM new_rows n;
  RETURN NULL;
END $$;

CREATE FUNCTION {s}.record_price_updates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO {s}.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', provider || '/' || model, {old}, {new},
         CASE WHEN n.receipt IS NOT NULL
                   AND n.receipt -> 'id' IS DISTINCT FROM o.receipt -> 'id'
                   AND o.provider IS NOT NULL
              THEN n.receipt ELSE {direct} END
  FROM new_rows n FULL JOIN old_rows o USING (provider, model);
  RETURN NULL;
END $$;

CREATE FUNCTION {s}.record_price_deletes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO {s}.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', o.provider || '/' || o.model, {old}, NULL, {direct}
  FROM old_rows o;
  RETURN NULL;
END $$;

CREATE FUNCTION {s}.record_price_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO {s}.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', o.provider || '/' || o.model, {old}, NULL, {direct}
  FROM {s}.ai_model_prices o;
  RETURN NULL;
END $$;

CREATE TRIGGER ai_model_prices_audit_insert AFTER INSERT ON {s}.ai_model_prices
  REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION {s}.record_price_inserts();
CREATE TRIGGER ai_model_prices_audit_update AFTER UPDATE ON {s}.ai_model_prices
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION {s}.record_price_updates();
CREATE TRIGGER ai_model_prices_audit_delete AFTER DELETE ON {s}.ai_model_prices
  REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION {s}.record_price_deletes();
CREATE TRIGGER ai_model_prices_audit_truncate BEFORE TRUNCATE ON {s}.ai_model_prices
  FOR EACH STATEMENT EXECUTE FUNCTION {s}.record_price_truncate();
"""


def upgrade() -> None:
    """Make the log, let budgets and prices carry receipts, and set the triggers."""
    layout = context.config.attributes["layout"]
    for table in ("group_ai_budgets", "ai_model_prices"):
        op.add_column(table, sa.Column("receipt", pg.JSONB(), nullable=True), schema=layout.schema)
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("organization_id", layout.id_sql_type, autoincrement=False, nullable=True),
        sa.Column("object_type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("before", pg.JSONB(none_as_null=True), nullable=True),
        sa.Column("after", pg.JSONB(none_as_null=True), nullable=True),
        sa.Column("receipt", pg.JSONB(), nullable=False),
        sa.Column("deleted_revision", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="audit_log_pkey"),
        schema=layout.schema,
    )
    # Not unique: a row that was put back by hand has the revision that it had.
    op.create_index(
        "audit_log_deleted_revision_idx",
        "audit_log",
        ["deleted_revision"],
        schema=layout.schema,
        postgresql_where=sa.text("deleted_revision IS NOT NULL"),
    )
    op.create_index(
        "audit_log_organization_id_at_id_idx",
        "audit_log",
        ["organization_id", "at", "id"],
        schema=layout.schema,
    )
    quote = op.get_context().dialect.identifier_preparer.quote
    schema, group_is_gone, place = quote(layout.schema), "false", "NULL::jsonb"
    if layout.groups_key is not None:
        *names, column = map(quote, layout.groups_key.split("."))
        groups = ".".join(names)
        group_is_gone = f"NOT EXISTS (SELECT FROM {groups} g WHERE g.{column} = OLD.group_id)"
    if layout.owns_directory:
        place = PLACE.replace("{groups}", groups)
        op.execute(FIND_PLACES.format(s=schema, groups=groups))
    op.execute(
        FUNCTIONS.format(
            s=schema,
            t=layout.id_type,
            group_is_gone=group_is_gone,
            old_place=place.format(row="OLD"),
            new_place=place.format(row="NEW"),
            old=PRICES.format(row="o"),
            new=PRICES.format(row="n"),
            direct="jsonb_build_object('actor', NULL, 'cause', 'direct')",
        )
    )


def downgrade() -> None:
    """Take all of it back; the entries are lost."""
    layout = context.config.attributes["layout"]
    schema = op.get_context().dialect.identifier_preparer.quote(layout.schema)
    for table, trigger in (
        ("group_ai_budgets", "group_ai_budgets_audit"),
        ("group_ai_budgets", "group_ai_budgets_audit_truncate"),
        ("ai_model_prices", "ai_model_prices_audit_insert"),
        ("ai_model_prices", "ai_model_prices_audit_update"),
        ("ai_model_prices", "ai_model_prices_audit_delete"),
        ("ai_model_prices", "ai_model_prices_audit_truncate"),
    ):
        op.execute(f"DROP TRIGGER {trigger} ON {schema}.{table}")
    op.drop_table("audit_log", schema=layout.schema)
    for function in (
        "refuse_audit_change",
        "record_budget_change",
        "record_budget_truncate",
        "record_price_inserts",
        "record_price_updates",
        "record_price_deletes",
        "record_price_truncate",
    ):
        op.execute(f"DROP FUNCTION {schema}.{function}()")
    for table in ("group_ai_budgets", "ai_model_prices"):
        op.drop_column(table, "receipt", schema=layout.schema)
