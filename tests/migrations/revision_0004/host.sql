BEGIN;

CREATE SCHEMA IF NOT EXISTS govbudget;

CREATE TABLE govbudget.alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE govbudget.group_ai_budgets (
    group_id {id} NOT NULL, 
    spend_limit_micros BIGINT NOT NULL, 
    revision UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT group_ai_budgets_pkey PRIMARY KEY (group_id), 
    CONSTRAINT group_ai_budgets_group_id_fkey FOREIGN KEY(group_id) REFERENCES host.teams (id) ON DELETE CASCADE, 
    CONSTRAINT group_ai_budgets_limit_check CHECK (spend_limit_micros BETWEEN 0 AND 1000000000000)
);

CREATE TABLE govbudget.ai_model_prices (
    provider TEXT NOT NULL, 
    model TEXT NOT NULL, 
    input_price BIGINT, 
    output_price BIGINT, 
    cache_read_price BIGINT, 
    cache_write_price BIGINT, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT ai_model_prices_pkey PRIMARY KEY (provider, model), 
    CONSTRAINT ai_model_prices_input_price_check CHECK (input_price BETWEEN 0 AND 1000000000000), 
    CONSTRAINT ai_model_prices_output_price_check CHECK (output_price BETWEEN 0 AND 1000000000000), 
    CONSTRAINT ai_model_prices_cache_read_price_check CHECK (cache_read_price BETWEEN 0 AND 1000000000000), 
    CONSTRAINT ai_model_prices_cache_write_price_check CHECK (cache_write_price BETWEEN 0 AND 1000000000000)
);

INSERT INTO govbudget.alembic_version (version_num) VALUES ('0001') RETURNING govbudget.alembic_version.version_num;

-- Running upgrade 0001 -> 0002

ALTER TABLE govbudget.group_ai_budgets ADD COLUMN receipt JSONB;

ALTER TABLE govbudget.ai_model_prices ADD COLUMN receipt JSONB;

CREATE TABLE govbudget.audit_log (
    id UUID DEFAULT gen_random_uuid() NOT NULL, 
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
    organization_id {id}, 
    object_type TEXT NOT NULL, 
    object_id TEXT NOT NULL, 
    before JSONB, 
    after JSONB, 
    receipt JSONB NOT NULL, 
    deleted_revision UUID, 
    CONSTRAINT audit_log_pkey PRIMARY KEY (id)
);

CREATE INDEX audit_log_deleted_revision_idx ON govbudget.audit_log (deleted_revision) WHERE deleted_revision IS NOT NULL;

CREATE INDEX audit_log_organization_id_at_id_idx ON govbudget.audit_log (organization_id, at, id);

CREATE FUNCTION govbudget.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON govbudget.audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION govbudget.refuse_audit_change();

-- A change carries its receipt in the row; one without a receipt of its own was made behind
-- govbudget's back. An authorized delete writes its entry in its own statement, under the revision
-- that it deleted; any other comes with the group (by the foreign key) or directly.
CREATE FUNCTION govbudget.record_budget_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  stays boolean := TG_OP = 'UPDATE' AND NEW.group_id = OLD.group_id;
  receipt jsonb;
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (
    SELECT FROM govbudget.audit_log l
    WHERE l.deleted_revision = OLD.revision AND l.at >= statement_timestamp()
  ) THEN
    RETURN NULL;
  END IF;
  IF TG_OP <> 'INSERT' AND NOT stays THEN
    receipt := jsonb_build_object(
      'actor', NULL, 'cause', CASE WHEN NOT EXISTS (SELECT FROM host.teams g WHERE g.id = OLD.group_id) THEN 'cascade' ELSE 'direct' END,
      'organization_id', coalesce(NULL::jsonb, OLD.receipt -> 'organization_id'));
    INSERT INTO govbudget.audit_log (organization_id, object_type, object_id, before, after, receipt)
    VALUES ((receipt ->> 'organization_id')::{id}, 'group_ai_budget', OLD.group_id::text,
            jsonb_build_object('spend_limit_micros', OLD.spend_limit_micros), NULL, receipt);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    receipt := NEW.receipt;
    IF receipt -> 'id' IS NULL OR (TG_OP = 'UPDATE' AND receipt -> 'id' = OLD.receipt -> 'id') THEN
      receipt := jsonb_build_object(
        'actor', NULL, 'cause', 'direct',
        'organization_id', coalesce(NULL::jsonb, OLD.receipt -> 'organization_id',
                                    NEW.receipt -> 'organization_id'));
    END IF;
    INSERT INTO govbudget.audit_log (organization_id, object_type, object_id, before, after, receipt)
    VALUES ((receipt ->> 'organization_id')::{id}, 'group_ai_budget', NEW.group_id::text,
            CASE WHEN stays
                 THEN jsonb_build_object('spend_limit_micros', OLD.spend_limit_micros) END,
            jsonb_build_object('spend_limit_micros', NEW.spend_limit_micros), receipt);
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER group_ai_budgets_audit AFTER INSERT OR UPDATE OR DELETE ON govbudget.group_ai_budgets
  FOR EACH ROW EXECUTE FUNCTION govbudget.record_budget_change();

