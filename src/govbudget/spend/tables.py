"""The tables of spend: overrides, holds, the ledger, and the sums of both."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from govbudget.db.tables import ADD, ADD_AND_CHANGE, Tables, describe_limit, required, timestamp
from govbudget.db.times import Time
from govbudget.db.triggers import Audited, name_table, quote
from govbudget.money import MAX_COST_PICOS, MAX_TOKENS, PRICES, TOKENS
from govbudget.settings import MIN_CLOSE_AFTER_DAYS

SHORTEST_MONTH = 28
PICOS = sa.Numeric(38, 0)
# Rows that are updated all the time stay on their page, so that no index is written.
OFTEN_UPDATED = {"rights": ADD_AND_CHANGE, "fillfactor": 50}


def member_ai_overrides(t: Tables) -> sa.Table:
    """A member's own limit in an organization."""
    keys: tuple[sa.schema.SchemaItem, ...] = ()
    groups, find = t.groups_column, t.find_group("NULL")
    if t.layout.owns_directory:
        groups, find, keys = None, _find_member(t), _tie_to_members(t)
    shown = ("group_id", "spend_limit_micros", "expires_at", "reason")
    return t.add(
        "member_ai_overrides",
        t.id("organization_id", key=True),
        t.id("user_id", key=True),
        required(t.id("group_id", groups)),
        *describe_limit(),
        sa.Column("expires_at", Time),  # NULL: it has no end
        sa.Column("reason", sa.Text),
        *keys,
        info={"audit": Audited("member_ai_override", ("user_id",), shown, find)},
    )


def _tie_to_members(t: Tables) -> tuple[sa.schema.SchemaItem, ...]:
    """Tie an override to the memberships of its user in its group and its organization."""
    listed, members = t.group_members.c, t.organization_members.c
    name = "member_ai_overrides_listing_group_id_fkey"
    # The group that must list the user; of Everyone, the organization's key does.
    listing = sa.Computed("NULLIF(group_id, organization_id)", persisted=True)
    of_group = {"organization_id": listed.organization_id, "listing_group_id": listed.group_id}
    return (
        sa.Column("listing_group_id", t.id_type, listing),
        t.refer({**of_group, "user_id": listed.user_id}, name),
        t.refer({"organization_id": members.organization_id, "user_id": members.user_id}),
    )


def _find_member(t: Tables) -> str:
    """Write the query that finds whom an override is of, where the group lists them."""
    members, listed = name_table(t.organization_members), name_table(t.group_members)
    is_listed = (
        f"{{row}}.listing_group_id IS NULL OR EXISTS (SELECT FROM {listed} l"
        " WHERE l.group_id = {row}.listing_group_id AND l.user_id = {row}.user_id)"
    )
    return (
        f"SELECT m.organization_id FROM {members} m WHERE ({is_listed})"
        " AND m.organization_id = {row}.organization_id AND m.user_id = {row}.user_id"
    )


def ai_holds(t: Tables) -> sa.Table:
    """Money that is, or was, set aside for a call."""
    return t.add(
        "ai_holds",
        sa.Column("id", sa.Uuid, primary_key=True),
        required(t.id("organization_id")),
        required(t.id("user_id")),
        t.id("group_id"),  # NULL: attributed to the organization alone
        sa.Column("period", sa.Date, nullable=False),
        *_describe_priced(),
        *_describe_cost(),
        sa.Column("is_open", sa.Boolean, nullable=False),
        timestamp("created_at"),
        sa.Column("expires_at", Time, nullable=False),
        # A digest of what was asked, where the caller chose the id.
        sa.Column("body_digest", sa.Uuid),
        # `settled` or `released`, with ` late` where it held nothing any more; NULL: neither.
        sa.Column("ended", sa.Text),
        sa.Index(
            "ai_holds_open_idx",
            "organization_id",
            "user_id",
            "period",
            "expires_at",
            postgresql_where=sa.text("is_open"),
        ),
        info={"rights": ADD_AND_CHANGE},
    )


