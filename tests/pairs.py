"""Two databases, and the command on both: an organization in each."""

from __future__ import annotations

import json
from uuid import uuid4

import sqlalchemy as sa
from tests.support import TABLES

from govbudget.db.connection import normalize_url, open_engine
from govbudget.new_ids import find_slot

LOW, HIGH = "0-2047", "2048-4095"
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
PRICE = {
    "provider": "acme",
    "model": "one",
    "input_price": 1_000_000,
    "output_price": 2,
    "cache_read_price": None,
    "cache_write_price": None,
}


def make_organization(slots):
    """An id of an organization whose slot is in the range."""
    first, last = map(int, slots.split("-"))
    while True:
        found = uuid4()
        if first <= find_slot(found) <= last:
            return found


class Pair:
    """Two databases, and a directory file of an organization in each: `low` and `high`."""

    def __init__(self, run, urls):
        self.run, self.urls = run, urls
        self.engines = {s: open_engine(normalize_url(url)) for s, url in urls.items()}
        self.low, self.high = make_organization(LOW), make_organization(HIGH)
        self.groups = {self.low: uuid4(), self.high: uuid4()}
        self.owner, self.member = uuid4(), uuid4()
        both = (self.low, self.high)
        self.file = {
            "organizations": [{"id": str(one), "name": f"of {one}"} for one in both],
            "users": [
                {"id": str(self.owner), "name": "Olga"},
                {"id": str(self.member), "name": "Max"},
            ],
            "groups": [
                {"id": str(group), "organization_id": str(one), "name": "a group"}
                for one, group in self.groups.items()
            ],
            "organization_members": [
                {"organization_id": str(one), "user_id": str(self.member)} for one in both
            ],
            "group_members": [
                {"group_id": str(group), "user_id": str(self.member)}
                for group in self.groups.values()
            ],
            "roles": [
                {"user_id": str(self.owner), "role": "owner", "organization_id": None},
                *(
                    {"user_id": str(self.member), "role": "org-admin", "organization_id": str(one)}
                    for one in both
                ),
            ],
        }

    def __call__(self, *arguments, urls=None, **options):
        return self.run(*arguments, database_urls=json.dumps(urls or self.urls), **options)

    def load(self, **options):
        return self("directory", "load", "-", stdin=json.dumps(self.file).encode(), **options)

    def count(self, table, *where):
        """How many rows each database has."""
        statement = sa.select(sa.func.count()).select_from(getattr(TABLES, table)).where(*where)
        found = []
        for engine in self.engines.values():
            with engine.connect() as connection:
                found.append(connection.scalar(statement))
        return found

    def lock_out(self, slots):
        """The URLs, with the database of these slots away."""
        return {**self.urls, slots: NOWHERE}
