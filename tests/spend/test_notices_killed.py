"""Whoever is killed, wherever a connection is cut: each crossing is noticed, and once."""

from __future__ import annotations

from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.spend.test_notices import Watcher
from tests.support import TABLES, make_gov

from govbudget.db.retries import explain_outage
from govbudget.identity import OPERATOR
from govbudget.spend.notices import Notices
from govbudget.spend.tokens import Tokens

PERCENTS = (*range(1, 101),)


@pytest.fixture(scope="module")
def database_url(make_database, template):
    """Its own: a place adds a check to a table."""
    return make_database(template=template)


def list_crossings(spender):
    """Give percent and limit of each notice that is stored."""
    notices = TABLES.ai_notices.c
    query = sa.select(notices.threshold, notices.spend_limit_micros, notices.spent_picos).where(
        notices.organization_id == spender.world.a
    )
    with spender.world.engine.connect() as connection:
        return sorted(tuple(row) for row in connection.execute(query))


@pytest.mark.long
def test_each_crossing_is_noticed_once_while_gateways_are_killed_at_random(engine, make_place):
    """By the call itself: a sweep afterwards finds nothing that was lost."""
    place = make_place(600)
    place.run(8, kills=30, thresholds=PERCENTS)
    spent = place.assert_whole()
    found = list_crossings(place.spender)
    reached = [percent for percent in PERCENTS if spent >= place.limit_micros * 10**4 * percent]
    assert len(reached) > 10
    assert [percent for percent, *_ in found] == reached
    for percent, limit, then in found:
        assert limit == place.limit_micros
        assert limit * 10**4 * percent <= then <= spent
    gov = make_gov(engine=engine, thresholds=PERCENTS)
    with gov.unit(OPERATOR) as unit:
        assert Notices.sweep(unit.authorize("create", ledger=True), place.world.a) == []
    assert list_crossings(place.spender) == found


class Cut:
    """Cuts the connection of an engine before, or after, its nth statement from now."""

    def __init__(self, engine, number, moment):
        self.engine, self.left, self.moment = engine, number, moment

    def __enter__(self):
        sa.event.listen(self.engine, f"{self.moment}_cursor_execute", self.cut)

    def __exit__(self, *_):
        sa.event.remove(self.engine, f"{self.moment}_cursor_execute", self.cut)

    def cut(self, connection, *_):
        self.left -= 1
        if self.left == 0:
            pid = connection.connection.driver_connection.info.backend_pid
            with self.engine.connect() as other:
                other.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 5000)")
            if self.moment == "after":  # it is done, and its answer is lost
                connection.invalidate()
                raise ConnectionResetError


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("way", ["record", "settle", "fallback"])
def test_a_connection_that_is_cut_at_a_call_loses_and_doubles_nothing(world, way, number, moment):
    """Its first statement loads the caller, its second is the call; then the call is sent again."""
    watcher = Watcher(world)
    watcher.limit(world.a1, 100)
    event, tokens = uuid4().hex, Tokens(input=80)
    what = ("record", event, watcher.call, tokens)
    options = {"provider": "acme", "model": watcher.model} if way == "fallback" else {}
    if way != "record":
        what = ("settle", watcher("hold", watcher.call, tokens).id, event, tokens)
    with Cut(world.engine, number, moment):
        try:
            watcher(*what, **options)
        except (sa.exc.DBAPIError, ConnectionResetError) as error:
            was_lost = isinstance(error, ConnectionResetError) or explain_outage(error)
    assert was_lost
    is_done = (number, moment) == (2, "after")
    assert watcher.crossed() == ([(75, 100)] if is_done else [])
    watcher(*what, **options)
    assert watcher.crossed() == [(75, 100)]
    assert watcher.sweep() == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_sweep_that_is_cut_is_made_whole_by_the_next(world, number, moment):
    """Its first statement loads the ledger, the others sweep a page each."""
    watcher = Watcher(world)
    watcher.limit(world.a, 100)
    people = [world.member, world.org_admin, world.joined]
    for person in people:
        watcher.call = type(watcher.call)(world.a, person, "acme", watcher.model)
        watcher.use(60)
    watcher.set_limit(world.a, 80)
    with (
        Cut(world.engine, number, moment),
        pytest.raises((sa.exc.DBAPIError, ConnectionResetError)),
    ):
        watcher.sweep(page_size=1)
    before = watcher.list()
    found = watcher.sweep(page_size=1)
    assert sorted(one.user_id for one in [*before, *found]) == sorted(people)
    assert watcher.crossed() == [(75, 80)] * 3
    assert watcher.sweep() == []