def ai_usage(t: Tables) -> sa.Table:
    """The ledger. No foreign keys: it keeps what was spent by whoever has left since."""
    return t.add(
        "ai_usage",
        t.id("organization_id", key=True),
        sa.Column("event_id", sa.Text, primary_key=True),
        required(t.id("user_id")),
        t.id("group_id"),
        sa.Column("hold_id", sa.Uuid, unique=True),
        sa.Column("period", sa.Date, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        *_describe_priced(),
        *(sa.Column(count, sa.BigInteger, nullable=False) for count in TOKENS),
        # Counts of further units, by name; NULL: none.
        sa.Column("further_tokens", pg.JSONB(none_as_null=True)),
        *_describe_cost(),
        sa.Column("occurred_at", Time),  # NULL: not reported
        timestamp("recorded_at"),
        *(sa.CheckConstraint(f"{c} BETWEEN 0 AND {MAX_TOKENS}", name=c) for c in TOKENS),
        *_describe_correction(),
        # The month that it would have counted in, had that not been closed; NULL: it did.
        sa.Column("late_for", sa.Date),
        sa.Index(
            "ai_usage_unpriced_idx",
            "provider",
            "model",
            postgresql_where=sa.text("unpriced IS NOT NULL"),
        ),
        info={"rights": ADD},
    )


def ai_closings(t: Tables) -> sa.Table:
    """Months that are closed to every writer, and what is kept of them; `spend.closing` has more.

    The database's function `is_closed` says whether a month is closed, as every one before is. Of a
    month that has not ended for long it looks nothing up.
    """
    function = "(date) RETURNS boolean LANGUAGE plpgsql STABLE STRICT"
    body = f"""
BEGIN
  IF $1 > CURRENT_DATE - {MIN_CLOSE_AFTER_DAYS + SHORTEST_MONTH - 1} THEN
    RETURN false;
  END IF;
  RETURN EXISTS (SELECT FROM {quote(t.layout.schema)}.ai_closings c WHERE c.month >= $1);
END """
    return t.add(
        "ai_closings",
        sa.Column("month", sa.Date, primary_key=True),
        timestamp("started_at"),
        # Of its file: digest, that of the one before, rows. NULL: none of its rows is deleted yet.
        sa.Column("file", pg.JSONB(none_as_null=True)),
        # What its rollups and counters were, by organization.
        sa.Column("sums", pg.JSONB(none_as_null=True)),
        sa.Column("closed_at", Time),  # NULL: some of its rows may be there
        info={"functions": {"is_closed": (function, body)}},
    )


def ai_notices(t: Tables) -> sa.Table:
    """Thresholds of limits that members' spend has crossed: each once."""
    return t.add(
        "ai_notices",
        sa.Column("id", sa.Uuid, primary_key=True),
        required(t.id("organization_id")),
        required(t.id("user_id")),
        sa.Column("period", sa.Date, nullable=False),
        sa.Column("threshold", sa.Integer, nullable=False),  # percent of the limit
        sa.Column("spend_limit_micros", sa.BigInteger, nullable=False),
        sa.Column("limit_source", sa.Text, nullable=False),
        required(t.id("group_id")),
        sa.Column("spent_picos", PICOS, nullable=False),
        timestamp("created_at"),
        sa.UniqueConstraint(
            *("organization_id", "user_id", "period", "threshold", "spend_limit_micros"),
            name="ai_notices_key",
        ),
        sa.Index(None, "organization_id", "id"),
        # Pages: who crossed the highest threshold first, and how many of a group did.
        sa.Index("ai_notices_highest_idx", "organization_id", "period", "threshold", "user_id"),
        sa.Index(
            "ai_notices_group_idx",
            *("organization_id", "period", "group_id", "threshold", "user_id"),
        ),
        info={"rights": ADD},
    )


def ai_refusals(t: Tables) -> sa.Table:
    """Calls that were refused: one row a member, day and code, with the last call."""
    return t.add(
        "ai_refusals",
        t.id("organization_id", key=True),
        t.id("user_id", key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("calls", sa.BigInteger, nullable=False),
        timestamp("last_at"),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("cost_picos", sa.BigInteger),  # what is known of it; NULL: nothing
        # What it did not fit under; NULL: it had no price.
        sa.Column("spend_limit_micros", sa.BigInteger),
        sa.Column("limit_source", sa.Text),
        t.id("group_id"),
        info=OFTEN_UPDATED,
    )


def ai_spend_counters(t: Tables) -> sa.Table:
    """What admission reads and locks: one row a member and period."""
    return t.add(
        "ai_spend_counters",
        t.id("organization_id", key=True),
        t.id("user_id", key=True),
        sa.Column("period", sa.Date, primary_key=True),
        sa.Column("spent_picos", PICOS, nullable=False),
        sa.Column("held_picos", PICOS, nullable=False),
        sa.Column("last_hold_id", sa.Uuid),
        info=OFTEN_UPDATED,
    )


def ai_spend_rollups(t: Tables) -> sa.Table:
    """What reports read: sums by day and by month, of each model as it was called."""
    key = ("organization_id", "grain", "starts_on", "group_id", "user_id", "provider", "model")
    return t.add(
        "ai_spend_rollups",
        required(t.id("organization_id")),
        sa.Column("grain", sa.Text, nullable=False),
        sa.Column("starts_on", sa.Date, nullable=False),
        t.id("group_id"),
        required(t.id("user_id")),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("cost_picos", PICOS, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("unpriced_calls", sa.BigInteger, nullable=False),
        sa.UniqueConstraint(*key, name="ai_spend_rollups_key", postgresql_nulls_not_distinct=True),
        sa.CheckConstraint("grain IN ('day', 'month')", name="grain"),
        info=OFTEN_UPDATED,
    )


def _describe_correction() -> tuple[sa.schema.SchemaItem, ...]:
    """Describe what a correction says: of which event, what that should have cost, and why.

    Its own cost is the difference.
    """
    return (
        sa.Column("corrects", sa.Text),
        sa.Column("corrected_picos", sa.BigInteger),
        sa.Column("reason", sa.Text),
        sa.CheckConstraint(
            f"cost_picos <= {MAX_COST_PICOS} AND corrected_picos BETWEEN 0 AND {MAX_COST_PICOS}"
            f" AND cost_picos >= CASE WHEN corrects IS NULL THEN 0 ELSE -{MAX_COST_PICOS} END",
            name="cost",
        ),
        sa.Index(
            None,
            "organization_id",
            "corrects",
            unique=True,
            postgresql_where=sa.text("corrects IS NOT NULL"),
        ),
    )


def _describe_priced() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        *(sa.Column(price, sa.BigInteger) for price in PRICES),
        # As `ai_model_prices` has it: the whole price, with all tiers.
        sa.Column("more", pg.JSONB(none_as_null=True)),
        # The provider and the model whose price it is, where a rule found them; NULL: its own.
        sa.Column("priced_as", pg.ARRAY(sa.Text)),
    )


def _describe_cost() -> tuple[sa.Column[Any], ...]:
    return (
        # What is known of it; NULL: nothing.
        sa.Column("cost_picos", sa.BigInteger),
        # The units that were asked for or used without a price; NULL: all had one.
        sa.Column("unpriced", pg.ARRAY(sa.Text)),
    )


OF_DIRECTORY = ()
OTHERS = (
    *(member_ai_overrides, ai_holds, ai_usage, ai_closings),
    *(ai_spend_counters, ai_spend_rollups, ai_notices, ai_refusals),
)
