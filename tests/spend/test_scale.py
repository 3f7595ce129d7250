"""Two million calls make nothing slower: all is read by key from counters and rollups."""

from __future__ import annotations

import random
import statistics
import sys
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from time import perf_counter
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.support import World, authorize, make_gov

from govbudget import Call, Tokens
from govbudget.spend.report import Key, Question
from govbudget.spend.store import Spend
from govbudget.spend.this_month import Reports
from govbudget.spend.verify import verify_spend

MEMBERS, GROUPS, PAGE = 1000, 100, 50
SPENDING_GROUPS = 51  # Everyone, and those of half of the members
NOON = datetime(2026, 9, 15, 12, tzinfo=UTC)  # of the last day; reports are of its month
MONTH, NEXT_MONTH = date(2026, 9, 1), date(2026, 10, 1)
ROUNDS, WARM_UP = 60, 20  # PostgreSQL settles on a plan after a few
AT_MOST = 1.5
FILLED = ("ai_usage", "ai_holds", "ai_spend_rollups")

# The spend of half of the members is attributed to Everyone, of the others to a group of theirs.
PEOPLE = """
INSERT INTO govbudget.groups (id, organization_id, name)
  SELECT md5('group ' || n)::uuid, :a, 'group' FROM generate_series(1, :groups) n;
INSERT INTO govbudget.users (id, name)
  SELECT md5('user ' || n)::uuid, 'member' FROM generate_series(1, :members) n;
INSERT INTO govbudget.organization_members (organization_id, user_id)
  SELECT :a, md5('user ' || n)::uuid FROM generate_series(1, :members) n;
CREATE TABLE members AS
  SELECT n, md5('user ' || n)::uuid AS user_id,
         CASE n % 2 WHEN 0 THEN :a ELSE md5('group ' || 1 + n % :groups)::uuid END AS group_id
  FROM generate_series(1, :members) n;
INSERT INTO govbudget.group_members (organization_id, group_id, user_id)
  SELECT :a, group_id, user_id FROM members WHERE group_id <> :a;
INSERT INTO govbudget.group_ai_budgets (group_id, spend_limit_micros, revision)
  SELECT id, CASE id WHEN :a THEN 1000000000 ELSE 2000000000 END, gen_random_uuid()
  FROM govbudget.groups WHERE organization_id = :a;
INSERT INTO govbudget.ai_model_prices (provider, model, input_price) VALUES ('acme', 'm', 1000);
"""

# Every other call had a hold, which is closed. Each member has one a month that nobody ever ended.
# Sums are written in the order in which calls would have written them.
SPEND = """
INSERT INTO govbudget.ai_usage
  (organization_id, event_id, user_id, group_id, hold_id, period, day, provider, model, input_price,
   input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_picos, recorded_at)
  SELECT :a, (n + :members * (call + :calls * ago))::text, user_id, group_id,
         CASE call % 2 WHEN 1 THEN gen_random_uuid() END, date_trunc('month', day)::date, day,
         'acme', 'm', 1000, 100 * call, 0, 0, 0, 100000 * call, day + time '12:00'
  FROM generate_series(0, :days - 1) AS ago, members, generate_series(1, :calls) AS call,
       LATERAL (SELECT CAST(:last AS date) - ago AS day) AS d;
INSERT INTO govbudget.ai_holds
  (id, organization_id, user_id, group_id, period, provider, model, input_price, cost_picos,
   is_open, created_at, expires_at)
  SELECT hold_id, :a, user_id, group_id, period, provider, model, input_price, cost_picos,
         false, recorded_at, recorded_at
  FROM govbudget.ai_usage WHERE hold_id IS NOT NULL;
INSERT INTO govbudget.ai_spend_rollups
  WITH days AS (
    SELECT day, period, group_id, user_id, sum(cost_picos) AS cost, count(*) AS calls
    FROM govbudget.ai_usage GROUP BY day, period, group_id, user_id
  ), sums AS (
    SELECT day AS written_on, 'day' AS grain, day, group_id, user_id, cost, calls FROM days
    UNION ALL SELECT min(day), 'month', period, group_id, user_id, sum(cost), sum(calls)
    FROM days GROUP BY period, group_id, user_id
  )
  SELECT :a, grain, day, group_id, user_id, 'acme', 'm', cost, calls, 0
  FROM sums ORDER BY written_on, random();
INSERT INTO govbudget.ai_spend_counters
  SELECT :a, user_id, starts_on, cost_picos, 7 FROM govbudget.ai_spend_rollups
  WHERE grain = 'month' ORDER BY starts_on, random();
INSERT INTO govbudget.ai_holds
  (id, organization_id, user_id, period, provider, model, cost_picos, is_open, expires_at)
  SELECT gen_random_uuid(), :a, user_id, period, 'acme', 'm', 7, true, period
  FROM govbudget.ai_spend_counters;
"""


