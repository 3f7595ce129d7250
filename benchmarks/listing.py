"""A page of an organization's budgets, at 100, 10,000 and 100,000 groups."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks.database import GROUPS_OF_MEMBER, fill_database, make_database
from benchmarks.handwritten import make_govbudget_app
from benchmarks.measure import Row, Spread, measure_alone, measure_pairs, say
from benchmarks.wsgi import Wsgi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.measure import Effort

SIZES = {"full": (100, 10_000, 100_000), "quick": (100, 1000)}
USERS = 1000
PAGE = 50
MILLISECONDS = 1000
AT_MOST = 1.5


def measure_listing(effort: Effort, server: sa.URL) -> Iterator[Row]:
    """First page for an owner, a page in the middle, and all that a member of a few groups sees."""
    pages: dict[str, list[Wsgi]] = {}
    with ExitStack() as stack:
        for groups in SIZES[effort.name]:
            say(f"listing: filling {groups:,} groups")
            url = stack.enter_context(make_database(server))
            world = fill_database(url, groups=groups, users=USERS)
            engine = sa.create_engine(url)
            stack.callback(engine.dispose)
            app = make_govbudget_app(engine)
            path = f"/api/v2/organizations/{world.organization}/ai/budgets"
            first = Wsgi(app, "GET", path, world.owner, query=f"page_size={PAGE}")
            page = json.loads(first())
            assert len(page["budgets"]) == PAGE
            token = f"page_size={PAGE}&page_token={page['next_page_token']}"
            few = Wsgi(app, "GET", path, world.member, query=f"page_size={PAGE}")
            # The member of a few groups is a member of Everyone too.
            assert len(json.loads(few())["budgets"]) == GROUPS_OF_MEMBER + 1
            for what, request in (
                ("owner, first page", first),
                ("owner, second page", Wsgi(app, "GET", path, world.owner, query=token)),
                (f"member of {GROUPS_OF_MEMBER} groups", few),
            ):
                pages.setdefault(what, []).append(request)
        for what, requests in pages.items():
            yield from _compare(what, requests, effort)


def _compare(what: str, requests: list[Wsgi], effort: Effort) -> Iterator[Row]:
    smallest, *larger = requests
    few, *more = SIZES[effort.name]
    alone = [s * MILLISECONDS for s in measure_alone(smallest, effort)]
    yield Row("listing", what, f"{few:,} groups", Spread.of(alone), "ms")
    for groups, request in zip(more, larger, strict=True):
        say(f"listing: {what}, {groups:,} groups")
        pairs = measure_pairs(smallest, request, effort)
        ratio = pairs.theirs_to_ours
        yield Row(
            "listing", what, f"{groups:,} groups",
            Spread.of([s * MILLISECONDS for s in pairs.theirs]), "ms", ratio,
            f"it / {few:,} groups", f"<= {AT_MOST}", ratio.median <= AT_MOST,
        )  # fmt: skip