-- TRUNCATE fires no row triggers.
CREATE FUNCTION govbudget.record_budget_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO govbudget.audit_log (organization_id, object_type, object_id, before, after, receipt)
  SELECT (o.receipt ->> 'organization_id')::{id}, 'group_ai_budget', o.group_id::text,
         jsonb_build_object('spend_limit_micros', o.spend_limit_micros), NULL, jsonb_build_object('actor', NULL, 'cause', 'direct')
  FROM govbudget.group_ai_budgets o;
  RETURN NULL;
END $$;

CREATE TRIGGER group_ai_budgets_audit_truncate BEFORE TRUNCATE ON govbudget.group_ai_budgets
  FOR EACH STATEMENT EXECUTE FUNCTION govbudget.record_budget_truncate();

-- Prices change in batches: one entry a changed model, written set by set.
CREATE FUNCTION govbudget.record_price_inserts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO govbudget.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', n.provider || '/' || n.model, NULL, CASE WHEN n.provider IS NOT NULL THEN jsonb_build_object('input_price', n.input_price, 'output_price', n.output_price, 'cache_read_price', n.cache_read_price, 'cache_write_price', n.cache_write_price) END,
         coalesce(n.receipt, jsonb_build_object('actor', NULL, 'cause', 'direct'))
  FROM new_rows n;
  RETURN NULL;
END $$;

CREATE FUNCTION govbudget.record_price_updates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO govbudget.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', provider || '/' || model, CASE WHEN o.provider IS NOT NULL THEN jsonb_build_object('input_price', o.input_price, 'output_price', o.output_price, 'cache_read_price', o.cache_read_price, 'cache_write_price', o.cache_write_price) END, CASE WHEN n.provider IS NOT NULL THEN jsonb_build_object('input_price', n.input_price, 'output_price', n.output_price, 'cache_read_price', n.cache_read_price, 'cache_write_price', n.cache_write_price) END,
         CASE WHEN n.receipt IS NOT NULL
                   AND n.receipt -> 'id' IS DISTINCT FROM o.receipt -> 'id'
                   AND o.provider IS NOT NULL
              THEN n.receipt ELSE jsonb_build_object('actor', NULL, 'cause', 'direct') END
  FROM new_rows n FULL JOIN old_rows o USING (provider, model);
  RETURN NULL;
END $$;

CREATE FUNCTION govbudget.record_price_deletes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO govbudget.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', o.provider || '/' || o.model, CASE WHEN o.provider IS NOT NULL THEN jsonb_build_object('input_price', o.input_price, 'output_price', o.output_price, 'cache_read_price', o.cache_read_price, 'cache_write_price', o.cache_write_price) END, NULL, jsonb_build_object('actor', NULL, 'cause', 'direct')
  FROM old_rows o;
  RETURN NULL;
END $$;

