"""The settings: `GOVBUDGET_*` keys read once into one frozen object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import available_timezones

from govbudget.authz.reader import suggest
from govbudget.errors import SettingsError
from govbudget.ids import IdType
from govbudget.layout import OWN_GROUPS, Layout

T = TypeVar("T")
Word = TypeVar("Word", bound=str)

PREFIX = "GOVBUDGET_"
AIBRIDGE = "aibridge"
KNOWN_FEATURES = frozenset({AIBRIDGE})
# How long after its end a month may be closed: no statement asks about a time that is later.
MIN_CLOSE_AFTER_DAYS, MAX_DAYS = 7, 36500
# Read by the command and the tests, not by the extension.
COMMAND_KEYS = {
    "GOVBUDGET_DOCS_URL": "the URL of this folder `docs`, where SARIF links to `findings.md`",
    "GOVBUDGET_DATABASE_URL": "the database of the command and of `serve`, as a PostgreSQL URL",
    "GOVBUDGET_DATABASE_URLS": "instead, several databases: a JSON object from ranges of slots to"
    " URLs; see [several databases](how-to/move-organizations.md)",
    "GOVBUDGET_SECRET_KEY": "signs the cookie of the pages of `serve`; without it it has none",
    "GOVBUDGET_TEST_DATABASE_URL": "the database of the tests; without it they start one",
}

_URL_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_TEXT = re.compile(r"(?s:.+)")
_HEADER = re.compile(r"[!-~]([ -~]*[!-~])?")
_PERCENT = re.compile(r"[1-9][0-9]?|100")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class LimitRule(StrEnum):
    """Which of several groups' budgets binds their common member."""

    HIGHEST = "highest"
    LOWEST = "lowest"


class Unpriced(StrEnum):
    """What happens to a call whose cost is not wholly known, of a member who has a limit."""

    DENY = "deny"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set by a `GOVBUDGET_*` key; each field's key is its name in capitals.

    - `url_prefix`: the path that the endpoints are under.
    - `policy_dir`: the policy folder, an absolute path; none: the packaged policy.
    - `policy_digest`: the `sha256:...` that `model.conf` and `policy.csv` must have.
    - `require_matrix`: refuse a policy without its `matrix.csv`; none: only a `policy=` in code may
      lack it.
    - `features`: the features that are on, comma-separated; empty: every call is 403.
    - `id_type`: the type of all ids: `uuid`, `bigint` or `text`.
    - `schema`: the PostgreSQL schema of govbudget's tables.
    - `groups`: where groups are: `own` tables, the host's column of their ids as
      `schema.table.column`, or `none`: no foreign key.
    - `expose_policy_digest`: send the header `Govbudget-Policy-Digest` with each answer, to debug.
    - `limit_rule`: a member of several groups has their `highest` or their `lowest` limit.
    - `time_zone`: the IANA name of the time zone of the calendar months that limits are for.
    - `base_template`: the template of the host's that the pages extend (`pages=`); none: our own.
    - `close_after_days`: a month may be closed so many days after its end, 7 at least; a call that
      comes later counts in the month in which it comes.
    - `thresholds`: at which percents of a member's limit there is a notice, comma-separated whole
      numbers from 1 to 100, ascending; empty: none.
    - `unpriced`: `deny` or `allow` a call of unknown cost by a member who has a limit.
    """

    url_prefix: str = "/api/v2"
    policy_dir: Path | None = None
    policy_digest: str | None = None
    require_matrix: bool | None = None
    features: frozenset[str] = KNOWN_FEATURES
    id_type: IdType = IdType.UUID
    schema: str = "govbudget"
    groups: str = OWN_GROUPS
    expose_policy_digest: bool = False
    limit_rule: LimitRule = LimitRule.HIGHEST
    time_zone: str = "UTC"
    close_after_days: int = 60
    unpriced: Unpriced = Unpriced.DENY
    base_template: str | None = None
    thresholds: tuple[int, ...] = (75, 90, 100)

    @property
    def layout(self) -> Layout:
        """The layout of the tables."""
        return Layout(self.id_type, self.schema, self.groups)


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Read the `GOVBUDGET_*` keys of a Flask configuration or of the environment.

    Raises SettingsError for an unknown key or a wrong value.
    """
    known = {f"{PREFIX}{field.name.upper()}": field for field in fields(Settings)}
    given = {key: value for key, value in config.items() if key.startswith(PREFIX)}
    for key in given:
        if key not in known and key not in COMMAND_KEYS:
            raise SettingsError(
                f"`{key}` is not a setting; {suggest(key, [*known, *COMMAND_KEYS])}"
            )
    readers: dict[str, Callable[[object], Any]] = {
        "url_prefix": partial(_match_prefix, "/api/v2"),
        "policy_dir": _read_path,
        "policy_digest": partial(_match, _DIGEST, "write `sha256:` and 64 hex digits"),
        "require_matrix": _read_flag,
        "features": _read_features,
        "id_type": partial(_choose, IdType),
        "groups": partial(_match, _TEXT, "write a text such as `public.team.id`"),
        "expose_policy_digest": _read_flag,
        "limit_rule": partial(_choose, LimitRule),
        "time_zone": _read_time_zone,
        "close_after_days": _read_days,
        "unpriced": partial(_choose, Unpriced),
        "thresholds": _read_thresholds,
    }
    values: dict[str, Any] = {}
    for key, field in known.items():
        is_left_out = field.default is None and given.get(key) in (None, "")
        if key in given and not is_left_out:
            read = readers.get(field.name, partial(_match, _TEXT, "write a text"))
            values[field.name] = _read(key, given[key], read)
    settings = Settings(**values)
    settings.layout  # noqa: B018 - refuses names that can't be
    return settings


