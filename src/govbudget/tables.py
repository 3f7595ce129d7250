"""The tables, as SQLAlchemy Core sees them; what a host may choose about them is in `Layout`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from govbudget.errors import SettingsError
from govbudget.ids import IdType

MAX_LIMIT_MICROS = 10**12
MAX_PRICE = 10**12

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
OWN_GROUPS = "own"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a host chooses: the type of ids, the schema's name, the groups that budgets belong to.

    `groups` is `own` (govbudget's own directory tables are made), `schema.table.column` of the
    host's groups table (the budget's foreign key points there, so that a deleted group takes its
    budget along), or `none` (no foreign key; delete budgets with their groups yourself).
    """

    id_type: IdType = IdType.UUID
    schema: str = "govbudget"
    groups: str = OWN_GROUPS

    def __post_init__(self) -> None:
        """Refuse (SettingsError) names that are not plain lower-case identifiers."""
        if not _IDENTIFIER.fullmatch(self.schema):
            raise SettingsError(
                f"GOVBUDGET_SCHEMA is `{self.schema}`; use lower-case letters, digits and `_`"
            )
        if self.groups not in {OWN_GROUPS, "none"}:
            parts = self.groups.split(".")
            if len(parts) != len(("schema", "table", "column")) or not all(parts):
                raise SettingsError(
                    f"GOVBUDGET_GROUPS is `{self.groups}`; write `own`, `none`, or the "
                    "`schema.table.column` of your groups' ids"
                )

    @property
    def owns_directory(self) -> bool:
        """Whether organizations, users, groups, roles and tokens are govbudget's own tables."""
        return self.groups == OWN_GROUPS

    @property
    def groups_key(self) -> str | None:
        """The `schema.table.column` that the budget's foreign key points at, or None."""
        if self.owns_directory:
            return f"{self.schema}.groups.id"
        return None if self.groups == "none" else self.groups

    @property
    def id_sql_type(self) -> sa.types.TypeEngine[Any]:
        """The SQL type of ids."""
        types: dict[IdType, sa.types.TypeEngine[Any]] = {
            IdType.UUID: sa.Uuid(),
            IdType.BIGINT: sa.BigInteger(),
            IdType.TEXT: sa.Text(),
        }
        return types[self.id_type]


def _timestamp(name: str, *, nullable: bool = False, default: bool = True) -> sa.Column[Any]:
    now = sa.func.now() if default else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=now)