CREATE FUNCTION govbudget.record_price_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO govbudget.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', o.provider || '/' || o.model, CASE WHEN o.provider IS NOT NULL THEN jsonb_build_object('input_price', o.input_price, 'output_price', o.output_price, 'cache_read_price', o.cache_read_price, 'cache_write_price', o.cache_write_price) END, NULL, jsonb_build_object('actor', NULL, 'cause', 'direct')
  FROM govbudget.ai_model_prices o;
  RETURN NULL;
END $$;

CREATE TRIGGER ai_model_prices_audit_insert AFTER INSERT ON govbudget.ai_model_prices
  REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION govbudget.record_price_inserts();
CREATE TRIGGER ai_model_prices_audit_update AFTER UPDATE ON govbudget.ai_model_prices
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION govbudget.record_price_updates();
CREATE TRIGGER ai_model_prices_audit_delete AFTER DELETE ON govbudget.ai_model_prices
  REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION govbudget.record_price_deletes();
CREATE TRIGGER ai_model_prices_audit_truncate BEFORE TRUNCATE ON govbudget.ai_model_prices
  FOR EACH STATEMENT EXECUTE FUNCTION govbudget.record_price_truncate();

UPDATE govbudget.alembic_version SET version_num='0002' WHERE govbudget.alembic_version.version_num = '0001';

-- Running upgrade 0002 -> 0003

ALTER TABLE govbudget.ai_model_prices ADD COLUMN source text NOT NULL DEFAULT 'book',
  ADD CONSTRAINT ai_model_prices_source_check CHECK (source IN ('book', 'custom')),
  DROP CONSTRAINT ai_model_prices_pkey,
  ADD CONSTRAINT ai_model_prices_pkey PRIMARY KEY (provider, model, source);

CREATE OR REPLACE FUNCTION govbudget.record_price_inserts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO govbudget.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', n.provider || '/' || n.model, NULL, CASE WHEN n.provider IS NOT NULL THEN jsonb_build_object('source', n.source, 'input_price', n.input_price, 'output_price', n.output_price, 'cache_read_price', n.cache_read_price, 'cache_write_price', n.cache_write_price) END,
         coalesce(n.receipt, jsonb_build_object('actor', NULL, 'cause', 'direct'))
  FROM new_rows n;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION govbudget.record_price_updates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO govbudget.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', provider || '/' || model, CASE WHEN o.provider IS NOT NULL THEN jsonb_build_object('source', o.source, 'input_price', o.input_price, 'output_price', o.output_price, 'cache_read_price', o.cache_read_price, 'cache_write_price', o.cache_write_price) END, CASE WHEN n.provider IS NOT NULL THEN jsonb_build_object('source', n.source, 'input_price', n.input_price, 'output_price', n.output_price, 'cache_read_price', n.cache_read_price, 'cache_write_price', n.cache_write_price) END,
         CASE WHEN n.receipt IS NOT NULL
                   AND n.receipt -> 'id' IS DISTINCT FROM o.receipt -> 'id'
                   AND o.provider IS NOT NULL
              THEN n.receipt ELSE jsonb_build_object('actor', NULL, 'cause', 'direct') END
  FROM new_rows n FULL JOIN old_rows o USING (provider, model, source);
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION govbudget.record_price_deletes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO govbudget.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', o.provider || '/' || o.model, CASE WHEN o.provider IS NOT NULL THEN jsonb_build_object('source', o.source, 'input_price', o.input_price, 'output_price', o.output_price, 'cache_read_price', o.cache_read_price, 'cache_write_price', o.cache_write_price) END, NULL, jsonb_build_object('actor', NULL, 'cause', 'direct')
  FROM old_rows o
  WHERE NOT EXISTS (
    SELECT FROM govbudget.audit_log l
    WHERE l.organization_id IS NULL AND l.at >= statement_timestamp()
      AND l.object_type = 'ai_model_price' AND l.object_id = o.provider || '/' || o.model
      AND l.before -> 'source' = to_jsonb(o.source) AND l.after IS NULL
      AND l.receipt -> 'id' IS NOT NULL
  );
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION govbudget.record_price_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO govbudget.audit_log (object_type, object_id, before, after, receipt)
  SELECT 'ai_model_price', o.provider || '/' || o.model, CASE WHEN o.provider IS NOT NULL THEN jsonb_build_object('source', o.source, 'input_price', o.input_price, 'output_price', o.output_price, 'cache_read_price', o.cache_read_price, 'cache_write_price', o.cache_write_price) END, NULL, jsonb_build_object('actor', NULL, 'cause', 'direct')
  FROM govbudget.ai_model_prices o;
  RETURN NULL;