class Side:
    """A database with so many calls of each member a day, for so many days, and what is timed."""

    def __init__(self, url, days, calls):
        self.engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        self.world = World(self.engine)
        self.gov = make_gov(clock=lambda: NOON)
        self.fill(days, calls)
        self.connection = self.engine.connect()
        self.may_record = self.authorize("gateway", "create", ledger=True)
        self.may_read = self.authorize("owner", "read", group=self.world.a)
        self.may_list = self.authorize("owner", "read", organization=self.world.a)

    def authorize(self, person, action, **asked):
        """Give a grant that ends with the connection: nothing here ends its transaction."""
        person = getattr(self.world, person)
        return authorize(self.connection, person, action, gov=self.gov, **asked)

    def fill(self, days, calls):
        values = {"a": self.world.a, "members": MEMBERS, "groups": GROUPS}
        values |= {"days": days, "calls": calls, "last": NOON.date()}
        with self.engine.connect() as connection:
            connection.exec_driver_sql("SET synchronous_commit = off")
            connection.exec_driver_sql("SET maintenance_work_mem = '512MB'")
            send_each(connection, PEOPLE, values)
            # No crash is tested here: nothing needs the log, which is larger than the rows.
            for table in FILLED:
                connection.exec_driver_sql(f"ALTER TABLE govbudget.{table} SET UNLOGGED")
            with set_indexes_aside(connection, *FILLED):
                send_each(connection, SPEND, values)
            connection.exec_driver_sql("VACUUM ANALYZE")
            users = connection.exec_driver_sql("SELECT user_id FROM members ORDER BY user_id")
            self.users = users.scalars().all()

    def send(self, act, *arguments):
        return getattr(Spend, act)(self.may_record, *arguments)

    def acts(self, number):
        """Give what is timed, in turn, for the member of this number."""
        user = self.users[number]
        call, one, event = Call(self.world.a, user, "acme", "m"), Tokens(input=1), uuid4().hex
        member = self.authorize("owner", "read", member=(self.world.a, user))
        held = []

        def hold():
            held.append(self.send("hold", call, one).id)

        yield "hold", hold
        yield "settle", lambda: self.send("settle", held[0], "of " + event, one)
        yield "settle again", lambda: self.send("settle", held[0], "of " + event, one)
        hold()
        yield "release", lambda: self.send("release", held[1])
        yield "record", lambda: self.send("record", event, call, one)
        yield "record again", lambda: self.send("record", event, call, one)
        page = {"limit": PAGE}
        for report, grant, options in (
            ("member", member, {}),
            ("group", self.may_read, {}),
            ("list_groups", self.may_list, page),
            ("list_members", self.may_read, page),
            ("ask", self.may_list, {"question": Question(MONTH, NEXT_MONTH, [Key.GROUP])}),
        ):
            yield report, partial(getattr(Reports, report), grant, **options)


def send_each(connection, sql, values):
    for statement in sql.strip().removesuffix(";").split(";\n"):
        text = sa.text(statement)
        connection.execute(text, {name: values[name] for name in text._bindparams})


@contextmanager
def set_indexes_aside(connection, *tables):
    """Fill tables without their indexes, and make the same ones afterwards: it takes a third."""
    found = connection.execute(
        sa.text(
            "SELECT 'govbudget.' || t.relname, i.relname, pg_get_constraintdef(c.oid),"
            " pg_get_indexdef(i.oid)"
            " FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
            " JOIN pg_class t ON t.oid = x.indrelid LEFT JOIN pg_constraint c ON c.conindid = i.oid"
            " WHERE t.relnamespace = 'govbudget'::regnamespace AND t.relname = ANY (:tables)"
        ),
        {"tables": list(tables)},
    ).all()
    assert {table.partition(".")[2] for table, *_ in found} == {*tables}
    for table, name, constraint, _ in found:
        drop = f"ALTER TABLE {table} DROP CONSTRAINT {name}" if constraint else None
        connection.exec_driver_sql(drop or f"DROP INDEX govbudget.{name}")
    yield
    for table, name, constraint, index in found:
        add = f"ALTER TABLE {table} ADD CONSTRAINT {name} {constraint}" if constraint else index
        connection.exec_driver_sql(add)


@pytest.fixture(scope="module")
def sides(make_database, template):
    """A thousand calls and two million, of as many members and groups."""
    made = [
        Side(make_database(template=template), days, calls) for days, calls in ((1, 1), (250, 8))
    ]
    yield made
    for side in made:
        side.connection.close()
        side.engine.dispose()


@pytest.mark.long
def test_two_million_calls_make_admission_and_reports_no_slower_than_a_thousand(sides):
    for side in sides:
        acts = dict(side.acts(0))
        assert len(acts["ask"]()) == SPENDING_GROUPS
        assert len(acts["list_members"]()[1]) == len(acts["list_groups"]()) == PAGE
    dice, seconds = random.Random(7), {}
    for _ in range(WARM_UP + ROUNDS):
        member = dice.randrange(MEMBERS)
        for acts in zip(*(side.acts(member) for side in sides), strict=True):
            pair = {}
            for side in dice.sample((0, 1), 2):
                name, act = acts[side]
                start = perf_counter()
                act()
                pair[side] = perf_counter() - start
            seconds.setdefault(name, []).append((pair[0], pair[1]))
    lines, ratios = [], {}
    for name, pairs in seconds.items():
        few, many = (statistics.median(side) for side in zip(*pairs[WARM_UP:], strict=True))
        ratios[name] = statistics.median(many / few for few, many in pairs[WARM_UP:])
        lines.append(f"{name}: {1000 * few:.2f} ms, {1000 * many:.2f} ms, {ratios[name]:.2f}\n")
    sys.stdout.writelines(["of a thousand calls, of two million, ratio\n", *lines])
    assert max(ratios.values()) <= AT_MOST


@pytest.mark.long
def test_two_million_calls_are_verified(sides):
    large = sides[1]
    start = perf_counter()
    seen = verify_spend(large.may_record)
    sys.stdout.write(f"spend verify: {perf_counter() - start:.0f} s\n")
    assert (seen.members, seen.findings) == (MEMBERS, [])
    assert seen.calls >= 2_000_000
