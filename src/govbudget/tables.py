"""The tables, as SQLAlchemy Core sees them; what a host may choose about them is in `Layout`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from govbudget.errors import SettingsError
from govbudget.ids import IdType

MAX_LIMIT_MICROS = 10**12
MAX_PRICE = 10**12
# Micros per one million tokens; NULL: not known.
PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
# What a caller of the API calls them.
UNITS = ("input", "output", "cache_read", "cache_write")
MAX_TOKENS = 10**12
MAX_COST_PICOS = 10**18
PICOS = sa.Numeric(38, 0)

DIRECTORY = (
    *("organizations", "users", "groups", "organization_members", "group_members"),
    *("role_assignments", "api_tokens"),
)
OTHERS = (
    *("group_ai_budgets", "ai_model_prices", "audit_log", "member_ai_overrides"),
    *("ai_holds", "ai_usage", "ai_spend_counters", "ai_spend_rollups"),
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How a time is read: as microseconds since then. The text of a time depends on the DateStyle and
# the time zone of the session, which may be a host's.
IN_MICROSECONDS = "CAST(extract(epoch FROM {}) * 1000000 AS bigint)"

# What a receipt must say: who (null: nobody whom govbudget knows) and why. What more it says is a
# text, or a list of texts, or null. (Of what is missing this is NULL, which a check lets pass.)
IS_TEXT = "jsonb_typeof(receipt -> '{}') IN ('string', 'null')"
IS_LIST = (
    "(jsonb_typeof(receipt -> '{0}') = 'null' OR jsonb_typeof(receipt -> '{0}') = 'array'"
    """ AND NOT jsonb_path_exists(receipt, '$.{0}[*] ? (@.type() <> "string")'))"""
)
COMPLETE_RECEIPT = " AND ".join(
    (
        "coalesce(jsonb_typeof(receipt -> 'cause') = 'string', false)",
        f"coalesce({IS_TEXT.format('actor')}, false)",
        *map(IS_TEXT.format, ("policy_digest", "request_id")),
        *map(IS_LIST.format, ("roles", "lines")),
    )
)

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
        if self.schema == "public" or self.schema.startswith("pg_"):
            raise SettingsError(
                f"GOVBUDGET_SCHEMA is `{self.schema}`, which is not govbudget's alone; name another"
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


class Time(sa.TypeDecorator[datetime]):
    """A time with its zone, which is read in UTC, whatever the settings of the session are."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def column_expression(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Select the time in microseconds."""
        micros = sa.extract("epoch", column) * sa.literal_column("1000000")
        return sa.type_coerce(sa.cast(micros, sa.BigInteger), self)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:  # noqa: ANN401 - as overridden
        """Take what a plain time is added to or compared with for what it is."""
        return self.impl_instance.coerce_compared_value(op, value)

    def process_result_value(self, value: Any, dialect: object) -> datetime | None:  # noqa: ANN401, ARG002 - as overridden
        """Make a time of the microseconds that were selected."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


class Tables:
    """The tables of one layout, in a MetaData of their own; sends no SQL.

    Each is described when it is first asked for; `metadata` has them all.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._metadata = sa.MetaData(
            schema=layout.schema,
            naming_convention={
                "pk": "%(table_name)s_pkey",
                "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
                "ck": "%(table_name)s_%(constraint_name)s_check",
                "uq": "%(table_name)s_%(column_0_N_name)s_key",
                "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            },
        )

    @property
    def metadata(self) -> sa.MetaData:
        """All tables of the layout, and enough of the host's groups for the foreign key."""
        for name in (*(DIRECTORY if self.layout.owns_directory else ()), *OTHERS):
            getattr(self, name)
        return self._metadata

    @cached_property
    def organizations(self) -> sa.Table:
        """Organizations; one that counts as deleted has no groups."""
        return self._table(
            "organizations",
            self._id("id", key=True),
            sa.Column("name", sa.Text, nullable=False),
            sa.Column("is_default", sa.Boolean, nullable=False, server_default=sa.false()),
            sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.false()),
        )

    @cached_property
    def users(self) -> sa.Table:
        """People, and services."""
        return self._table(
            "users", self._id("id", key=True), sa.Column("name", sa.Text, nullable=False)
        )

    @cached_property
    def groups(self) -> sa.Table:
        """Groups; an organization's Everyone group has its id."""
        own = self._own
        return self._table(
            "groups",
            self._id("id", key=True),
            _required(self._id("organization_id", own("organizations.id"))),
            sa.Column("name", sa.Text, nullable=False),
            # The order in which a page of an organization's budgets is read.
            sa.UniqueConstraint("organization_id", "id"),
        )

    @cached_property
    def organization_members(self) -> sa.Table:
        """Who is in which organization."""
        own = self._own
        return self._table(
            "organization_members",
            self._id("organization_id", own("organizations.id"), key=True),
            self._id("user_id", own("users.id"), key=True),
            _timestamp("joined_at"),
            sa.Index(None, "user_id"),
        )

    @cached_property
    def group_members(self) -> sa.Table:
        """Who is in which group; the two keys see to it that they are in its organization."""
        own = self._own
        return self._table(
            "group_members",
            self._id("group_id", key=True),
            self._id("user_id", key=True),
            _required(self._id("organization_id")),
            sa.ForeignKeyConstraint(
                ["organization_id", "group_id"],
                [own("groups.organization_id"), own("groups.id")],
                ondelete="CASCADE",
            ),
            sa.ForeignKeyConstraint(
                ["organization_id", "user_id"],
                [own("organization_members.organization_id"), own("organization_members.user_id")],
                ondelete="CASCADE",
            ),
            sa.Index(None, "user_id", "organization_id"),
            # What an override's key refers to.
            sa.UniqueConstraint("organization_id", "group_id", "user_id"),
        )

    @cached_property
    def role_assignments(self) -> sa.Table:
        """Who holds which role, in an organization or (NULL) on the site."""
        own = self._own
        return self._table(
            "role_assignments",
            sa.Column("id", sa.Uuid, primary_key=True),
            _required(self._id("user_id", own("users.id"))),
            sa.Column("role", sa.Text, nullable=False),
            self._id("organization_id", own("organizations.id")),
            sa.Index(
                "role_assignments_site_key",
                "user_id",
                "role",
                unique=True,
                postgresql_where=sa.text("organization_id IS NULL"),
            ),
            sa.Index(
                "role_assignments_organization_key",
                "user_id",
                "organization_id",
                "role",
                unique=True,
                postgresql_where=sa.text("organization_id IS NOT NULL"),
            ),
        )

    @cached_property
    def api_tokens(self) -> sa.Table:
        """Bearer tokens of the stand-alone server, by their hash."""
        own = self._own
        return self._table(
            "api_tokens",
            sa.Column("id", sa.Uuid, primary_key=True),
            sa.Column("secret_sha256", sa.LargeBinary, nullable=False, unique=True),
            _required(self._id("user_id", own("users.id"))),
            _timestamp("created_at"),
            sa.Column("expires_at", Time, nullable=False),
            sa.Column("revoked_at", Time),
        )

    @cached_property
    def group_ai_budgets(self) -> sa.Table:
        """What each member of a group may spend in a month."""
        group_key = self._find_groups_key()
        return self._table(
            "group_ai_budgets",
            self._id("group_id", group_key, key=True),
            sa.Column("spend_limit_micros", sa.BigInteger, nullable=False),
            # A fresh one with every change: the ETag, which no delete and re-create brings back.
            sa.Column("revision", sa.Uuid, nullable=False),
            _timestamp("created_at"),
            _timestamp("updated_at"),
            sa.Column("receipt", pg.JSONB),
            sa.CheckConstraint(
                f"spend_limit_micros BETWEEN 0 AND {MAX_LIMIT_MICROS}", name="limit"
            ),
        )

    @cached_property
    def ai_model_prices(self) -> sa.Table:
        """Prices, in micros per one million tokens, of two sources."""
        return self._table(
            "ai_model_prices",
            sa.Column("provider", sa.Text, primary_key=True),
            sa.Column("model", sa.Text, primary_key=True),
            # Of two prices of one model, the custom one is in force.
            sa.Column("source", sa.Text, primary_key=True, server_default="book"),
            *(sa.Column(price, sa.BigInteger) for price in PRICES),
            _timestamp("created_at"),
            _timestamp("updated_at"),
            sa.Column("receipt", pg.JSONB),
            *(
                sa.CheckConstraint(f"{price} BETWEEN 0 AND {MAX_PRICE}", name=price)
                for price in PRICES
            ),
            sa.CheckConstraint("source IN ('book', 'custom')", name="source"),
        )

    @cached_property
    def audit_log(self) -> sa.Table:
        """Who changed what; append-only."""
        return self._table(
            "audit_log",
            sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.func.gen_random_uuid()),
            _timestamp("at", sa.func.clock_timestamp()),
            self._id("organization_id"),  # NULL: of the site
            sa.Column("object_type", sa.Text, nullable=False),
            sa.Column("object_id", sa.Text, nullable=False),
            sa.Column("before", pg.JSONB(none_as_null=True)),
            sa.Column("after", pg.JSONB(none_as_null=True)),
            sa.Column("receipt", pg.JSONB, nullable=False),
            sa.CheckConstraint(COMPLETE_RECEIPT, name="receipt"),
            # Which budget an authorized delete took away; see the trigger.
            sa.Column("deleted_revision", sa.Uuid),
            sa.Index(None, "organization_id", "at", "id"),
            sa.Index(
                None, "deleted_revision", postgresql_where=sa.text("deleted_revision IS NOT NULL")
            ),
        )

    @cached_property
    def member_ai_overrides(self) -> sa.Table:
        """A member's own limit in an organization."""
        keys: list[sa.schema.SchemaItem] = []
        group_key = self._find_groups_key()
        if self.layout.owns_directory:
            own = self._own
            keys = [
                # The group that must list the user; of Everyone, the organization's key does.
                sa.Column(
                    "listing_group_id",
                    self.layout.id_sql_type,
                    sa.Computed("NULLIF(group_id, organization_id)", persisted=True),
                ),
                sa.ForeignKeyConstraint(
                    ["organization_id", "listing_group_id", "user_id"],
                    [
                        own("group_members.organization_id"),
                        own("group_members.group_id"),
                        own("group_members.user_id"),
                    ],
                    name="member_ai_overrides_listing_group_id_fkey",
                    ondelete="CASCADE",
                ),
                sa.ForeignKeyConstraint(
                    ["organization_id", "user_id"],
                    [
                        own("organization_members.organization_id"),
                        own("organization_members.user_id"),
                    ],
                    ondelete="CASCADE",
                ),
            ]
            group_key = None
        return self._table(
            "member_ai_overrides",
            self._id("organization_id", key=True),
            self._id("user_id", key=True),
            _required(self._id("group_id", group_key)),
            sa.Column("spend_limit_micros", sa.BigInteger, nullable=False),
            sa.Column("revision", sa.Uuid, nullable=False),
            _timestamp("created_at"),
            _timestamp("updated_at"),
            sa.Column("receipt", pg.JSONB),
            *keys,
            sa.CheckConstraint(
                f"spend_limit_micros BETWEEN 0 AND {MAX_LIMIT_MICROS}", name="limit"
            ),
        )

    @cached_property
    def ai_holds(self) -> sa.Table:
        """Money that is, or was, set aside for a call."""
        return self._table(
            "ai_holds",
            sa.Column("id", sa.Uuid, primary_key=True),
            *self._place(),
            self._id("group_id"),  # NULL: attributed to the organization alone
            sa.Column("period", sa.Date, nullable=False),
            *_describe_priced(),
            *_describe_cost(),
            sa.Column("is_open", sa.Boolean, nullable=False),
            _timestamp("created_at"),
            sa.Column("expires_at", Time, nullable=False),
            sa.Index(
                "ai_holds_open_idx",
                "organization_id",
                "user_id",
                "period",
                postgresql_where=sa.text("is_open"),
            ),
        )

    @cached_property
    def ai_usage(self) -> sa.Table:
        """The ledger. No foreign keys: it keeps what was spent by whoever has left since."""
        return self._table(
            "ai_usage",
            self._id("organization_id", key=True),
            sa.Column("event_id", sa.Text, primary_key=True),
            _required(self._id("user_id")),
            self._id("group_id"),
            sa.Column("hold_id", sa.Uuid, unique=True),
            sa.Column("period", sa.Date, nullable=False),
            sa.Column("day", sa.Date, nullable=False),
            *_describe_priced(),
            *(sa.Column(count, sa.BigInteger, nullable=False) for count in TOKENS),
            *_describe_cost(),
            sa.Column("occurred_at", Time),  # NULL: not told
            _timestamp("recorded_at"),
            *(
                sa.CheckConstraint(f"{count} BETWEEN 0 AND {MAX_TOKENS}", name=count)
                for count in TOKENS
            ),
            sa.Index(
                "ai_usage_unpriced_idx",
                "provider",
                "model",
                postgresql_where=sa.text("unpriced IS NOT NULL"),
            ),
            sa.CheckConstraint(f"cost_picos BETWEEN 0 AND {MAX_COST_PICOS}", name="cost"),
        )

    @cached_property
    def ai_spend_counters(self) -> sa.Table:
        """What admission reads and locks: one row a member and period."""
        return self._table(
            "ai_spend_counters",
            self._id("organization_id", key=True),
            self._id("user_id", key=True),
            sa.Column("period", sa.Date, primary_key=True),
            sa.Column("spent_picos", PICOS, nullable=False),
            sa.Column("held_picos", PICOS, nullable=False),
            sa.Column("last_hold_id", sa.Uuid),
        )

    @cached_property
    def ai_spend_rollups(self) -> sa.Table:
        """What reports read: sums by day and by month."""
        return self._table(
            "ai_spend_rollups",
            _required(self._id("organization_id")),
            sa.Column("grain", sa.Text, nullable=False),
            sa.Column("starts_on", sa.Date, nullable=False),
            self._id("group_id"),
            _required(self._id("user_id")),
            sa.Column("cost_picos", PICOS, nullable=False),
            sa.Column("calls", sa.BigInteger, nullable=False),
            sa.Column("unpriced_calls", sa.BigInteger, nullable=False),
            sa.UniqueConstraint(
                "organization_id",
                "grain",
                "starts_on",
                "group_id",
                "user_id",
                name="ai_spend_rollups_key",
                postgresql_nulls_not_distinct=True,
            ),
            sa.CheckConstraint("grain IN ('day', 'month')", name="grain"),
        )

    def _table(self, name: str, *items: sa.schema.SchemaItem) -> sa.Table:
        return sa.Table(name, self._metadata, *items)

    def _own(self, column: str) -> str:
        """Name a column of govbudget's own directory, which other layouts lack."""
        return f"{self.layout.schema}.{column}"

    def _find_groups_key(self) -> str | None:
        """Give the column that groups are referred to by; describe as much of a host's table."""
        key = self.layout.groups_key
        if key is not None and not self.layout.owns_directory:
            schema, table, column = key.split(".")
            if f"{schema}.{table}" not in self._metadata.tables:
                sa.Table(table, self._metadata, self._id(column), schema=schema)
        return key

    def _id(self, name: str, refers_to: str | None = None, *, key: bool = False) -> sa.Column[Any]:
        """Describe a column of the id type; what it refers to takes its row along when it goes."""
        items = [sa.ForeignKey(refers_to, ondelete="CASCADE")] if refers_to else []
        return sa.Column(
            name, self.layout.id_sql_type, *items, primary_key=key, autoincrement=False
        )

    def _place(self) -> tuple[sa.Column[Any], ...]:
        return _required(self._id("organization_id")), _required(self._id("user_id"))


def _describe_priced() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        *(sa.Column(price, sa.BigInteger) for price in PRICES),
    )


def _describe_cost() -> tuple[sa.Column[Any], ...]:
    return (
        # What is known of it; NULL: nothing.
        sa.Column("cost_picos", sa.BigInteger),
        # The units that were asked for or used without a price; NULL: all had one.
        sa.Column("unpriced", pg.ARRAY(sa.Text)),
    )


def _required(column: sa.Column[Any]) -> sa.Column[Any]:
    column.nullable = False
    return column


def _timestamp(name: str, now: Any = None) -> sa.Column[Any]:  # noqa: ANN401 - a SQL function
    return sa.Column(
        name,
        Time,
        nullable=False,
        server_default=sa.func.now() if now is None else now,
    )