END $$;

CREATE TABLE govbudget.member_ai_overrides (
  organization_id {id} NOT NULL,
  user_id {id} NOT NULL,
  group_id {id} NOT NULL,
  spend_limit_micros bigint NOT NULL
    CONSTRAINT member_ai_overrides_limit_check CHECK (spend_limit_micros BETWEEN 0 AND 1000000000000),
  revision uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  receipt jsonb,
  CONSTRAINT member_ai_overrides_group_id_fkey
    FOREIGN KEY (group_id) REFERENCES host.teams (id) ON DELETE CASCADE,
  CONSTRAINT member_ai_overrides_pkey PRIMARY KEY (organization_id, user_id)
);

CREATE TABLE govbudget.ai_holds (
  id uuid NOT NULL CONSTRAINT ai_holds_pkey PRIMARY KEY,
  organization_id {id} NOT NULL,
  user_id {id} NOT NULL,
  group_id {id},
  period date NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  input_price bigint,
  output_price bigint,
  cache_read_price bigint,
  cache_write_price bigint,
  cost_picos bigint,
  is_open boolean NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL
);

CREATE INDEX ai_holds_open_idx ON govbudget.ai_holds (organization_id, user_id, period) WHERE is_open;

CREATE TABLE govbudget.ai_usage (
  organization_id {id} NOT NULL,
  event_id text NOT NULL,
  user_id {id} NOT NULL,
  group_id {id},
  hold_id uuid CONSTRAINT ai_usage_hold_id_key UNIQUE,
  period date NOT NULL,
  day date NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  input_price bigint,
  output_price bigint,
  cache_read_price bigint,
  cache_write_price bigint,
  input_tokens bigint NOT NULL CONSTRAINT ai_usage_input_tokens_check CHECK (input_tokens BETWEEN 0 AND 1000000000000),
  output_tokens bigint NOT NULL CONSTRAINT ai_usage_output_tokens_check CHECK (output_tokens BETWEEN 0 AND 1000000000000),
  cache_read_tokens bigint NOT NULL CONSTRAINT ai_usage_cache_read_tokens_check CHECK (cache_read_tokens BETWEEN 0 AND 1000000000000),
  cache_write_tokens bigint NOT NULL CONSTRAINT ai_usage_cache_write_tokens_check CHECK (cache_write_tokens BETWEEN 0 AND 1000000000000),
  cost_picos bigint
    CONSTRAINT ai_usage_cost_check CHECK (cost_picos BETWEEN 0 AND 1000000000000000000),
  occurred_at timestamptz,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT ai_usage_pkey PRIMARY KEY (organization_id, event_id)
);

CREATE INDEX ai_usage_unpriced_idx ON govbudget.ai_usage (provider, model) WHERE cost_picos IS NULL;

CREATE TABLE govbudget.ai_spend_counters (
  organization_id {id} NOT NULL,
  user_id {id} NOT NULL,
  period date NOT NULL,
  spent_picos numeric(38, 0) NOT NULL,
  held_picos numeric(38, 0) NOT NULL,
  last_hold_id uuid,
  CONSTRAINT ai_spend_counters_pkey PRIMARY KEY (organization_id, user_id, period)
) WITH (fillfactor = 50);

