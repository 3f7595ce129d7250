"""The tables, as SQLAlchemy Core sees them. They are the schema: `upgrade` makes what stands here.

The tables of a part stand in a module `tables` of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from importlib import import_module
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from govbudget.db import price_function
from govbudget.db.times import Time
from govbudget.db.triggers import Audited, name_table, quote
from govbudget.errors import SettingsError
from govbudget.ids import IdType
from govbudget.layout import NO_GROUPS, Layout
from govbudget.money import MAX_LIMIT_MICROS, MAX_PRICE, PRICES
from govbudget.parts import is_installed

OF_PARTS = ("spend.tables", "server.tables")

# What a receipt must say: who (null: nobody whom govbudget knows) and why. What more it says is a
# text, or a list of texts, or null. As one JSON path: a check is read anew by each statement.
IS_TEXT = '($.{0}.type() == "string" || $.{0}.type() == "null")'
IS_LIST = (
    '($.{0}.type() == "null" || $.{0}.type() == "array"'
    ' && !exists($.{0}[*] ? (@.type() != "string")))'
)
MAY_BE = "(!exists($.{0}) || {1})"
IS_COMPLETE = (
    *('$.type() == "object"', '$.cause.type() == "string"', IS_TEXT.format("actor")),
    *(MAY_BE.format(name, IS_TEXT.format(name)) for name in ("policy_digest", "request_id")),
    *(MAY_BE.format(name, IS_LIST.format(name)) for name in ("roles", "lines")),
)
COMPLETE_RECEIPT = f"coalesce(receipt @@ '{' && '.join(IS_COMPLETE)}', false)"
# What is there is an object, and its time one that Python has: no row makes a trail unreadable.
READABLE_ENTRY = (
    "coalesce(jsonb_typeof(before), 'object') = 'object'"
    " AND coalesce(jsonb_typeof(after), 'object') = 'object'"
    " AND at >= '0001-01-02 00:00:00+00' AND at < '9999-12-31 00:00:00+00'"
)

# Further prices and tiers: numbers alone, each within the bounds of a price (or of a threshold).
PRICES_ALONE = (
    '$.type() == "object" && !exists($.** ? (@.type() == "string" || @.type() == "boolean"'
    f" || @ < 0 || @ > {MAX_PRICE}))"
)

# What a server may do to a table beside reading it, where that is not the rule of `list_rights`.
ADD, ADD_AND_CHANGE = "SELECT, INSERT", "SELECT, INSERT, UPDATE"


def id_sql_type(layout: Layout) -> sa.types.TypeEngine[Any]:
    """Give the SQL type of ids."""
    types: dict[IdType, sa.types.TypeEngine[Any]] = {
        IdType.UUID: sa.Uuid(),
        IdType.BIGINT: sa.BigInteger(),
        IdType.TEXT: sa.Text(),
    }
    return types[layout.id_type]


class Tables:
    """The tables of one layout, in a MetaData of their own; sends no SQL.

    `tables.NAME` is the table of that name. Each is described when it is first asked for;
    `metadata` has them all, those of the installed parts included.
    """

    def __init__(self, layout: Layout, *, with_schema: bool = True) -> None:
        """Describe nothing yet; without the schema's name: as in the database's default schema."""
        self.layout = layout
        self.id_type = id_sql_type(layout)
        self._metadata = sa.MetaData(
            schema=layout.schema if with_schema else None,
            naming_convention={
                "pk": "%(table_name)s_pkey",
                "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
                "ck": "%(table_name)s_%(constraint_name)s_check",
                "uq": "%(table_name)s_%(column_0_N_name)s_key",
                "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            },
        )

    def __getattr__(self, name: str) -> sa.Table:
        """Describe the table of that name."""
        if name not in _find_descriptions():
            raise AttributeError(f"there is no table `{name}`")
        table = _find_descriptions()[name](self)
        setattr(self, name, table)
        return table

    @property
    def metadata(self) -> sa.MetaData:
        """All tables of the layout, and enough of the host's groups for the foreign key."""
        for module in find_modules():
            directory = module.OF_DIRECTORY if self.layout.owns_directory else ()
            for describe in (*directory, *module.OTHERS):
                getattr(self, describe.__name__)
        return self._metadata

    @cached_property
    def groups_column(self) -> sa.Column[Any] | None:
        """The column that groups are referred to by; None: there is no foreign key."""
        if self.layout.owns_directory:
            return self.groups.c.id
        if self.layout.groups == NO_GROUPS:
            return None
        schema, table, column = self.layout.groups.split(".")
        return sa.Table(table, self._metadata, self.id(column), schema=schema).c[column]

    def add(self, name: str, *items: sa.schema.SchemaItem, **options: Any) -> sa.Table:  # noqa: ANN401 - as SQLAlchemy's
        """Describe a table."""
        return sa.Table(name, self._metadata, *items, **options)

    def id(
        self, name: str, refers_to: sa.Column[Any] | None = None, *, key: bool = False
    ) -> sa.Column[Any]:
        """Describe a column of the id type; what it refers to takes its row along when it goes."""
        items = [] if refers_to is None else [sa.ForeignKey(refers_to, ondelete="CASCADE")]
        return sa.Column(name, self.id_type, *items, primary_key=key, autoincrement=False)

    @staticmethod
    def refer(to: Mapping[str, sa.Column[Any]], name: str | None = None) -> sa.ForeignKeyConstraint:
        """Let columns refer to a row of another table, which takes theirs along when it goes."""
        return sa.ForeignKeyConstraint(list(to), list(to.values()), name=name, ondelete="CASCADE")

    def find_group(self, shown: str) -> str | None:
        """Write the query that finds the group of a changed row; None: groups are not known."""
        column = self.groups_column
        if column is None:
            return None
        key = f"g.{quote(column.name)} = {{row}}.group_id"
        return f"SELECT {shown} FROM {name_table(column.table)} g WHERE {key}"  # noqa: S608 - our names


