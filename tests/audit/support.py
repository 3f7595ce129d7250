"""Reading the audit log as it is stored, and what must hold of it."""

from __future__ import annotations

from itertools import pairwise

import sqlalchemy as sa
from tests.support import TABLES

from govbudget.money import PRICES

NOBODY = {"actor": None, "cause": "direct"}


def read_entries(engine, object_id, tables=TABLES):
    """Read the entries about one object, the oldest first."""
    log = tables.audit_log
    query = sa.select(log).where(log.c.object_id == str(object_id)).order_by(log.c.at)
    with engine.connect() as connection:
        return connection.execute(query).all()


def read_only_entry(engine, object_id, tables=TABLES):
    entries = read_entries(engine, object_id, tables)
    assert len(entries) == 1, entries
    return entries[0]


def limit(micros):
    """Give a budget as an entry has it."""
    return None if micros is None else {"spend_limit_micros": micros}


def read_story(engine, object_id, tables=TABLES):
    """Give what each entry says of a budget: (before, after, cause)."""

    def micros(value):
        return None if value is None else value["spend_limit_micros"]

    return [
        (micros(entry.before), micros(entry.after), entry.receipt["cause"])
        for entry in read_entries(engine, object_id, tables)
    ]


def find_broken_stories(engine, tables=TABLES):
    """Give the groups and models whose entries are no unbroken chain up to what is stored now.

    A model has a story for each source of its price and each day that one takes effect.
    """
    log, budgets, prices = tables.audit_log, tables.group_ai_budgets, tables.ai_model_prices
    price = (*PRICES, "effective_from", "more", "source")
    stories, now = {}, {}
    with engine.connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")
        for row in connection.execute(sa.select(log).order_by(log.c.at)):
            if row.object_type in {"group_ai_budget", "ai_model_price"}:
                shown = row.after or row.before
                place = shown.get("source"), shown.get("effective_from")
                key = row.object_type, row.object_id, *place
                stories.setdefault(key, []).append((row.before, row.after))
        for row in connection.execute(sa.select(budgets)):
            now["group_ai_budget", str(row.group_id), None, None] = limit(row.spend_limit_micros)
        for row in connection.execute(sa.select(prices)).mappings():
            shown = {**row, "effective_from": row["effective_from"].isoformat()}
            place = shown["source"], shown["effective_from"]
            key = "ai_model_price", f"{row['provider']}/{row['model']}", *place
            now[key] = {name: shown[name] for name in price}
    return [
        key
        for key in stories.keys() | now.keys()
        if not stories.get(key)
        or stories[key][0][0] is not None
        or any(earlier[1] != later[0] for earlier, later in pairwise(stories[key]))
        or stories[key][-1][1] != now.get(key)
    ]
