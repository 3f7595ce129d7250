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


def _timestamp(name: str) -> sa.Column[Any]:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")
    )


def _reference(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = f"{table}_{column}_fkey"
    return sa.ForeignKeyConstraint([column], [target], name=name, ondelete="CASCADE")


def upgrade() -> None:
    """Make the tables; the directory's own ones only where the layout asks for them."""
    layout = context.config.attributes["layout"]
    if layout.owns_directory:
        _create_directory(layout.schema, layout.id_sql_type)
    belongs_to = (
        [_reference("group_ai_budgets", "group_id", layout.groups_key)] if layout.groups_key else []
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
            "spend_limit_micros BETWEEN 0 AND 1000000000000",
            name=op.f("group_ai_budgets_limit_check"),
        ),
        *belongs_to,
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
                f"{price} BETWEEN 0 AND 1000000000000", name=op.f(f"ai_model_prices_{price}_check")
            )
            for price in PRICES
        ),
        schema=layout.schema,
    )


def _create_directory(schema: str, id_type: sa.types.TypeEngine[Any]) -> None:
    def id_column(name: str, *, nullable: bool = False) -> sa.Column[Any]:
        return sa.Column(name, id_type, autoincrement=False, nullable=nullable)

    def create(table: str, key: tuple[str, ...], *items: sa.schema.SchemaItem) -> None:
        primary = sa.PrimaryKeyConstraint(*key, name=f"{table}_pkey")
        op.create_table(table, *items, primary, schema=schema)

    def refers(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
        return _reference(table, column, f"{schema}.{target}.id")

    def name() -> sa.Column[Any]:
        return sa.Column("name", sa.Text(), nullable=False)

    def flag(column: str) -> sa.Column[Any]:
        return sa.Column(column, sa.Boolean(), server_default=sa.false(), nullable=False)

    create("organizations", ("id",), id_column("id"), name(), flag("is_default"), flag("deleted"))
    create("users", ("id",), id_column("id"), name())
    create(
        "groups",
        ("id",),
        id_column("id"),
        id_column("organization_id"),
        name(),
        refers("groups", "organization_id", "organizations"),
        sa.UniqueConstraint("organization_id", "id", name="groups_organization_id_id_key"),
    )
    create(
        "organization_members",
        ("organization_id", "user_id"),
        id_column("organization_id"),
        id_column("user_id"),
        _timestamp("joined_at"),
        refers("organization_members", "organization_id", "organizations"),
        refers("organization_members", "user_id", "users"),
    )
    create(
        "group_members",
        ("group_id", "user_id"),
        id_column("group_id"),
        id_column("user_id"),
        id_column("organization_id"),
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
    )
    create(
        "role_assignments",
        ("id",),
        sa.Column("id", sa.Uuid(), nullable=False),
        id_column("user_id"),
        sa.Column("role", sa.Text(), nullable=False),
        id_column("organization_id", nullable=True),
        refers("role_assignments", "user_id", "users"),
        refers("role_assignments", "organization_id", "organizations"),
    )
    create(
        "api_tokens",
        ("id",),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        id_column("user_id"),
        _timestamp("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.UniqueConstraint("secret_sha256", name="api_tokens_secret_sha256_key"),
        refers("api_tokens", "user_id", "users"),
    )
    for table, columns in (
        ("organization_members", ["user_id"]),
        ("group_members", ["user_id", "organization_id"]),
    ):
        op.create_index(f"{table}_{'_'.join(columns)}_idx", table, columns, schema=schema)
    for index, columns, condition in (
        ("site", ["user_id", "role"], "organization_id IS NULL"),
        ("organization", ["user_id", "organization_id", "role"], "organization_id IS NOT NULL"),
    ):
        op.create_index(
            f"role_assignments_{index}_key",
            "role_assignments",
            columns,
            unique=True,
            schema=schema,
            postgresql_where=sa.text(condition),
        )


def downgrade() -> None:
    """Drop the tables, and with them their rows."""
    layout = context.config.attributes["layout"]
    own = (
        "api_tokens role_assignments group_members organization_members groups users organizations"
    )
    directory = own.split() if layout.owns_directory else []
    for table in ("ai_model_prices", "group_ai_budgets", *directory):
        op.drop_table(table, schema=layout.schema)
