"""What amounts, limits and times are called on the pages."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from govbudget.budgets.budget import LimitSource
from govbudget.money import PICOS_PER_MICRO

if TYPE_CHECKING:
    from collections.abc import Callable

    from govbudget.spend.this_month import MemberSpend

PICOS_PER_USD = 10**12
_CENT = Decimal("0.01")
# Not as the process's locale has them: the pages are in English.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)


def write_exactly(picos: int) -> str:
    """Write an amount with every digit that it has, and two of cents at least: `$0.000001`."""
    whole, rest = divmod(abs(int(picos)), PICOS_PER_USD)
    digits = f"{rest:012}".rstrip("0").ljust(2, "0")
    return f"{'-' if picos < 0 else ''}${whole:,}.{digits}"


def write_briefly(picos: int, *, up: bool = True) -> str:
    """Write an amount with as many digits as matter: cents, or two digits of less than one.

    It is rounded up, or down where it is what is left, so nothing is shown as more than there is.
    What is not zero is never shown as zero.
    """
    amount = Decimal(abs(int(picos))) / PICOS_PER_USD
    if not amount:
        return "$0.00"
    step = min(_CENT, Decimal(1).scaleb(amount.adjusted() - 1))
    shown = amount.quantize(step, ROUND_CEILING if up == (picos > 0) else ROUND_FLOOR)
    text = f"{shown:,f}"
    if shown < _CENT:
        text = text.rstrip("0")
    return f"{'-' if picos < 0 else ''}${text}"


def write_limit(micros: int | None) -> str:
    """Write a limit: *No limit* and *$0: blocked* are different words."""
    if micros is None:
        return "No limit"
    return "$0: blocked" if micros == 0 else write_exactly(micros * PICOS_PER_MICRO)


class Clock:
    """Writes times in the time zone of the setting."""

    def __init__(self, zone: str) -> None:
        """Take the IANA name of the zone."""
        self.zone = zone
        self._zone = ZoneInfo(zone)

    def write(self, time: datetime) -> str:
        """Write a time for a table: `2026-11-28 15:04:05`."""
        return time.astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S")

    def say(self, time: datetime) -> str:
        """Say a time in a sentence: `1 December 00:00`."""
        local = time.astimezone(self._zone)
        return f"{say_day(local)} {local:%H:%M}"

    def say_minute(self, time: datetime) -> str:
        """Say when on a day that is said besides: `14:02`."""
        return f"{time.astimezone(self._zone):%H:%M}"

    def say_until(self, time: datetime) -> str:
        """Say until when something holds: `30 November` is until that day's end."""
        local = time.astimezone(self._zone)
        day = local - timedelta(seconds=1)
        year = "" if day.year == datetime.now(self._zone).year else f" {day.year}"
        ends_with_day = (local.hour, local.minute, local.second) == (0, 0, 0)
        return f"{say_day(day)}{year}" if ends_with_day else f"{say_day(local)}{year} {local:%H:%M}"


def say_day(day: date) -> str:
    """Say a day: `30 November`."""
    return f"{day.day} {_MONTHS[day.month - 1]}"


def describe_spend(spend: MemberSpend, find_name: Callable[[str, object], str], zone: str) -> str:
    """Say in a sentence what a member may spend, has spent, and until when."""
    clock = Clock(zone)
    spent, held = write_briefly(spend.spent_picos), write_briefly(spend.held_picos)
    resets = f"resets {clock.say(spend.period.end)} {zone}"
    if spend.limit_micros is None:
        return f"No limit: spent {spent}, held {held}, {resets}"
    source = f"limit from group {find_name('group', spend.group_id)}"
    if spend.limit_source is LimitSource.OVERRIDE:
        ends = spend.limit_expires_at
        source = f"an override until {clock.say_until(ends)}" if ends else "an override"
    if spend.limit_micros == 0:
        return f"$0: blocked, spent {spent}, held {held}, {resets}; {source}"
    limit = write_limit(spend.limit_micros)
    return f"{spent} of {limit}, held {held}, {resets}; {source}"