CREATE TABLE govbudget.ai_spend_rollups (
  organization_id {id} NOT NULL,
  grain text NOT NULL CONSTRAINT ai_spend_rollups_grain_check CHECK (grain IN ('day', 'month')),
  starts_on date NOT NULL,
  group_id {id},
  user_id {id} NOT NULL,
  cost_picos numeric(38, 0) NOT NULL,
  calls bigint NOT NULL,
  unpriced_calls bigint NOT NULL,
  CONSTRAINT ai_spend_rollups_key
    UNIQUE NULLS NOT DISTINCT (organization_id, grain, starts_on, group_id, user_id)
) WITH (fillfactor = 50);

CREATE FUNCTION govbudget.record_override_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  stays boolean := TG_OP = 'UPDATE' AND NEW.user_id = OLD.user_id
    AND NEW.organization_id = OLD.organization_id;
  receipt jsonb;
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (
    SELECT FROM govbudget.audit_log l
    WHERE l.deleted_revision = OLD.revision AND l.at >= statement_timestamp()
  ) THEN
    RETURN NULL;
  END IF;
  IF TG_OP <> 'INSERT' AND NOT stays THEN
    INSERT INTO govbudget.audit_log (organization_id, object_type, object_id, before, after, receipt)
    VALUES (OLD.organization_id, 'member_ai_override', OLD.user_id::text, jsonb_build_object('group_id', OLD.group_id, 'spend_limit_micros', OLD.spend_limit_micros), NULL,
            jsonb_build_object(
              'actor', NULL, 'cause', CASE WHEN NOT EXISTS (SELECT FROM host.teams g WHERE g.id = OLD.group_id) THEN 'cascade' ELSE 'direct' END));
  END IF;
  IF TG_OP <> 'DELETE' THEN
    receipt := NEW.receipt;
    IF receipt -> 'id' IS NULL OR (TG_OP = 'UPDATE' AND receipt -> 'id' = OLD.receipt -> 'id') THEN
      receipt := jsonb_build_object('actor', NULL, 'cause', 'direct');
    END IF;
    INSERT INTO govbudget.audit_log (organization_id, object_type, object_id, before, after, receipt)
    VALUES (NEW.organization_id, 'member_ai_override', NEW.user_id::text,
            CASE WHEN stays THEN jsonb_build_object('group_id', OLD.group_id, 'spend_limit_micros', OLD.spend_limit_micros) END, jsonb_build_object('group_id', NEW.group_id, 'spend_limit_micros', NEW.spend_limit_micros), receipt);
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER member_ai_overrides_audit
  AFTER INSERT OR UPDATE OR DELETE ON govbudget.member_ai_overrides
  FOR EACH ROW EXECUTE FUNCTION govbudget.record_override_change();

CREATE FUNCTION govbudget.record_override_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO govbudget.audit_log (organization_id, object_type, object_id, before, after, receipt)
  SELECT o.organization_id, 'member_ai_override', o.user_id::text, jsonb_build_object('group_id', o.group_id, 'spend_limit_micros', o.spend_limit_micros), NULL, jsonb_build_object('actor', NULL, 'cause', 'direct')
  FROM govbudget.member_ai_overrides o;
  RETURN NULL;
END $$;

CREATE TRIGGER member_ai_overrides_audit_truncate BEFORE TRUNCATE ON govbudget.member_ai_overrides
  FOR EACH STATEMENT EXECUTE FUNCTION govbudget.record_override_truncate();

UPDATE govbudget.alembic_version SET version_num='0003' WHERE govbudget.alembic_version.version_num = '0002';

-- Running upgrade 0003 -> 0004

DROP INDEX govbudget.ai_usage_unpriced_idx;

CREATE INDEX ai_usage_unpriced_idx ON govbudget.ai_usage (provider, model) WHERE input_tokens > 0 AND input_price IS NULL OR output_tokens > 0 AND output_price IS NULL OR cache_read_tokens > 0 AND cache_read_price IS NULL OR cache_write_tokens > 0 AND cache_write_price IS NULL;

UPDATE govbudget.alembic_version SET version_num='0004' WHERE govbudget.alembic_version.version_num = '0003';

COMMIT;

