"""A period starts with the first moment of its first day, by the clock of the zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from tests.spend.test_store import ONE, Spender

from govbudget.db.sql import prepare, read_time
from govbudget.layout import Layout
from govbudget.spend.bodies import SettleBody
from govbudget.spend.cli import _read_range, read_month
from govbudget.spend.report import ask
from govbudget.spend.statements import find_start
from govbudget.spend.usage import FIRST_YEAR


def first_moment(zone, day):
    """The first minute of the day, found by asking each minute for its day."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=15)
    while moment.astimezone(ZoneInfo(zone)).date() < day:
        moment += timedelta(minutes=1)
    return moment


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("America/Havana", date(2026, 11, 1)),  # midnight comes twice
        ("America/Havana", date(2026, 3, 8)),  # midnight does not come
        ("America/Havana", date(2026, 12, 1)),
        ("Atlantic/Azores", date(2026, 10, 25)),
        ("Asia/Beirut", date(2026, 3, 29)),
        ("Australia/Lord_Howe", date(2026, 4, 5)),  # half an hour, at two
        ("Pacific/Kiritimati", date(2026, 1, 1)),
        ("Europe/Berlin", date(2026, 11, 1)),
        ("UTC", date(2026, 1, 1)),
    ],
)
def test_a_day_starts_with_its_first_midnight(engine, zone, day):
    asked = f"DATE '{day}'"
    select = f"SELECT {read_time(find_start(asked), 'period_start')}"
    with engine.connect() as connection:
        found = connection.execute(prepare(select, Layout(), zone=f"'{zone}'")).scalar_one()
    assert found == first_moment(zone, day)


def test_a_time_may_have_small_letters():
    """As RFC 3339 has it; Python 3.11 reads no small `z`."""
    body = {"event_id": "e1", "tokens": {}, "occurred_at": "2026-11-28t00:00:00z"}
    assert SettleBody(**body).occurred_at == datetime(2026, 11, 28, tzinfo=UTC)


@pytest.mark.slow
def test_each_month_that_is_accepted_starts_where_the_ledger_cuts_in_every_zone(engine):
    """What is just before belongs to another month.

    From 2038 on each zone has one rule, and in 28 years each date is once each day of the week.
    """
    start = find_start("month").replace("{zone}", "z.name")
    before = "unnest('{1 microsecond,29 minutes,59 minutes,1 hour,2 hours}'::interval[])"
    sql = f"""
        SELECT z.name, month, start FROM pg_timezone_names z,
          generate_series(timestamp '{FIRST_YEAR - 1}-12-01', '2066-01-01', '1 month') month,
          LATERAL (SELECT {start} AS start) s, {before} AS step
        WHERE timezone(z.name, start - step)::date >= month
           OR timezone(z.name, start + step - interval '1 microsecond')::date < month
    """
    with engine.connect() as connection:
        found = connection.execute(sa.text(sql)).all()
        zones = connection.exec_driver_sql("SELECT count(*) FROM pg_timezone_names").scalar_one()
    assert found == []
    assert zones > 300


@pytest.mark.parametrize(
    ("zone", "time"),
    [
        ("Pacific/Kiritimati", "2999-12-31T23:59:59Z"),  # in 3000
        ("Pacific/Niue", "2010-01-01T00:00:00Z"),  # in 2009
    ],
)
def test_the_month_of_every_call_that_is_recorded_can_be_reported(world, zone, time):
    spender = Spender(world, time_zone=zone)
    at = datetime.fromisoformat(time)
    spender("record", "e1", spender.call, ONE, occurred_at=at)
    month = at.astimezone(ZoneInfo(zone)).strftime("%Y-%m")
    with spender.gov.unit(world.owner) as unit:
        grant = unit.authorize("read", organization=world.a)
        _, question = _read_range(
            organization=str(world.a), since=None, until=None, month=read_month(month)
        )
        lines = ask(grant, question)
    assert [line.sum.cost_picos for line in lines] == [10**12]