class Tables:
    """The tables of one layout, in a MetaData of their own."""

    def __init__(self, layout: Layout) -> None:
        """Describe the tables; sends no SQL."""
        self.layout = layout
        self.metadata = sa.MetaData(
            schema=layout.schema,
            naming_convention={
                "pk": "%(table_name)s_pkey",
                "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
                "ck": "%(table_name)s_%(constraint_name)s_check",
                "uq": "%(table_name)s_%(column_0_N_name)s_key",
                "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            },
        )
        if layout.owns_directory:
            self._describe_directory()
        self._describe_budgets()
        self._describe_prices()

    def _id(self, name: str, **options: Any) -> sa.Column[Any]:  # noqa: ANN401 - SQLAlchemy's own
        return sa.Column(name, self.layout.id_sql_type, **options)

    def _describe_directory(self) -> None:
        self.organizations = sa.Table(
            "organizations",
            self.metadata,
            self._id("id", primary_key=True, autoincrement=False),
            sa.Column("name", sa.Text, nullable=False),
            sa.Column("is_default", sa.Boolean, nullable=False, server_default=sa.false()),
            sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.false()),
        )
        self.users = sa.Table(
            "users",
            self.metadata,
            self._id("id", primary_key=True, autoincrement=False),
            sa.Column("name", sa.Text, nullable=False),
        )
        self.groups = sa.Table(
            "groups",
            self.metadata,
            self._id("id", primary_key=True, autoincrement=False),
            self._id("organization_id", nullable=False),
            sa.Column("name", sa.Text, nullable=False),
            sa.ForeignKeyConstraint(
                ["organization_id"], [f"{self.layout.schema}.organizations.id"], ondelete="CASCADE"
            ),
            # The order in which a page of an organization's budgets is read.
            sa.UniqueConstraint("organization_id", "id"),
        )
        self.organization_members = sa.Table(
            "organization_members",
            self.metadata,
            self._id("organization_id", primary_key=True, autoincrement=False),
            self._id("user_id", primary_key=True, autoincrement=False),
            _timestamp("joined_at"),
            sa.ForeignKeyConstraint(
                ["organization_id"], [f"{self.layout.schema}.organizations.id"], ondelete="CASCADE"
            ),
            sa.ForeignKeyConstraint(
                ["user_id"], [f"{self.layout.schema}.users.id"], ondelete="CASCADE"
            ),
            sa.Index(None, "user_id"),
        )
        # A group's member is a member of its organization: the two keys see to it.
        self.group_members = sa.Table(
            "group_members",
            self.metadata,
            self._id("group_id", primary_key=True, autoincrement=False),
            self._id("user_id", primary_key=True, autoincrement=False),
            self._id("organization_id", nullable=False),
            sa.ForeignKeyConstraint(
                ["organization_id", "group_id"],
                [
                    f"{self.layout.schema}.groups.organization_id",
                    f"{self.layout.schema}.groups.id",
                ],
                ondelete="CASCADE",
            ),
            sa.ForeignKeyConstraint(
                ["organization_id", "user_id"],
                [
                    f"{self.layout.schema}.organization_members.organization_id",
                    f"{self.layout.schema}.organization_members.user_id",
                ],
                ondelete="CASCADE",
            ),
            sa.Index(None, "user_id", "organization_id"),
        )
        self.role_assignments = sa.Table(
            "role_assignments",
            self.metadata,
            sa.Column("id", sa.Uuid, primary_key=True),
            self._id("user_id", nullable=False),
            sa.Column("role", sa.Text, nullable=False),
            # NULL: the role is held on the site.
            self._id("organization_id", nullable=True),
            sa.ForeignKeyConstraint(
                ["user_id"], [f"{self.layout.schema}.users.id"], ondelete="CASCADE"
            ),
            sa.ForeignKeyConstraint(
                ["organization_id"], [f"{self.layout.schema}.organizations.id"], ondelete="CASCADE"
            ),
        )
        sa.Index(
            "role_assignments_site_key",
            self.role_assignments.c.user_id,
            self.role_assignments.c.role,
            unique=True,
            postgresql_where=self.role_assignments.c.organization_id.is_(None),
        )
        sa.Index(
            "role_assignments_organization_key",
            self.role_assignments.c.user_id,
            self.role_assignments.c.organization_id,
            self.role_assignments.c.role,
            unique=True,
            postgresql_where=self.role_assignments.c.organization_id.is_not(None),
        )
        self.api_tokens = sa.Table(
            "api_tokens",
            self.metadata,
            sa.Column("id", sa.Uuid, primary_key=True),
            sa.Column("secret_sha256", pg.BYTEA, nullable=False, unique=True),
            self._id("user_id", nullable=False),
            _timestamp("created_at"),
            _timestamp("expires_at", default=False),
            _timestamp("revoked_at", nullable=True, default=False),
            sa.ForeignKeyConstraint(
                ["user_id"], [f"{self.layout.schema}.users.id"], ondelete="CASCADE"
            ),
        )

    def _describe_budgets(self) -> None:
        group_key = self.layout.groups_key
        self.group_ai_budgets = sa.Table(
            "group_ai_budgets",
            self.metadata,
            self._id("group_id", primary_key=True, autoincrement=False),
            sa.Column("spend_limit_micros", sa.BigInteger, nullable=False),
            # A fresh one with every change: the ETag, which no delete and re-create brings back.
            sa.Column("revision", sa.Uuid, nullable=False),
            _timestamp("created_at"),
            _timestamp("updated_at"),
            sa.CheckConstraint(
                f"spend_limit_micros BETWEEN 0 AND {MAX_LIMIT_MICROS}", name="limit"
            ),
        )
        if group_key is not None:
            schema, table, column = group_key.split(".")
            if not self.layout.owns_directory:
                # Enough of the host's table for the foreign key; migrations never touch it.
                sa.Table(table, self.metadata, self._id(column), schema=schema, info={"host": True})
            self.group_ai_budgets.append_constraint(
                sa.ForeignKeyConstraint(["group_id"], [group_key], ondelete="CASCADE")
            )

    def _describe_prices(self) -> None:
        prices = ("input_price", "output_price", "cache_read_price", "cache_write_price")
        self.ai_model_prices = sa.Table(
            "ai_model_prices",
            self.metadata,
            sa.Column("provider", sa.Text, primary_key=True),
            sa.Column("model", sa.Text, primary_key=True),
            # Micros per one million tokens; NULL: not known.
            *(sa.Column(price, sa.BigInteger) for price in prices),
            _timestamp("created_at"),
            _timestamp("updated_at"),
            *(
                sa.CheckConstraint(f"{price} BETWEEN 0 AND {MAX_PRICE}", name=price)
                for price in prices
            ),
        )
