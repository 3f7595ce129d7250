"""What an organization spent in a range of days: one text for HTTP, the command and the pages.

It reads rollups, never the ledger: whole months by month, unless days are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from govbudget.db.governed import GROUPS, MEMBERS, Governed, describe_groups
from govbudget.db.unit import Grant
from govbudget.errors import SettingsError
from govbudget.identity import Action, Id, ObjectType, Organization
from govbudget.money import round_up_to_micros
from govbudget.spend.usage import END, FIRST
from govbudget.text import write_value

# The months of the accepted times, in whatever time zone: from one day until before the other.
FIRST_DAY = (FIRST - timedelta(days=1)).date().replace(day=1)
LAST_DAY = (END + timedelta(days=31)).date().replace(day=1)


class Key(StrEnum):
    """What spend can be summed by. Lines are in the order of these, as texts."""

    DAY = "day"
    MONTH = "month"
    PROVIDER = "provider"
    MODEL = "model"
    GROUP = "group"
    USER = "user"


# Of a rollup, and of its sum as text.
_VALUES = {
    Key.DAY: ("r.starts_on", "to_char({}, 'YYYY-MM-DD')"),
    Key.MONTH: ("date_trunc('month', r.starts_on::timestamp)", "to_char({}, 'YYYY-MM')"),
    Key.PROVIDER: ("r.provider", "{}"),
    Key.MODEL: ("r.model", "{}"),
    Key.GROUP: ("r.group_id", "{}::text"),
    Key.USER: ("r.user_id", "{}::text"),
}
_IDS = frozenset({Key.GROUP, Key.USER})
_SUMS = ("cost_picos", "calls", "unpriced_calls")
FILTERS = ("provider", "model", "group_id", "user_id")


def _write(name: str, reach: ObjectType, column: str, seen: str) -> Governed[Organization]:
    asked = ((key, of) for key, (of, _text) in _VALUES.items())
    keys = (f"CASE WHEN '{key}' = ANY (:by) THEN {of} END AS by_{key}" for key, of in asked)
    texts = (text.format(f"by_{key}") for key, (_of, text) in _VALUES.items())
    filters = (f"AND (:{name} IS NULL OR r.{name} = :{name})" for name in FILTERS)
    return Governed(
        f"reports.{name}",
        Action.READ,
        Organization,
        f"""