def read_url_prefix(key: str, value: object, example: str) -> str:
    """Read a path that routes are under; raise SettingsError, which shows the example."""
    return _read(key, value, partial(_match_prefix, example))


def read_features(key: str, value: object) -> frozenset[str]:
    """Read a set of features, or a text of comma-separated ones; an unknown one is an error."""
    return _read(key, value, _read_features)


def read_flag(key: str, value: object) -> bool:
    """Read a bool, or a text for one."""
    return _read(key, value, _read_flag)


def read_challenge(value: object) -> str:
    """Read the `WWW-Authenticate` of a 401: what a header can hold."""
    return _read("challenge=", value, partial(_match, _HEADER, "write a header such as `Bearer`"))


def _read(key: str, value: object, read: Callable[[object], T]) -> T:
    """Read a value; the reader's ValueError says what to write instead."""
    try:
        return read(value)
    except ValueError as error:
        raise SettingsError(f"`{key}` is `{value!r}`; {error}") from None


def _match(pattern: re.Pattern[str], advice: str, value: object) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(advice)
    return value


def _match_prefix(example: str, value: object) -> str:
    return _match(_URL_PREFIX, f"write a path such as `{example}`", value)


def _choose(words: Iterable[Word], value: object) -> Word:
    for word in words:
        if word == value:
            return word
    raise ValueError(suggest(str(value), words))


def _read_path(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError("write the path of a folder")  # noqa: TRY004 - as of any other value
    return Path(value)


def _read_features(value: object) -> frozenset[str]:
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, set | frozenset | list | tuple):
        raise ValueError("write a set of features")  # noqa: TRY004 - as above
    return frozenset(_choose(KNOWN_FEATURES, name) for name in value)


def _read_thresholds(value: object) -> tuple[int, ...]:
    """Read whole percents, ascending, from a text or from a list of numbers."""
    parts = value
    if isinstance(value, str):
        parts = value.split(",") if value.strip() else []
    message = "write percents from 1 to 100, ascending, such as `75,90,100`"
    if not isinstance(parts, list | tuple) or any(type(part) not in {int, str} for part in parts):
        raise ValueError(message)
    texts = [str(part).strip() for part in parts]
    found = tuple(int(text) for text in texts if _PERCENT.fullmatch(text))
    if len(found) != len(texts) or list(found) != sorted({*found}):
        raise ValueError(message)
    return found


def _read_time_zone(value: object) -> str:
    """Read an IANA name: PostgreSQL would take any other text for a zone of its own making.

    Those without a slash but for UTC are refused: CET, EET, MET and WET are summer-less
    abbreviations to it. So are paths to a zone's file, such as `posix/Asia/Tokyo`.
    """
    if value != "UTC" and ("/" not in str(value) or str(value) not in available_timezones()):
        message = "it is not a time zone known here; write an IANA name such as `Europe/Berlin`"
        raise ValueError(message)
    return str(value)


def _read_days(value: object) -> int:
    if not str(value).isdecimal() or not MIN_CLOSE_AFTER_DAYS <= int(str(value)) <= MAX_DAYS:
        raise ValueError(f"write a number of days from {MIN_CLOSE_AFTER_DAYS} to {MAX_DAYS}")
    return int(str(value))


def _read_flag(value: object) -> bool:
    words = {"1": True, "true": True, "0": False, "false": False, "": False}
    if not isinstance(value, bool | str) or str(value).lower() not in words:
        raise ValueError("write `true` or `false`")
    return words[str(value).lower()]
