"""A whole request through WSGI, beside hand-written views and an application of the usual kind."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks.database import fill_database, make_database
from benchmarks.handwritten import (
    capture_statements,
    make_core_app,
    make_govbudget_app,
    make_psycopg_app,
    make_usual_app,
    put_body,
)
from benchmarks.measure import Row, Spread, measure_alone, measure_pairs, say
from benchmarks.policies import write_policy
from benchmarks.wsgi import Wsgi, budget_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flask import Flask

    from benchmarks.database import World
    from benchmarks.measure import Effort

GROUPS, USERS = 100, 1000
MICROSECONDS = 1e6
OURS = "govbudget"


def measure_requests(effort: Effort, server: sa.URL) -> Iterator[Row]:
    """GET, PUT and a refused GET: govbudget's time over the other's, in turn."""
    with ExitStack() as stack:
        url = stack.enter_context(make_database(server))
        world = fill_database(url, groups=GROUPS, users=USERS)
        plain, autocommit = (
            sa.create_engine(url),
            sa.create_engine(url, isolation_level="AUTOCOMMIT"),
        )
        for engine in (plain, autocommit):
            stack.callback(engine.dispose)
        stack.enter_context(_log_into_nothing())
        sent = capture_statements(url, world)
        app = make_govbudget_app(autocommit)
        others = {
            "Core, same statements": make_core_app(autocommit, sent),
            "psycopg, same statements": make_psycopg_app(url, sent),
            "Core, the budget's alone": make_core_app(autocommit, sent, with_directory=False),
            "ORM and pycasbin": make_usual_app(plain),
            "govbudget, engine not in AUTOCOMMIT": make_govbudget_app(plain),
        }
        for method in ("GET", "PUT"):
            yield from _measure_allowed(effort, world, method, app, others)
        yield from _measure_refused(effort, world, app, autocommit)
        yield from _measure_log(effort, world, app)


def _measure_allowed(
    effort: Effort, world: World, method: str, app: Flask, others: dict[str, Flask]
) -> Iterator[Row]:
    body = put_body() if method == "PUT" else b""
    path = budget_path(world.group)
    ours = Wsgi(app, method, path, world.admin, body=body)
    yield Row("requests", method, OURS, _spread(measure_alone(ours, effort)), "us")
    for name, other in others.items():
        say(f"requests: {method}, {name}")
        theirs = Wsgi(other, method, path, world.admin, body=body)
        expected, answer = json.loads(ours()), json.loads(theirs())
        answer["updated_at"] = expected["updated_at"]
        assert answer == expected, f"{name} answers {answer}, govbudget {expected}"
        pairs = measure_pairs(ours, theirs, effort)
        ratio = pairs.ours_to_theirs
        bound = method == "GET" and name == "Core, same statements"
        yield Row(
            "requests", method, name, _spread(pairs.theirs), "us", ratio, "govbudget / it",
            "<= 1.2" if bound else "", ratio.median <= 1.2 if bound else None,  # noqa: PLR2004
        )  # fmt: skip


def _measure_refused(effort: Effort, world: World, app: Flask, engine: sa.Engine) -> Iterator[Row]:
    path = budget_path(world.group)
    allowed = Wsgi(app, "GET", path, world.member)
    refused = Wsgi(app, "GET", path, world.stranger, status=404)
    say("requests: refused")
    pairs = measure_pairs(refused, allowed, effort)
    ratio = pairs.ours_to_theirs
    yield Row(
        "requests", "GET, refused with 404", OURS, _spread(pairs.ours), "us", ratio,
        "refused / allowed", "< 1", ratio.median < 1,
    )  # fmt: skip
    forbidden = Wsgi(app, "PUT", path, world.member, body=put_body(), status=403)
    put = Wsgi(app, "PUT", path, world.admin, body=put_body())
    pairs = measure_pairs(forbidden, put, effort)
    ratio = pairs.ours_to_theirs
    yield Row(
        "requests", "PUT, refused with 403", OURS, _spread(pairs.ours), "us", ratio,
        "refused / allowed", "< 1", ratio.median < 1,
    )  # fmt: skip
    with write_policy(1000, 10) as folder:
        long = make_govbudget_app(engine, policy=folder)
        refused_by_long = Wsgi(long, "GET", path, world.stranger, status=404)
        pairs = measure_pairs(refused, refused_by_long, effort)
    ratio = pairs.theirs_to_ours
    yield Row(
        "requests", "GET, refused with 404", "govbudget, 1,000 lines", _spread(pairs.theirs), "us",
        ratio, "1,000 / 9 lines", "about 1", ratio.median <= 1.05,  # noqa: PLR2004
    )  # fmt: skip


def _measure_log(effort: Effort, world: World, app: Flask) -> Iterator[Row]:
    """What the line of the request log costs, which every other row goes without."""
    get = Wsgi(app, "GET", budget_path(world.group), world.admin)
    logger = logging.getLogger("govbudget.request")

    def logged() -> None:
        logger.setLevel(logging.INFO)
        get()
        logger.setLevel(logging.WARNING)

    pairs = measure_pairs(get, logged, effort)
    yield Row(
        "requests", "GET", "govbudget, each request logged", _spread(pairs.theirs), "us",
        pairs.theirs_to_ours, "logged / not",
    )  # fmt: skip


@contextmanager
def _log_into_nothing() -> Iterator[None]:
    """Let denials be logged, as they are in production, to where nobody reads."""
    logger = logging.getLogger("govbudget")
    before = logger.propagate
    with open("/dev/null", "w", encoding="ascii") as nothing:  # noqa: PTH123 - a device
        handler = logging.StreamHandler(nothing)
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = before


def _spread(seconds: Sequence[float]) -> Spread:
    return Spread.of([s * MICROSECONDS for s in seconds])
