"""Usage that lacks a price is found by its tokens; an override is of its organization's group."""

from __future__ import annotations

from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

LACKS_PRICE = " OR ".join(
    f"{name}_tokens > 0 AND {name}_price IS NULL"
    for name in ("input", "output", "cache_read", "cache_write")
)

# An override of another organization's group never bound anybody.
KEY = """
ALTER TABLE {s}.group_members ADD CONSTRAINT group_members_organization_id_group_id_user_id_key
  UNIQUE (organization_id, group_id, user_id);
DELETE FROM {s}.member_ai_overrides o WHERE listing_group_id IS NOT NULL AND NOT EXISTS (
  SELECT FROM {s}.group_members m
  WHERE m.organization_id = o.organization_id AND m.group_id = o.group_id AND m.user_id = o.user_id
);
ALTER TABLE {s}.member_ai_overrides
  DROP CONSTRAINT member_ai_overrides_listing_group_id_user_id_fkey,
  ADD CONSTRAINT member_ai_overrides_listing_group_id_fkey
    FOREIGN KEY (organization_id, listing_group_id, user_id)
    REFERENCES {s}.group_members (organization_id, group_id, user_id) ON DELETE CASCADE
"""
KEY_BEFORE = """
ALTER TABLE {s}.member_ai_overrides
  DROP CONSTRAINT member_ai_overrides_listing_group_id_fkey,
  ADD CONSTRAINT member_ai_overrides_listing_group_id_user_id_fkey
    FOREIGN KEY (listing_group_id, user_id)
    REFERENCES {s}.group_members (group_id, user_id) ON DELETE CASCADE;
ALTER TABLE {s}.group_members DROP CONSTRAINT group_members_organization_id_group_id_user_id_key
"""


def upgrade() -> None:
    """Index usage by the prices that it lacks, and tie an override to its organization's group."""
    _change(LACKS_PRICE, KEY)


def downgrade() -> None:
    """Take both back."""
    _change("cost_picos IS NULL", KEY_BEFORE)


def _change(unpriced: str, key: str) -> None:
    layout = context.config.attributes["layout"]
    schema = op.get_context().dialect.identifier_preparer.quote(layout.schema)
    op.execute(f"DROP INDEX {schema}.ai_usage_unpriced_idx")
    op.execute(
        f"CREATE INDEX ai_usage_unpriced_idx ON {schema}.ai_usage (provider, model)"
        f" WHERE {unpriced}"
    )
    if layout.owns_directory:
        op.execute(key.format(s=schema))
