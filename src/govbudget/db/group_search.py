"""Which organization a group is of, where nothing but several databases say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from govbudget.db.retries import connect
from govbudget.directory.protocol import Directory
from govbudget.identity import Id

KEPT = 100_000


def search_groups(
    engines: Sequence[Engine | Connection],
    directory: Directory,
    may_ask: Callable[[Connection], bool] = lambda _: True,
) -> Callable[[Id], Id | None]:
    """Give a function that asks the databases for the organization of a group; None: it has none.

    What it found is kept, `KEPT` groups at most: a group never changes its organization. Databases
    that failed last are asked last. It raises what one of them failed with where no other one has
    the group. The first one is asked `may_ask`, too: for whoever is unknown no other one is asked.
    """
    failed: set[Engine | Connection] = set()

    @lru_cache(maxsize=KEPT)
    def find(group_id: Id) -> Id:
        outage: SQLAlchemyError | None = None
        for engine in sorted(engines, key=failed.__contains__):
            try:
                with connect(engine) as connection:
                    if not may_ask(connection):
                        raise LookupError
                    group = directory.load_group(connection, None, group_id)[1]
            except SQLAlchemyError as error:
                failed.add(engine)
                outage = error
                continue
            failed.discard(engine)
            if group is not None:
                return group.organization_id
        raise outage or LookupError  # neither is kept

    def find_organization(group_id: Id) -> Id | None:
        try:
            return find(group_id)
        except LookupError:
            return None

    return find_organization
