"""Notices: usage reports the thresholds that it crosses, a sweep those that another limit does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.spend.test_limits import join, override
from tests.spend.test_store import ONE, Spender
from tests.support import TABLES, Client, count_statements, make_app

from govbudget.identity import OPERATOR
from govbudget.spend.notices import Notices
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens
from govbudget.text import write_time

DOLLAR = 10**12


class Watcher(Spender):
    """A gateway whose crossings are read as the organization's owner reads them."""

    def list(self, person=None, **options):
        with self.gov.unit(person or self.world.owner) as unit:
            grant = unit.authorize("read", organization=self.world.a)
            return Notices.list(grant, **{"limit": 500, **options})

    def crossed(self):
        """Give percent and dollars of the limit of each notice."""
        return sorted((one.threshold, one.limit_micros // 10**6) for one in self.list())

    def sweep(self, organization=None, **options):
        with self.gov.unit(OPERATOR) as unit:
            grant = unit.authorize("create", ledger=True)
            return Notices.sweep(grant, organization or self.world.a, **options)

    def use(self, tokens, way="record"):
        """Spend some dollars."""
        event = uuid4().hex
        if way == "record":
            return self("record", event, self.call, Tokens(input=tokens))[0]
        hold = self("hold", self.call, Tokens(input=tokens))
        options = {"model": self.model} if way == "fallback" else {}
        return self("settle", hold.id, event, Tokens(input=tokens), **options)

    def set_limit(self, group, dollars):
        row = sa.update(TABLES.group_ai_budgets).where(TABLES.group_ai_budgets.c.group_id == group)
        with self.world.engine.begin() as connection:
            connection.execute(row.values(spend_limit_micros=dollars * 10**6))


@pytest.fixture
def watcher(world, clock):
    watcher = Watcher(world, clock=clock)
    watcher.limit(world.a1, 100)
    return watcher


@pytest.mark.parametrize("way", ["record", "settle", "fallback"])
def test_usage_reports_each_threshold_once_when_it_is_reached(watcher, way):
    for tokens, expected in (
        (74, []),
        (1, [75]),
        (14, [75]),
        (1, [75, 90]),
        (9, [75, 90]),
        (1, [75, 90, 100]),
    ):
        watcher.use(tokens, way)
        assert [threshold for threshold, _ in watcher.crossed()] == expected
    watcher("record", "over", watcher.call, Tokens(input=50))
    assert len(watcher.crossed()) == 3
    assert watcher.sweep() == []


def test_one_call_may_cross_all_of_them_and_a_notice_says_whose_limit_it_was(world, watcher, clock):
    watcher.use(230)
    found = watcher.list()
    assert sorted(one.threshold for one in found) == [75, 90, 100]
    for one in found:
        assert (one.organization_id, one.user_id, one.group_id) == (world.a, world.member, world.a1)
        assert (one.limit_micros, one.limit_source) == (100 * 10**6, "group")
        assert (one.spent_picos, one.spent_micros) == (230 * DOLLAR, 230 * 10**6)
        assert one.created_at == clock.now
        assert one.month == f"{clock.now:%Y-%m}"


def test_what_is_held_counts_for_nothing(watcher):
    hold = watcher("hold", watcher.call, Tokens(input=100))
    assert watcher.sweep() == watcher.list() == []
    watcher("settle", hold.id, "e1", Tokens(input=10))
    assert watcher.list() == []


def test_a_known_event_reports_nothing_more(watcher):
    for _ in range(2):
        watcher("record", "e1", watcher.call, Tokens(input=80))
    assert watcher.crossed() == [(75, 100)]


def test_a_correction_that_raises_reports_and_one_that_lowers_does_not(world, watcher):
    def correct(event, corrects, tokens):
        with watcher.gov.unit(world.owner) as unit:
            grant = unit.authorize("update", ledger=True)
            asked = (event, world.a, corrects, Tokens(input=tokens))
            Spend.correct(grant, *asked, reason="r")

    watcher("record", "e1", watcher.call, Tokens(input=70))
    correct("c1", "e1", 92)
    assert watcher.crossed() == [(75, 100), (90, 100)]
    correct("c2", "c1", 80)
    assert watcher.crossed() == [(75, 100), (90, 100)]
    correct("c3", "c2", 95)  # crossed again: the notice is there
    assert watcher.crossed() == [(75, 100), (90, 100)]


@pytest.mark.parametrize("dollars", [None, 0], ids=["none", "0"])
def test_without_a_limit_and_with_one_of_0_there_is_no_threshold(world, dollars):
    watcher = Watcher(world)
    if dollars is not None:
        watcher.limit(world.a1, dollars)
    watcher("record", "e1", watcher.call, ONE)
    assert watcher.sweep() == watcher.list() == []


@pytest.mark.parametrize("thresholds", [(), (1,), (33, 66), (1, 2, 100)], ids=str)
def test_the_setting_says_which_thresholds_there_are(world, thresholds):
    watcher = Watcher(world, thresholds=thresholds)
    watcher.limit(world.a1, 100)
    watcher.use(100)
    assert [threshold for threshold, _ in watcher.crossed()] == [*thresholds]
    assert watcher.sweep() == []


def test_the_limit_is_the_one_that_holds_at_the_settlement_not_at_the_hold(world, watcher):
    hold = watcher("hold", watcher.call, Tokens(input=40))
    watcher.set_limit(world.a1, 50)
    watcher("settle", hold.id, "e1", Tokens(input=40))
    assert watcher.crossed() == [(75, 50)]
    override(world, world.a1, 45)
    watcher("record", "e2", watcher.call, ONE)  # 41 of 45 is over 90 %, 40 was not
    assert watcher.crossed() == [(75, 50), (90, 45)]


def test_a_sweep_finds_what_a_lower_limit_crosses_and_once_more_nothing(world, watcher):
    watcher.use(60)
    watcher.set_limit(world.a1, 80)
    found = watcher.sweep()
    assert [(one.threshold, one.limit_micros) for one in found] == [(75, 80 * 10**6)]
    assert watcher.list() == found
    assert watcher.sweep() == []
    watcher.use(20)
    assert watcher.crossed() == [(75, 80), (90, 80), (100, 80)]


def test_a_sweep_finds_what_another_membership_crosses(world, watcher):
    watcher.use(60)
    join(world, world.a2)
    watcher.limit(world.a2, 300)
    assert watcher.sweep() == []
    members = TABLES.group_members
    with world.engine.begin() as connection:
        connection.execute(sa.delete(members).where(members.c.group_id == world.a2))
    watcher.set_limit(world.a1, 65)
    assert [one.threshold for one in watcher.sweep()] == [75, 90]


def test_a_sweep_finds_what_an_override_crosses_by_ending(world, watcher, clock):
    override(world, world.a1, 1000)
    end = clock.now + timedelta(hours=1)
    overrides = TABLES.member_ai_overrides
    ends = sa.update(overrides).where(overrides.c.organization_id == world.a)
    with world.engine.begin() as connection:
        connection.execute(ends.values(expires_at=end))
    watcher.use(95)
    assert watcher.sweep() == []
    clock.now = end
    assert {(one.threshold, one.limit_source) for one in watcher.sweep()} == {
        (75, "group"),
        (90, "group"),
    }


def test_a_sweep_is_about_this_month(world, watcher, clock):
    watcher.use(60)
    clock.now = datetime(2999, 1, 1, tzinfo=UTC)
    watcher.set_limit(world.a1, 50)
    assert watcher.sweep() == []


def test_a_sweep_goes_through_all_counters_a_page_at_a_time_each_statement_bounded(world, watcher):
    people = [world.member, world.org_admin, world.joined, world.user_admin]
    watcher.limit(world.a, 200)
    for person in people:
        watcher.call = type(watcher.call)(world.a, person, "acme", watcher.model)
        watcher.use(60)
    watcher.set_limit(world.a1, 10)
    watcher.set_limit(world.a, 80)
    with count_statements(world.engine) as sent:
        found = watcher.sweep(page_size=3)
    pages = [text for text in sent if "ai_spend_counters" in text]
    assert len(pages) == 3  # the last of them finds no counter
    assert {one.user_id for one in found} == set(people)
    assert {one.threshold for one in found} == {75}


def test_the_newest_are_listed_first_and_each_sees_their_own(world, watcher):
    watcher.use(75)
    watcher.use(20)
    watcher.limit(world.a, 200)
    watcher.call = type(watcher.call)(world.a, world.joined, "acme", watcher.model)
    watcher.use(190)
    everything = watcher.list()
    ids = [one.id for one in everything]
    assert ids == sorted(ids, reverse=True)
    assert {one.user_id for one in everything[-2:]} == {world.member}
    for person in (world.org_admin, world.user_admin):
        assert watcher.list(person) == everything
    for person in (world.member, world.joined):
        mine = [one for one in everything if one.user_id == person]
        assert watcher.list(person) == mine
        assert mine
    first = watcher.list(limit=2)
    assert first + watcher.list(limit=9, after=first[-1].id) == everything


def test_over_http_a_page_follows_a_page_and_says_what_was_crossed(world, watcher):
    send = Client(make_app(world.engine))
    watcher.use(95)
    path = f"/organizations/{world.a}/ai/notices"
    first = send("GET", path, world.member, query_string={"page_size": 1}).json
    rest = send("GET", path, world.member, query_string={"page_token": first["next_page_token"]})
    shown = first["notices"] + rest.json["notices"]
    assert rest.json["next_page_token"] is None
    newest, oldest = watcher.list()
    assert [one["id"] for one in shown] == [str(newest.id), str(oldest.id)]
    assert {one.pop("threshold") for one in shown} == {75, 90}
    assert shown[0].pop("id") != shown[1].pop("id")
    assert (
        shown[0]
        == shown[1]
        == {
            "created_at": write_time(newest.created_at),
            "organization_id": str(world.a),
            "user_id": str(world.member),
            "month": newest.month,
            "spend_limit_micros": 100 * 10**6,
            "limit_source": "group",
            "group_id": str(world.a1),
            "spent_micros": 95 * 10**6,
        }
    )
    for token in (str(newest.id), "x"):
        assert (
            send("GET", path, world.member, query_string={"page_token": token}).status_code == 400
        )
    assert send("GET", path, world.joined).json["notices"] == []
    assert send("GET", path, world.outsider).status_code == 404


def test_a_sweep_finds_the_next_threshold_of_a_limit_that_has_a_notice(world, watcher):
    watcher.use(80)
    override(world, world.a1, 1000)
    watcher.use(15)  # of 1,000, and so it crosses nothing
    overrides = TABLES.member_ai_overrides
    with world.engine.begin() as connection:
        connection.execute(sa.delete(overrides).where(overrides.c.organization_id == world.a))
    assert [one.threshold for one in watcher.sweep()] == [90]
    assert watcher.crossed() == [(75, 100), (90, 100)]


def test_the_commands_say_that_an_organization_is_not_known(run, url):
    """A mistyped id does not look like an organization whose members are within their limits."""
    unknown = uuid4()
    for arguments in (("list", unknown), ("sweep", "--organization", unknown)):
        done = run("notices", *arguments, database_url=url)
        assert (done.status, done.sentence) == (1, f"no organization `{unknown}` is known here")