def require_own_tables(layout: Layout) -> Tables:
    """Give the tables; raise SettingsError where users and groups are not ours, with UUIDs."""
    if not layout.owns_directory or layout.id_type is not IdType.UUID:
        raise SettingsError(
            "this works on govbudget's own users and groups, whose ids are UUIDs; here "
            f"GOVBUDGET_GROUPS is `{layout.groups}` and GOVBUDGET_ID_TYPE is `{layout.id_type}`; "
            "look them up in the host's own tables, and ask about their spend and limits with "
            "`flask govbudget`"
        )
    return Tables(layout)


@cache
def find_modules() -> tuple[Any, ...]:
    """Find the modules that describe tables: this one, and one of each installed part."""
    installed = [f"govbudget.{module}" for module in OF_PARTS if is_installed(module)]
    return (sys.modules[__name__], *map(import_module, installed))


@cache
def _find_descriptions() -> Mapping[str, Callable[[Tables], sa.Table]]:
    return {
        describe.__name__: describe
        for module in find_modules()
        for describe in (*module.OF_DIRECTORY, *module.OTHERS)
    }


def required(column: sa.Column[Any]) -> sa.Column[Any]:
    """Let a column hold no NULL."""
    column.nullable = False
    return column


def timestamp(name: str, now: Any = None) -> sa.Column[Any]:  # noqa: ANN401 - a SQL function
    """Describe the column of a time, which is now where none is given."""
    default = sa.func.now() if now is None else now
    return sa.Column(name, Time, nullable=False, server_default=default)


def describe_limit() -> tuple[sa.schema.SchemaItem, ...]:
    """Describe a limit: its bounds, its revision and times, and the receipt of its last change."""
    return (
        sa.Column("spend_limit_micros", sa.BigInteger, nullable=False),
        # A fresh one with every change: the ETag, which no delete and re-create brings back.
        sa.Column("revision", sa.Uuid, nullable=False),
        timestamp("created_at"),
        timestamp("updated_at"),
        sa.Column("receipt", pg.JSONB),
        sa.CheckConstraint(f"spend_limit_micros BETWEEN 0 AND {MAX_LIMIT_MICROS}", name="limit"),
    )


