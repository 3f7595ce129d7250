"""Which databases `serve` and the commands work on: the URLs that the environment names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

import sqlalchemy as sa

from govbudget.db.connection import DATABASE_URL, normalize_url
from govbudget.db.databases import Databases
from govbudget.errors import SettingsError
from govbudget.new_ids import SLOTS

DATABASE_URLS = "GOVBUDGET_DATABASE_URLS"
ALL_SLOTS = f"0-{SLOTS - 1}"
_RANGES = re.compile(r"[0-9, -]{1,20000}")
_EXAMPLE = '{"0-2047": "postgresql://user@one/db", "2048-4095": "postgresql://user@two/db"}'


def read_urls(environment: Mapping[str, str]) -> dict[str, sa.URL]:
    """Read the URLs of the databases by their slots: what `Databases` takes, with engines.

    Raises SettingsError, which shows nothing that may be a part of a password: none is named, or
    both by one URL and by several; a text is wrong; one database is there twice.
    """
    one, several = environment.get(DATABASE_URL), environment.get(DATABASE_URLS)
    if one and several:
        raise SettingsError(f"{DATABASE_URL} and {DATABASE_URLS} are both set; unset one of them")
    if not one and not several:
        raise SettingsError(
            f"no database: set {DATABASE_URL}, for example postgresql://user@host/database; "
            "`govbudget serve --embedded DIR` runs one for trying"
        )
    if one:
        return {ALL_SLOTS: normalize_url(one)}
    urls = _read_urls(several or "")
    try:
        Databases(cast("dict[str, Any]", urls))  # which refuses slots
    except SettingsError as error:
        raise SettingsError(f"{DATABASE_URLS}: {error.detail}") from None
    return urls


def _read_urls(text: str) -> dict[str, sa.URL]:
    """Read the JSON object from ranges of slots to URLs."""
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)  # which keeps a key that is there twice
    except (ValueError, RecursionError):
        pairs = None
    # Who mixes the two sides up has written a password where a range belongs: it is not shown.
    if not isinstance(pairs, tuple) or not all(
        _RANGES.fullmatch(slots) and isinstance(url, str) for slots, url in pairs
    ):
        message = f"{DATABASE_URLS} is not a JSON object from ranges of slots to URLs"
        raise SettingsError(f"{message}; write {_EXAMPLE}")
    urls: dict[str, sa.URL] = {}
    for slots, text_of_url in pairs:
        found = normalize_url(text_of_url, f"{DATABASE_URLS} `{slots}`")
        for other, known in urls.items():
            if other == slots:
                raise SettingsError(f"{DATABASE_URLS} has `{slots}` twice; take one of them out")
            if _identify(known) == _identify(found):
                raise SettingsError(
                    f"{DATABASE_URLS} has a database twice, for `{other}` and for `{slots}`; write "
                    f"`{other},{slots}`"
                )
        urls[slots] = found
    return urls


def _identify(url: sa.URL) -> tuple[object, ...]:
    """Give what is equal of two URLs of one database, as far as they say so."""
    host = str(url.query.get("hostaddr", url.query.get("host", ""))).lower()
    return host, url.query.get("port", "5432"), url.query.get("service"), url.database
