"""`spend verify` finds whatever was changed behind the ledger's back, and nothing else."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.spend.test_store import ONE, Spender
from tests.support import TABLES, authorize

from govbudget.migrations import upgrade
from govbudget.settings import Unpriced
from govbudget.spend.store import Spend
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import Call
from govbudget.spend.verify import verify_spend


@pytest.fixture
def busy(world):
    """A member with two calls settled, one recorded without a price, one hold open, one free."""
    spender = Spender(world)
    spender.limit(world.a1, 9)
    for event in ("e1", "e2"):
        spender("settle", spender("hold", spender.call, Tokens(input=2)).id, event, ONE)
    spender("record", "e3", Call(world.a, world.member, "acme", "unknown"), ONE)
    spender("release", spender("hold", spender.call, ONE).id)
    spender("hold", spender.call, Tokens(input=3))
    return spender


def verify(world, organization):
    with world.engine.connect() as connection:
        grant = authorize(connection, world.nobody, "create", ledger=True)
        return verify_spend(grant, organization)


def change(world, sql):
    with world.engine.begin() as connection:
        text = sa.text(sql.replace("{s}", "govbudget") + " AND organization_id = :o")
        assert connection.execute(text, {"o": world.a}).rowcount == 1


def test_a_ledger_that_nobody_touched_agrees(busy):
    seen = verify(busy.world, busy.world.a)
    assert seen == (1, 3, [])
    assert verify(busy.world, busy.world.b) == (0, 0, [])


COUNTER, ROLLUP = "UPDATE {s}.ai_spend_counters SET", "UPDATE {s}.ai_spend_rollups SET"
USAGE, HOLD = "UPDATE {s}.ai_usage SET", "UPDATE {s}.ai_holds SET"
UNPRICED = "grain = 'month' AND unpriced_calls = 1"
HOLD_OF_E1 = "SELECT hold_id FROM {s}.ai_usage WHERE event_id = 'e1'"
DOLLAR = 10**12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sql", "sentences"),
    [
        (
            f"{COUNTER} spent_picos = spent_picos - 1 WHERE true",
            [f"has spent {2 * DOLLAR - 1} picos, the ledger {2 * DOLLAR}"],
        ),
        (
            f"{COUNTER} held_picos = 0 WHERE true",
            [f"holds 0 picos, its open holds {3 * DOLLAR}"],
        ),
        (f"{COUNTER} spent_picos = 'NaN' WHERE true", ["has spent NaN picos"]),
        (
            f"{ROLLUP} cost_picos = cost_picos + 1 WHERE cost_picos > 0 AND grain = 'day'",
            [f"of acme, has {2 * DOLLAR + 1} picos of 2 calls (0 unpriced), the"],
        ),
        (f"{ROLLUP} calls = 0 WHERE {UNPRICED}", ["of 0 calls (1 unpriced), the ledger"]),
        (f"{ROLLUP} unpriced_calls = 0 WHERE {UNPRICED}", ["(0 unpriced), the ledger"]),
        (f"{ROLLUP} group_id = NULL WHERE {UNPRICED}", ["group G, model", "group none, model"]),
        (f"{ROLLUP} model = 'n' WHERE {UNPRICED}", ["model n of acme, has", "has 0 picos of 0"]),
        (f"{ROLLUP} provider = 'n' WHERE {UNPRICED}", ["of n, has", "has 0 picos of 0"]),
        (
            "DELETE FROM {s}.ai_spend_rollups WHERE grain = 'month' AND cost_picos > 0",
            [f"has 0 picos of 0 calls (0 unpriced), the ledger {2 * DOLLAR} of 2 (0)"],
        ),
        (
            "DELETE FROM {s}.ai_spend_counters WHERE true",
            [f"has spent 0 picos, the ledger {2 * DOLLAR}", "holds 0 picos"],
        ),
        (
            "DELETE FROM {s}.ai_usage WHERE event_id = 'e1'",
            ["has spent", "the rollup of the day", "the rollup of the month"],
        ),
        (
            f"{USAGE} input_tokens = 3 WHERE event_id = 'e1'",
            [f'event "e1" costs {DOLLAR} picos, its tokens at its prices {3 * DOLLAR}'],
        ),
        (
            f"{USAGE} input_price = NULL WHERE event_id = 'e2'",
            [
                'event "e2" is not of the member',
                f'event "e2" costs {DOLLAR} picos, its tokens at its prices unknown',
                'event "e2" says that none had no price, its tokens and prices say input',
            ],
        ),
        (
            f"{USAGE} input_tokens = 9, output_tokens = 5 WHERE event_id = 'e1'",
            [
                f"costs {DOLLAR} picos, its tokens at its prices {9 * DOLLAR}",
                'event "e1" says that none had no price, its tokens and prices say output',
            ],
        ),
        (
            f"{USAGE} unpriced = NULL WHERE event_id = 'e3'",
            ['event "e3" says that none had no price, its tokens and prices say input'],
        ),
        (f"{USAGE} unpriced = '{{{{input,output}}}}' WHERE event_id = 'e3'", ["input, output had"]),
        (f"{HOLD} group_id = NULL WHERE id IN ({HOLD_OF_E1})", ['event "e1" is not of the member']),
        (f"{HOLD} input_price = 7 WHERE id IN ({HOLD_OF_E1})", ["prices of hold"]),
        (
            f"{USAGE} cost_picos = NULL WHERE event_id = 'e1'",
            ["costs unknown picos", "has spent", "rollup of the day", "rollup of the month"],
        ),
        (
            f"{USAGE} day = (day - interval '2 months')::date WHERE event_id = 'e1'",
            ['event "e1" is of the day', "the rollup of the day", "the rollup of the day"],
        ),
        (
            f"{HOLD} is_open = true WHERE id IN ({HOLD_OF_E1})",
            ["settled hold", "its open holds"],
        ),
        (f"{HOLD} is_open = false WHERE is_open", [f"holds {3 * DOLLAR} picos, its open holds 0"]),
        (f"{HOLD} cost_picos = 1 WHERE is_open", ["its open holds 1"]),
    ],
)
def test_what_was_changed_behind_its_back_is_found_with_both_figures(busy, sql, sentences):
    world = busy.world
    change(world, sql)
    found = [finding.replace(str(world.a1), "G") for finding in verify(world, world.a).findings]
    assert len(found) == len(sentences), found
    for sentence in sentences:
        assert any(sentence in finding for finding in found), found
    start = f"organization {world.a}, user {world.member}: "
    assert all(finding.startswith(start) for finding in found)
    assert verify(world, world.b).findings == [], "nothing of another organization"


def test_usage_booked_before_what_is_known_counted_agrees(world):
    """Its cost is null where it was not wholly known, and where no tokens were of an unknown model.

    No such row is taken for another: a cost that is known is never null.
    """
    spender, free = Spender(world), {"provider": "acme", "model": uuid4().hex, "input_price": 0}
    with world.engine.begin() as connection:
        connection.execute(sa.insert(TABLES.ai_model_prices), free)
    model = Call(world.a, world.member, "acme", free["model"])
    spender("record", "e1", model, Tokens(input=1, output=1))
    spender("record", "e2", Call(world.a, world.member, "acme", "unknown"), Tokens())
    spender("record", "e3", model, ONE)
    for event in ("e1", "e2"):
        change(world, f"{USAGE} cost_picos = NULL WHERE event_id = '{event}'")
    for grain in ("day", "month"):
        change(world, f"{ROLLUP} unpriced_calls = 1 WHERE grain = '{grain}' AND model = 'unknown'")
    assert verify(world, world.a) == (1, 3, [])
    change(world, f"{USAGE} cost_picos = NULL WHERE event_id = 'e3'")
    assert any("costs unknown" in finding for finding in verify(world, world.a).findings)


# As revision 0012 had it.
WITHOUT_MODELS = """
TRUNCATE govbudget.ai_spend_rollups;
DROP TABLE govbudget.ai_closings, govbudget.ai_notices, govbudget.ai_refusals;
ALTER TABLE govbudget.ai_usage DROP COLUMN late_for;
ALTER TABLE govbudget.ai_spend_rollups DROP COLUMN provider, DROP COLUMN model,
  ADD CONSTRAINT ai_spend_rollups_key
    UNIQUE NULLS NOT DISTINCT (organization_id, grain, starts_on, group_id, user_id);