WITH govbudget_groups AS ({{groups}}), summed AS (
  SELECT {", ".join(keys)}, {", ".join(f"sum(r.{name}) AS {name}" for name in _SUMS)}
  FROM (VALUES ('day', :since, :months_since), ('month', :months_since, :months_until),
               ('day', :months_until, :until)) AS part (grain, since, until)
  CROSS JOIN LATERAL (
    SELECT * FROM {{s}}.ai_spend_rollups r
    WHERE r.organization_id = :organization_id AND r.grain = part.grain
      AND r.starts_on >= part.since AND r.starts_on < part.until
      AND ({seen}) {" ".join(filters)}
    OFFSET 0  -- so that a part reads its own range alone, however many other days there are
  ) r
  GROUP BY {", ".join(f"by_{key}" for key in _VALUES)}
)
SELECT key, {", ".join(_SUMS)}
FROM (SELECT ARRAY[{", ".join(texts)}] COLLATE "C" AS key, * FROM summed) AS keyed
WHERE :position IS NULL OR key > :position ORDER BY key LIMIT :page_size
""",
        reach=reach,
        column=column,
        parts=describe_groups,
    )


# Where a user is named, by a key or a filter, what counts is whose spend one may read.
OF_USERS = _write("of_users", MEMBERS, "r.user_id", "{reach}")
# Else which groups: what counts for one that is gone, or for none, sees who may read them all.
OF_GROUPS = _write(
    "of_groups",
    GROUPS,
    "r.group_id",
    """:allowed_elsewhere AND cardinality(:exceptions) = 0 OR {reach} AND r.group_id IN (
    SELECT g.id FROM govbudget_groups g WHERE g.organization_id = :organization_id)""",
)


class Sum(NamedTuple):
    """What calls cost together, in picos; `unpriced_calls` of the `calls` have no cost."""

    cost_picos: int
    calls: int
    unpriced_calls: int


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: of which days, summed by what (nothing: all in one line), of what alone.

    Days are of the configured time zone: from `since` until before `until`. Raises ValueError where
    there is no such day, or one is beyond the accepted years.
    """

    since: date
    until: date
    by: Sequence[Key] = ()
    provider: str | None = None
    model: str | None = None
    group_id: Id | None = None
    user_id: Id | None = None

    def __post_init__(self) -> None:
        """Check the range."""
        if not FIRST_DAY <= self.since < self.until <= LAST_DAY:
            message = (
                f"the days from {self.since} until before {self.until} are not a range within "
                f"{FIRST_DAY} to {LAST_DAY}; the first day must be before the other one"
            )
            raise ValueError(message)

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys asked for, in the order that lines have."""
        return tuple(key for key in Key if key in self.by)


def span_month(day: date) -> tuple[date, date]:
    """Give the first day of the month that a day is in, and that of the next month."""
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


def find_month(zone: str) -> tuple[date, date]:
    """Give the first day of this month, and that of the next one, in a time zone."""
    try:
        return span_month(datetime.now(ZoneInfo(zone)).date())
    except ValueError as error:  # its file is there, and is not one of a time zone
        message = "this machine does not know GOVBUDGET_TIME_ZONE; name a zone that it knows"
        raise SettingsError(message) from error


def read_day(text: str) -> date:
    """Read a day; ValueError: it is not one."""
    with suppress(ValueError):
        found = date.fromisoformat(text)
        if str(found) == text:
            return found
    raise ValueError(f"`{text[:60]}` is not a day; write one such as 2026-10-01")


def read_keys(text: str) -> tuple[Key, ...]:
    """Read keys with commas between them; ValueError: one is unknown, or named twice."""
    names = text.split(",")
    for name in names:
        if name not in [*Key]:
            raise ValueError(f"`{name[:60]}` is not a key; write some of {','.join(Key)}")
        if names.count(name) > 1:
            raise ValueError(f"`{name}` is named twice; write each key once")
    return tuple(map(Key, names))


@dataclass(frozen=True, slots=True)
class Line:
    """What was spent under these keys; the group is None where it counts for none.

    A day is `2026-10-01`, a month `2026-10`.
    """

    keys: Mapping[Key, str | Id | None]
    sum: Sum


def ask(
    grant: Grant[Organization],
    question: Question,
    *,
    limit: int | None = None,
    after: Mapping[Key, str | Id | None] | None = None,
) -> Sequence[Line]:
    """Answer with what was spent, in one statement, of what the grant's caller may see.

    At most `limit` lines (None: all), those after the one with the keys `after`; none where nothing
    was spent. Needs a grant to `read` the organization. Raises Forbidden where users are asked for
    and the caller may read nobody's spend. Never commits.
    """
    since, position = question.since, None
    if after is not None:
        texts = {key: None if value is None else str(value) for key, value in after.items()}
        position = [texts.get(key) for key in Key]
        # What is before its day is not summed up again.
        start = texts.get(Key.DAY) or (texts.get(Key.MONTH) or str(since)[:7]) + "-01"
        since = min(max(since, date.fromisoformat(start)), question.until)
    names_users = question.user_id is not None or Key.USER in question.by
    months = _find_months(since, question)
    rows = grant.run(
        OF_USERS if names_users else OF_GROUPS,
        since=since,
        until=question.until,
        months_since=months[0],
        months_until=months[1],
        by=list(question.by),
        position=position,
        page_size=limit,
        **{name: getattr(question, name) for name in FILTERS},
    )
    places = [(place, key) for place, key in enumerate(Key) if key in question.by]
    parse = cache(grant.unit.gov.settings.id_type.parse)  # the same ids stand in many rows
    return [_read_line(places, parse, *row) for row in rows]


def _read_line(
    places: Sequence[tuple[int, Key]],
    parse: Callable[[str], Id],
    texts: Sequence[str | None],
    *sums: int,
) -> Line:
    """Read the keys at these places of all, and the sums."""
    keys: dict[Key, str | Id | None] = {}
    for place, key in places:
        text = texts[place]
        keys[key] = parse(text) if text is not None and key in _IDS else text
    return Line(keys, Sum(*sums))


def _find_months(since: date, question: Question) -> tuple[date, date]:
    """Find the range of whole months that are read as such; an empty one at the end, else."""
    first = since if since.day == 1 else span_month(since)[1]
    last = question.until.replace(day=1)
    return (first, last) if first < last and Key.DAY not in question.by else (question.until,) * 2


def describe_line(line: Line) -> dict[str, object]:
    """Give a line as a row of JSON or CSV has it; what it cost is rounded up to micros, too."""
    columns = [*map(str, line.keys), "cost_micros", *_SUMS]
    return dict(zip(columns, list_cells(line), strict=True))


def list_cells(line: Line) -> list[object]:
    """List what stands in a line, in the order of `list_columns`."""
    keys, picos = map(write_value, line.keys.values()), line.sum.cost_picos
    return [*keys, round_up_to_micros(picos), *line.sum]


def list_columns(question: Question) -> list[str]:
    """List the columns of the rows that `describe_line` gives."""
    return [*question.keys, "cost_micros", *_SUMS]
