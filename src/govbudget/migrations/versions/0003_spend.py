"""Two sources of prices, overrides, and spend: holds, the ledger, counters and rollups."""

from __future__ import annotations

import re
from importlib import import_module

from alembic import context, op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_audit_log = import_module("govbudget.migrations.versions.0002_audit_log")
PRICE_FUNCTIONS = "\n\n".join(
    re.findall(r"CREATE FUNCTION \{s\}\.record_price.*?END \$\$;", _audit_log.FUNCTIONS, re.DOTALL)
).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
DIRECT = "jsonb_build_object('actor', NULL, 'cause', 'direct')"

# An authorized removal writes its entry in its own statement, before the trigger runs.
RECORDED = """
  WHERE NOT EXISTS (
    SELECT FROM {s}.audit_log l
    WHERE l.organization_id IS NULL AND l.at >= statement_timestamp()
      AND l.object_type = 'ai_model_price' AND l.object_id = o.provider || '/' || o.model
      AND l.before -> 'source' = to_jsonb(o.source) AND l.after IS NULL
      AND l.receipt -> 'id' IS NOT NULL
  )"""

SOURCES = """
ALTER TABLE {s}.ai_model_prices ADD COLUMN source text NOT NULL DEFAULT 'book',
  ADD CONSTRAINT ai_model_prices_source_check CHECK (source IN ('book', 'custom')),
  DROP CONSTRAINT ai_model_prices_pkey,
  ADD CONSTRAINT ai_model_prices_pkey PRIMARY KEY (provider, model, source)
"""

# {s}: the schema; {t}: the SQL type of ids; {prices}: the four prices; {override_keys}: what an
# override belongs to.
TABLES = """
CREATE TABLE {s}.member_ai_overrides (
  organization_id {t} NOT NULL,
  user_id {t} NOT NULL,
  group_id {t} NOT NULL,
  spend_limit_micros bigint NOT NULL
    CONSTRAINT member_ai_overrides_limit_check CHECK (spend_limit_micros BETWEEN 0 AND {max}),
  revision uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  receipt jsonb,
  {override_keys}
  CONSTRAINT member_ai_overrides_pkey PRIMARY KEY (organization_id, user_id)
);

CREATE TABLE {s}.ai_holds (
  id uuid NOT NULL CONSTRAINT ai_holds_pkey PRIMARY KEY,
  organization_id {t} NOT NULL,
  user_id {t} NOT NULL,
  group_id {t},
  period date NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  {prices}
  cost_picos bigint,
  is_open boolean NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL
);

CREATE INDEX ai_holds_open_idx ON {s}.ai_holds (organization_id, user_id, period) WHERE is_open;

CREATE TABLE {s}.ai_usage (
  organization_id {t} NOT NULL,
  event_id text NOT NULL,
  user_id {t} NOT NULL,
  group_id {t},
  hold_id uuid CONSTRAINT ai_usage_hold_id_key UNIQUE,
  period date NOT NULL,
  day date NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  {prices}
  {tokens}
  cost_picos bigint
    CONSTRAINT ai_usage_cost_check CHECK (cost_picos BETWEEN 0 AND {max}000000),
  occurred_at timestamptz,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT ai_usage_pkey PRIMARY KEY (organization_id, event_id)
);

CREATE INDEX ai_usage_unpriced_idx ON {s}.ai_usage (provider, model) WHERE cost_picos IS NULL;

CREATE TABLE {s}.ai_spend_counters (
  organization_id {t} NOT NULL,
  user_id {t} NOT NULL,
  period date NOT NULL,
  spent_picos numeric(38, 0) NOT NULL,
  held_picos numeric(38, 0) NOT NULL,
  last_hold_id uuid,
  CONSTRAINT ai_spend_counters_pkey PRIMARY KEY (organization_id, user_id, period)
) WITH (fillfactor = 50);

CREATE TABLE {s}.ai_spend_rollups (
  organization_id {t} NOT NULL,
  grain text NOT NULL CONSTRAINT ai_spend_rollups_grain_check CHECK (grain IN ('day', 'month')),
  starts_on date NOT NULL,
  group_id {t},
  user_id {t} NOT NULL,
  cost_picos numeric(38, 0) NOT NULL,
  calls bigint NOT NULL,
  unpriced_calls bigint NOT NULL,
  CONSTRAINT ai_spend_rollups_key
    UNIQUE NULLS NOT DISTINCT (organization_id, grain, starts_on, group_id, user_id)
) WITH (fillfactor = 50);
"""

OWN_KEYS = """
  listing_group_id {t} GENERATED ALWAYS AS (NULLIF(group_id, organization_id)) STORED,
  CONSTRAINT member_ai_overrides_listing_group_id_user_id_fkey
    FOREIGN KEY (listing_group_id, user_id)
    REFERENCES {s}.group_members (group_id, user_id) ON DELETE CASCADE,
  CONSTRAINT member_ai_overrides_organization_id_user_id_fkey
    FOREIGN KEY (organization_id, user_id)
    REFERENCES {s}.organization_members (organization_id, user_id) ON DELETE CASCADE,
"""

OWN_GONE = (
    "NOT EXISTS (SELECT FROM {s}.organization_members m"
    " WHERE m.organization_id = OLD.organization_id AND m.user_id = OLD.user_id)"
    " OR OLD.listing_group_id IS NOT NULL AND NOT EXISTS (SELECT FROM {s}.group_members m"
    " WHERE m.group_id = OLD.listing_group_id AND m.user_id = OLD.user_id)"
)

HOST_KEY = """
  CONSTRAINT member_ai_overrides_group_id_fkey
    FOREIGN KEY (group_id) REFERENCES {groups} ({column}) ON DELETE CASCADE,
"""