INSERT INTO govbudget.ai_spend_rollups VALUES (:o, 'day', '2026-01-01', NULL, :o, 7, 7, 7);
UPDATE govbudget.alembic_version SET version_num = '0012'
"""


@pytest.mark.slow
def test_an_upgrade_sums_the_ledger_up_anew_by_model(busy):
    """Corrections included; also those of calls that had no price."""
    world = busy.world
    for event, corrects in (("c1", "e1"), ("c2", "c1"), ("c3", "e3")):
        with world.engine.connect() as connection:
            grant = authorize(connection, world.owner, "update", ledger=True)
            Spend.correct(grant, event, world.a, corrects, Tokens(input=5), reason="wrong")
            connection.commit()
    rows = ("grain", "starts_on", "provider", "model", "cost_picos", "calls", "unpriced_calls")
    before = Counter(busy.read("ai_spend_rollups", *rows))
    with world.engine.connect() as connection:
        for statement in WITHOUT_MODELS.split(";"):
            connection.execute(sa.text(statement), {"o": world.b} if ":o" in statement else {})
        upgrade(connection)
        grant = authorize(connection, world.nobody, "create", ledger=True)
        assert verify_spend(grant, world.a).findings == verify_spend(grant, world.b).findings == []
        rollups = TABLES.ai_spend_rollups
        of_a = sa.select(*(rollups.c[row] for row in rows)).where(
            rollups.c.organization_id == world.a
        )
        assert Counter(map(tuple, connection.execute(of_a))) == before


def test_unpriced_calls_that_were_held_agree(world):
    spender = Spender(world, unpriced=Unpriced.ALLOW)
    spender.limit(world.a1, 9)
    unknown = Call(world.a, world.member, "acme", "unknown")
    spender("settle", spender("hold", unknown, ONE).id, "e1", Tokens())
    spender("hold", unknown, ONE)
    for event, held in (("e2", Tokens(input=1, output=1)), ("e3", ONE)):
        hold = spender("hold", spender.call, held)
        spender("settle", hold.id, event, Tokens(cache_read=1))
    assert verify(world, world.a) == (1, 3, [])


# -- the command --


@pytest.fixture
def command(run, database_url):
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    return lambda *options: run("spend", "verify", *options, database_url=url)


def test_the_command_says_what_agrees_and_what_does_not(command, busy):
    world = busy.world
    proved = command("--organization", world.a)
    assert (proved.status, proved.err) == (0, "")
    assert proved.out == "1 members, 3 calls: ledger = rollups = counters\n"
    change(world, f"{COUNTER} spent_picos = 7 WHERE true")
    (finding,) = verify(world, world.a).findings
    for options in ((), ("--organization", world.a)):
        refuted = command(*options)
        assert (refuted.status, refuted.err) == (1, "")
        assert finding in refuted.out.splitlines()
        assert "ledger = rollups" not in refuted.out
    nobody = command("--organization", unknown := uuid4())
    assert (nobody.status, nobody.sentence) == (1, f"no organization `{unknown}` is known here")
    assert command("--organization", "x").status == 2
