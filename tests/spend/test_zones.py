"""A period starts with the first moment of its first day, by the clock of the zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from govbudget.db.sql import prepare, read_time
from govbudget.layout import Layout
from govbudget.spend.statements import find_start


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