def organizations(t: Tables) -> sa.Table:
    """Organizations; one that counts as deleted has no groups."""
    return t.add(
        "organizations",
        t.id("id", key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("is_default", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.false()),
    )


def users(t: Tables) -> sa.Table:
    """People, and services."""
    return t.add("users", t.id("id", key=True), sa.Column("name", sa.Text, nullable=False))


def groups(t: Tables) -> sa.Table:
    """Groups; an organization's Everyone group has its id."""
    return t.add(
        "groups",
        t.id("id", key=True),
        required(t.id("organization_id", t.organizations.c.id)),
        sa.Column("name", sa.Text, nullable=False),
        # The order in which a page of an organization's budgets is read.
        sa.UniqueConstraint("organization_id", "id"),
    )


def organization_members(t: Tables) -> sa.Table:
    """Who is in which organization."""
    return t.add(
        "organization_members",
        t.id("organization_id", t.organizations.c.id, key=True),
        t.id("user_id", t.users.c.id, key=True),
        timestamp("joined_at"),
        sa.Index(None, "user_id"),
    )


def group_members(t: Tables) -> sa.Table:
    """Who is in which group; the two keys see to it that they are in its organization."""
    of_group, members = t.groups.c, t.organization_members.c
    return t.add(
        "group_members",
        t.id("group_id", key=True),
        t.id("user_id", key=True),
        required(t.id("organization_id")),
        t.refer({"organization_id": of_group.organization_id, "group_id": of_group.id}),
        t.refer({"organization_id": members.organization_id, "user_id": members.user_id}),
        sa.Index(None, "user_id", "organization_id"),
        # What an override's key refers to.
        sa.UniqueConstraint("organization_id", "group_id", "user_id"),
    )


def role_assignments(t: Tables) -> sa.Table:
    """Who holds which role, in an organization or (NULL) on the site."""
    return t.add(
        "role_assignments",
        sa.Column("id", sa.Uuid, primary_key=True),
        required(t.id("user_id", t.users.c.id)),
        sa.Column("role", sa.Text, nullable=False),
        t.id("organization_id", t.organizations.c.id),
        *(
            sa.Index(
                f"role_assignments_{place}_key",
                *columns,
                unique=True,
                postgresql_where=sa.text(f"organization_id IS {condition}"),
            )
            for place, columns, condition in (
                ("site", ("user_id", "role"), "NULL"),
                ("organization", ("user_id", "organization_id", "role"), "NOT NULL"),
            )
        ),
    )


def group_ai_budgets(t: Tables) -> sa.Table:
    """What each member of a group may spend in a month."""
    find = t.find_group("g.organization_id" if t.layout.owns_directory else "NULL")
    return t.add(
        "group_ai_budgets",
        t.id("group_id", t.groups_column, key=True),
        *describe_limit(),
        info={"audit": Audited("group_ai_budget", ("group_id",), ("spend_limit_micros",), find)},
    )


def ai_model_prices(t: Tables) -> sa.Table:
    """Prices, in micros per one million tokens, of two sources; each row is all of its day's."""
    names, shown = ("provider", "model"), ("source", "effective_from", *PRICES, "more")
    return t.add(
        "ai_model_prices",
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        # Of two prices of one model, the custom one is in force.
        sa.Column("source", sa.Text, primary_key=True, server_default="book"),
        # The UTC day that it takes effect; the first day of all: it always was.
        sa.Column(
            "effective_from",
            sa.Date,
            primary_key=True,
            server_default=sa.text("'0001-01-01'::date"),
        ),
        *(sa.Column(price, sa.BigInteger) for price in PRICES),
        # Prices of further units, by name, and `tiers`; NULL: neither.
        sa.Column("more", pg.JSONB(none_as_null=True)),
        timestamp("created_at"),
        timestamp("updated_at"),
        sa.Column("receipt", pg.JSONB),
        *(sa.CheckConstraint(f"{p} BETWEEN 0 AND {MAX_PRICE}", name=p) for p in PRICES),
        sa.CheckConstraint("source IN ('book', 'custom')", name="source"),
        sa.CheckConstraint(f"more @@ '{PRICES_ALONE}'", name="more"),
        info={
            "audit": Audited("ai_model_price", names, shown, each="STATEMENT"),
            "functions": {price_function.NAME: (price_function.HEAD, price_function.BODY)},
        },
    )


def audit_log(t: Tables) -> sa.Table:
    """Who changed what; append-only."""
    return t.add(
        "audit_log",
        sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.func.gen_random_uuid()),
        timestamp("at", sa.func.clock_timestamp()),
        t.id("organization_id"),  # NULL: of the site
        sa.Column("object_type", sa.Text, nullable=False),
        sa.Column("object_id", sa.Text, nullable=False),
        sa.Column("before", pg.JSONB(none_as_null=True)),
        sa.Column("after", pg.JSONB(none_as_null=True)),
        sa.Column("receipt", pg.JSONB, nullable=False),
        sa.CheckConstraint(COMPLETE_RECEIPT, name="receipt"),
        sa.CheckConstraint(READABLE_ENTRY, name="readable"),
        # Which budget an authorized delete took away; see the trigger. Not unique: a row that
        # was put back by hand has the revision that it had.
        sa.Column("deleted_revision", sa.Uuid),
        sa.Index(None, "organization_id", "at", "id"),
        sa.Index(
            None, "deleted_revision", postgresql_where=sa.text("deleted_revision IS NOT NULL")
        ),
        info={"is_append_only": True, "rights": ADD},
    )


def list_rights(tables: Tables) -> Iterator[tuple[sa.Table, str]]:
    """Give each of our tables with the least rights to it that serve, as GRANT has them."""
    for table in tables.metadata.sorted_tables:
        if table.schema == tables.layout.schema:
            change = "SELECT, INSERT, UPDATE, DELETE" if "audit" in table.info else "SELECT"
            yield table, table.info.get("rights", change)


OF_DIRECTORY = (organizations, users, groups, organization_members, group_members, role_assignments)
OTHERS = (group_ai_budgets, ai_model_prices, audit_log)
