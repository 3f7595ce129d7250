"""The directory, budgets and prices."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")


def _timestamp(name: str, *, nullable: bool = False, default: bool = True) -> sa.Column[Any]:
    now = sa.text("now()") if default else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=now)


def upgrade() -> None:
    """Make the tables; the directory's own ones only where the layout asks for them."""
    layout = context.config.attributes["layout"]
    if layout.owns_directory:
        _create_directory(layout.schema, layout.id_sql_type)
    foreign_keys = []
    if layout.groups_key is not None:
        foreign_keys.append(
            sa.ForeignKeyConstraint(
                ["group_id"],
                [layout.groups_key],
                name="group_ai_budgets_group_id_fkey",
                ondelete="CASCADE",
            )
        )
    op.create_table(
        "group_ai_budgets",
        sa.Column("group_id", layout.id_sql_type, autoincrement=False, nullable=False),
        sa.Column("spend_limit_micros", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Uuid(), nullable=False),
        _timestamp("created_at"),
        _timestamp("updated_at"),
        sa.PrimaryKeyConstraint("group_id", name="group_ai_budgets_pkey"),
        sa.CheckConstraint(
            "spend_limit_micros BETWEEN 0 AND 1000000000000", name="group_ai_budgets_limit_check"
        ),
        *foreign_keys,
        schema=layout.schema,
    )
    op.create_table(
        "ai_model_prices",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        *(sa.Column(price, sa.BigInteger(), nullable=True) for price in PRICES),
        _timestamp("created_at"),
        _timestamp("updated_at"),
        sa.PrimaryKeyConstraint("provider", "model", name="ai_model_prices_pkey"),
        *(
            sa.CheckConstraint(
                f"{price} BETWEEN 0 AND 1000000000000", name=f"ai_model_prices_{price}_check"
            )
            for price in PRICES
        ),
        schema=layout.schema,
    )


def _create_directory(schema: str, id_type: sa.types.TypeEngine[Any]) -> None:
    def id_column(name: str, *, nullable: bool = False) -> sa.Column[Any]:
        return sa.Column(name, id_type, autoincrement=False, nullable=nullable)

    def reference(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
        return sa.ForeignKeyConstraint(
            [column],
            [f"{schema}.{target}.id"],
            name=f"{table}_{column}_fkey",
            ondelete="CASCADE",
        )

    op.create_table(
        "organizations",
        id_column("id"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_default", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("deleted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="organizations_pkey"),
        schema=schema,
    )
    op.create_table(
        "users",
        id_column("id"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="users_pkey"),
        schema=schema,
    )
    op.create_table(
        "groups",
        id_column("id"),
        id_column("organization_id"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="groups_pkey"),
        reference("groups", "organization_id", "organizations"),
        sa.UniqueConstraint("organization_id", "id", name="groups_organization_id_id_key"),
        schema=schema,
    )
    op.create_table(
        "organization_members",
        id_column("organization_id"),
        id_column("user_id"),
        _timestamp("joined_at"),
        sa.PrimaryKeyConstraint("organization_id", "user_id", name="organization_members_pkey"),
        reference("organization_members", "organization_id", "organizations"),
        reference("organization_members", "user_id", "users"),
        schema=schema,
    )
    op.create_index(
        "organization_members_user_id_idx", "organization_members", ["user_id"], schema=schema
    )
    op.create_table(
        "group_members",
        id_column("group_id"),
        id_column("user_id"),
        id_column("organization_id"),
        sa.PrimaryKeyConstraint("group_id", "user_id", name="group_members_pkey"),
        sa.ForeignKeyConstraint(
            ["organization_id", "group_id"],
            [f"{schema}.groups.organization_id", f"{schema}.groups.id"],
            name="group_members_organization_id_group_id_fkey",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "user_id"],
            [
                f"{schema}.organization_members.organization_id",
                f"{schema}.organization_members.user_id",
            ],
            name="group_members_organization_id_user_id_fkey",
            ondelete="CASCADE",
        ),
        schema=schema,
    )
    op.create_index(
        "group_members_user_id_organization_id_idx",
        "group_members",
        ["user_id", "organization_id"],
        schema=schema,
    )
    op.create_table(
        "role_assignments",
        sa.Column("id", sa.Uuid(), nullable=False),
        id_column("user_id"),
        sa.Column("role", sa.Text(), nullable=False),
        id_column("organization_id", nullable=True),
        sa.PrimaryKeyConstraint("id", name="role_assignments_pkey"),
        reference("role_assignments", "user_id", "users"),
        reference("role_assignments", "organization_id", "organizations"),
        schema=schema,
    )
    op.create_index(
        "role_assignments_site_key",
        "role_assignments",
        ["user_id", "role"],
        unique=True,
        schema=schema,
        postgresql_where=sa.text("organization_id IS NULL"),
    )
    op.create_index(
        "role_assignments_organization_key",
        "role_assignments",
        ["user_id", "organization_id", "role"],
        unique=True,
        schema=schema,
        postgresql_where=sa.text("organization_id IS NOT NULL"),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        id_column("user_id"),
        _timestamp("created_at"),
        _timestamp("expires_at", default=False),
        _timestamp("revoked_at", nullable=True, default=False),
        sa.PrimaryKeyConstraint("id", name="api_tokens_pkey"),
        sa.UniqueConstraint("secret_sha256", name="api_tokens_secret_sha256_key"),
        reference("api_tokens", "user_id", "users"),
        schema=schema,
    )


def downgrade() -> None:
    """Drop the tables, and with them their rows."""
    layout = context.config.attributes["layout"]
    tables = ["ai_model_prices", "group_ai_budgets"]
    if layout.owns_directory:
        tables += [
            "api_tokens",
            "role_assignments",
            "group_members",
            "organization_members",
            "groups",
            "users",
            "organizations",
        ]
    for table in tables:
        op.drop_table(table, schema=layout.schema)