OVERRIDE = (
    "jsonb_build_object('group_id', {row}.group_id, 'spend_limit_micros', {row}.spend_limit_micros)"
)

# {is_gone}: whether what the override belonged to is gone; {old}, {new}: an override as JSON.
OVERRIDE_TRIGGERS = """
CREATE FUNCTION {s}.record_override_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  stays boolean := TG_OP = 'UPDATE' AND NEW.user_id = OLD.user_id
    AND NEW.organization_id = OLD.organization_id;
  receipt jsonb;
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (
    SELECT FROM {s}.audit_log l
    WHERE l.deleted_revision = OLD.revision AND l.at >= statement_timestamp()
  ) THEN
    RETURN NULL;
  END IF;
  IF TG_OP <> 'INSERT' AND NOT stays THEN
    INSERT INTO {s}.audit_log (organization_id, object_type, object_id, before, after, receipt)
    VALUES (OLD.organization_id, 'member_ai_override', OLD.user_id::text, {old}, NULL,
            jsonb_build_object(
              'actor', NULL, 'cause', CASE WHEN {is_gone} THEN 'cascade' ELSE 'direct' END));
  END IF;
  IF TG_OP <> 'DELETE' THEN
    receipt := NEW.receipt;
    IF receipt -> 'id' IS NULL OR (TG_OP = 'UPDATE' AND receipt -> 'id' = OLD.receipt -> 'id') THEN
      receipt := {direct};
    END IF;
    INSERT INTO {s}.audit_log (organization_id, object_type, object_id, before, after, receipt)
    VALUES (NEW.organization_id, 'member_ai_override', NEW.user_id::text,
            CASE WHEN stays THEN {old} END, {new}, receipt);
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER member_ai_overrides_audit
  AFTER INSERT OR UPDATE OR DELETE ON {s}.member_ai_overrides
  FOR EACH ROW EXECUTE FUNCTION {s}.record_override_change();

CREATE FUNCTION {s}.record_override_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO {s}.audit_log (organization_id, object_type, object_id, before, after, receipt)
  SELECT o.organization_id, 'member_ai_override', o.user_id::text, {old_row}, NULL, {direct}
  FROM {s}.member_ai_overrides o;
  RETURN NULL;
END $$;

CREATE TRIGGER member_ai_overrides_audit_truncate BEFORE TRUNCATE ON {s}.member_ai_overrides
  FOR EACH STATEMENT EXECUTE FUNCTION {s}.record_override_truncate();
"""

PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
MAX = 10**12


def upgrade() -> None:
    """Let a model have a custom price, and make the tables of overrides and spend."""
    layout = context.config.attributes["layout"]
    quote = op.get_context().dialect.identifier_preparer.quote
    schema, keys, gone = quote(layout.schema), "", "false"
    if layout.owns_directory:
        keys = OWN_KEYS.format(s=schema, t=layout.id_type)
        gone = OWN_GONE.format(s=schema)
    elif layout.groups_key is not None:
        *names, column = map(quote, layout.groups_key.split("."))
        groups = ".".join(names)
        keys = HOST_KEY.format(groups=groups, column=column)
        gone = f"NOT EXISTS (SELECT FROM {groups} g WHERE g.{column} = OLD.group_id)"
    op.execute(SOURCES.format(s=schema))
    _record_prices(schema, "source", "'source', {row}.source, ", RECORDED)
    op.execute(
        TABLES.format(
            s=schema,
            t=layout.id_type,
            max=MAX,
            override_keys=keys.strip(),
            prices="\n  ".join(f"{price} bigint," for price in PRICES),
            tokens="\n  ".join(
                f"{count} bigint NOT NULL CONSTRAINT ai_usage_{count}_check"
                f" CHECK ({count} BETWEEN 0 AND {MAX}),"
                for count in TOKENS
            ),
        )
    )
    op.execute(
        OVERRIDE_TRIGGERS.format(
            s=schema,
            is_gone=gone,
            old=OVERRIDE.format(row="OLD"),
            new=OVERRIDE.format(row="NEW"),
            old_row=OVERRIDE.format(row="o"),
            direct=DIRECT,
        )
    )


def downgrade() -> None:
    """Take all of it back; overrides, spend and custom prices are lost."""
    layout = context.config.attributes["layout"]
    schema = op.get_context().dialect.identifier_preparer.quote(layout.schema)
    for table in (
        "ai_spend_rollups",
        "ai_spend_counters",
        "ai_usage",
        "ai_holds",
        "member_ai_overrides",
    ):
        op.drop_table(table, schema=layout.schema)
    for function in ("record_override_change", "record_override_truncate"):
        op.execute(f"DROP FUNCTION {schema}.{function}()")
    op.execute(f"DELETE FROM {schema}.ai_model_prices WHERE source = 'custom'")  # noqa: S608
    _record_prices(schema, "", "", "")
    op.execute(
        f"ALTER TABLE {schema}.ai_model_prices DROP CONSTRAINT ai_model_prices_pkey,"
        " ADD CONSTRAINT ai_model_prices_pkey PRIMARY KEY (provider, model), DROP COLUMN source"
    )


def _record_prices(schema: str, key: str, value: str, recorded: str) -> None:
    """Make the functions that record changed prices, with one more key column and value.

    `recorded` leaves out the deleted rows whose entry is written already.
    """
    prices = _audit_log.PRICES.replace("jsonb_build_object(", f"jsonb_build_object({value}", 1)
    functions = PRICE_FUNCTIONS.replace(
        "(provider, model)", f"(provider, model{key and ', '}{key})"
    ).replace("  FROM old_rows o;", f"  FROM old_rows o{recorded};")
    op.execute(
        functions.format(
            s=schema, old=prices.format(row="o"), new=prices.format(row="n"), direct=DIRECT
        )
    )
