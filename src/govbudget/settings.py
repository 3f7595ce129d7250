"""The settings: `GOVBUDGET_*` keys read once into one frozen object."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from govbudget.authz.reader import suggest
from govbudget.errors import SettingsError
from govbudget.identity import ObjectType
from govbudget.ids import IdType
from govbudget.spend.usage import LimitRule, SpendRules, Unpriced
from govbudget.tables import OWN_GROUPS, Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Word = TypeVar("Word", bound=StrEnum)

PREFIX = "GOVBUDGET_"
AIBRIDGE = "aibridge"
BUDGET_OBJECTS = (ObjectType.GROUP, ObjectType.GROUP_AI_BUDGET)
KNOWN_FEATURES = frozenset({AIBRIDGE})
# Read by the command and the tests, not by the extension.
COMMAND_KEYS = {
    "GOVBUDGET_DATABASE_URL": "the database of the command and of `serve`",
    "GOVBUDGET_TEST_DATABASE_URL": "the database of the tests; without it they start one",
}

_URL_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set by a `GOVBUDGET_*` key; each field's key is its name in capitals.

    - `url_prefix`: the path that the endpoints are under.
    - `policy_dir`: the policy folder, an absolute path; none: the packaged policy.
    - `policy_digest`: the `sha256:...` demanded of `model.conf` and `policy.csv`.
    - `features`: the features that are on, comma-separated; empty: every call is 403.
    - `id_type`: the type of all ids: `uuid`, `bigint` or `text`.
    - `schema`: the PostgreSQL schema of govbudget's tables.
    - `groups`: where groups are: `own` tables, the host's column of their ids as
      `schema.table.column`, or `none`: no foreign key.
    - `budget_object`: what the policy is asked about a budget: `group` or `group_ai_budget`.
    - `expose_policy_digest`: send the header `Govbudget-Policy-Digest` with each answer, to debug.
    - `limit_rule`: of several groups' budgets, the `highest` or the `lowest` binds a member.
    - `time_zone`: the IANA name of the zone whose calendar months are the periods of spend.
    - `unpriced`: `deny` or `allow` calls whose cost is not known to a member who has a limit.
    """

    url_prefix: str = "/api/v2"
    policy_dir: Path | None = None
    policy_digest: str | None = None
    features: frozenset[str] = KNOWN_FEATURES
    id_type: IdType = IdType.UUID
    schema: str = "govbudget"
    groups: str = OWN_GROUPS
    budget_object: ObjectType = ObjectType.GROUP
    expose_policy_digest: bool = False
    limit_rule: LimitRule = LimitRule.HIGHEST
    time_zone: str = "UTC"
    unpriced: Unpriced = Unpriced.DENY

    @property
    def layout(self) -> Layout:
        """The layout of the tables."""
        return Layout(self.id_type, self.schema, self.groups)

    @property
    def spend_rules(self) -> SpendRules:
        """How spend is governed."""
        return SpendRules(self.limit_rule, self.time_zone, self.unpriced)


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Read the `GOVBUDGET_*` keys of a Flask configuration or of the environment.

    Raises SettingsError for an unknown key or a value that can't be meant.
    """
    known = {f"{PREFIX}{field.name.upper()}": field.name for field in fields(Settings)}
    given = {key: value for key, value in config.items() if key.startswith(PREFIX)}
    for key in given:
        if key not in known and key not in COMMAND_KEYS:
            raise SettingsError(f"`{key}` is no setting; {suggest(key, known)}")
    readers: dict[str, Callable[[str, object], Any]] = {
        "url_prefix": _read_url_prefix,
        "policy_dir": _read_policy_dir,
        "policy_digest": _read_digest,
        "features": read_features,
        "id_type": partial(_read_word, IdType),
        "budget_object": _read_budget_object,
        "expose_policy_digest": _read_flag,
        "limit_rule": partial(_read_word, LimitRule),
        "time_zone": _read_time_zone,
        "unpriced": partial(_read_word, Unpriced),
    }
    values: dict[str, Any] = {
        name: readers.get(name, _read_text)(key, given[key])
        for key, name in known.items()
        if key in given
    }
    settings = Settings(**values)
    settings.layout  # noqa: B018 - refuses names that can't be
    return settings


def _read_text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise SettingsError(f"`{key}` is `{value!r}`; write a text")
    return value


def _read_url_prefix(key: str, value: object) -> str:
    if not isinstance(value, str) or not _URL_PREFIX.fullmatch(value):
        raise SettingsError(f"`{key}` is `{value!r}`; write a path such as `/api/v2`")
    return value


def _read_policy_dir(key: str, value: object) -> Path | None:
    if value in (None, ""):
        return None
    if not isinstance(value, str | Path):
        raise SettingsError(f"`{key}` is `{value!r}`; write the path of a folder")
    return Path(value)


def _read_digest(key: str, value: object) -> str | None:
    if value in (None, ""):
        return None
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise SettingsError(f"`{key}` is `{value!r}`; write `sha256:` and 64 hex digits")
    return value


def read_features(key: str, value: object) -> frozenset[str]:
    """Read a set of features, or a text of comma-separated ones; an unknown one is an error."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, set | frozenset | list | tuple):
        raise SettingsError(f"`{key}` is `{value!r}`; write a set of features")
    for name in value:
        if not isinstance(name, str) or name not in KNOWN_FEATURES:
            raise SettingsError(f"`{key}` names `{name}`; {suggest(str(name), KNOWN_FEATURES)}")
    return frozenset(value)


def _read_word(words: type[Word], key: str, value: object) -> Word:
    try:
        return words(str(value))
    except ValueError:
        raise SettingsError(f"`{key}` is `{value!r}`; {suggest(str(value), words)}") from None


def _read_time_zone(key: str, value: object) -> str:
    """Read an IANA name: PostgreSQL would take any other text for a zone of its own making.

    Those without a slash but for UTC are refused: CET, EET, MET and WET are summer-less
    abbreviations to it.
    """
    try:
        if value != "UTC":
            ZoneInfo(str(value) if "/" in str(value) else "no such zone")
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise SettingsError(
            f"`{key}` is `{value!r}`, which is no time zone known here; write an IANA name such as "
            "`Europe/Berlin`"
        ) from None
    return str(value)


def _read_budget_object(key: str, value: object) -> ObjectType:
    if value not in BUDGET_OBJECTS:
        raise SettingsError(f"`{key}` is `{value!r}`; {suggest(str(value), BUDGET_OBJECTS)}")
    return ObjectType(str(value))


def _read_flag(key: str, value: object) -> bool:
    words = {"1": True, "true": True, "0": False, "false": False, "": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise SettingsError(f"`{key}` is `{value!r}`; write `true` or `false`")
    return words[value.lower()]
