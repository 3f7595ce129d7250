"""Under concurrent writers "before" is right: the entries of a group are an unbroken chain."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.audit.support import find_broken_stories, read_entries, read_story
from tests.budgets.support import delete_budget, run_together, running, set_budget
from tests.support import TABLES, authorize, budget_path
from tests.web.helpers import put_limit

from govbudget.budgets.store import Budgets

pytestmark = pytest.mark.slow


def writer(person, group, micros):
    """A work that sets a limit, or deletes the budget where that is None."""

    def work(connection):
        grant = authorize(connection, person, "update", group=group)
        yield
        return Budgets.delete(grant) if micros is None else Budgets.set(grant, micros)

    return work


def is_chain(story):
    return story[0][0] is None and all(a[1] == b[0] for a, b in itertools.pairwise(story))


def test_writers_at_once_leave_one_unbroken_chain(engine, town, group):
    limits = list(range(1, 9))
    run_together(engine, [writer(town.owner, group, micros) for micros in limits])
    story = read_story(engine, group)
    assert is_chain(story)
    assert sorted(after for _, after, _ in story) == limits


def test_creators_and_deleters_at_once_leave_one_unbroken_chain(engine, town, group):
    works = [writer(town.owner, group, n if n % 2 else None) for n in range(1, 9)]
    for _ in range(3):
        results = run_together(engine, works)
        assert {type(result).__name__ for result in results} <= {"Budget", "NotFound"}
    story = read_story(engine, group)
    assert is_chain(story)
    now = town.engine.connect
    with now() as connection:
        row = connection.execute(sa.select(TABLES.group_ai_budgets).filter_by(group_id=group))
        stored = row.one_or_none()
    assert story[-1][1] == (stored and stored.spend_limit_micros)


def test_a_writer_who_waited_for_another_has_the_others_limit_before(engine, town, group):
    """The one who waits began first, when there was no budget at all."""
    with engine.connect() as first:
        set_budget(first, town.owner, group, 1)

        def second(connection):
            set_budget(connection, town.owner, group, 2)

        with running(engine, second) as waiting:
            first.commit()
            assert waiting.result() is None
    assert read_story(engine, group) == [(None, 1, "call"), (1, 2, "call")]


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_writer_who_waited_for_a_deleter_has_what_became_of_it_before(
    engine, town, group, outcome
):
    with engine.begin() as connection:
        set_budget(connection, town.owner, group, 1)
    with engine.connect() as deleter:
        delete_budget(deleter, town.owner, group)

        def second(connection):
            set_budget(connection, town.owner, group, 2)

        with running(engine, second) as waiting:
            getattr(deleter, outcome)()
            assert waiting.result() is None
    if outcome == "commit":
        expected = [(None, 1, "call"), (1, None, "call"), (None, 2, "call")]
    else:
        expected = [(None, 1, "call"), (1, 2, "call")]
    assert read_story(engine, group) == expected


def test_a_group_that_goes_while_its_budget_is_set_leaves_a_whole_story(engine, world):
    """Whichever comes first, the last word is that there is no budget."""
    groups = [world.a1, world.a2]
    with engine.begin() as connection:
        groups += [world.add_group(connection, world.a) for _ in range(6)]

    def remove(group):
        def work(connection):
            yield
            connection.execute(sa.delete(TABLES.groups).where(TABLES.groups.c.id == group))

        return work

    for group in groups:
        run_together(engine, [writer(world.owner, group, 5), remove(group)])
        story = read_story(engine, group)
        assert story in ([], [(None, 5, "call"), (5, None, "cascade")])


def test_batches_of_prices_at_once_leave_unbroken_chains(engine, send, town):
    tag = uuid4().hex
    models = [f"{tag}/{n}" for n in range(4)]

    def put(seed):
        dice = random.Random(seed)
        batch = [
            {
                "provider": "acme",
                "model": model,
                "input_price": dice.randint(1, 3),  # to 0 would be a jump
                "output_price": None,
                "cache_read_price": None,
                "cache_write_price": None,
            }
            for model in dice.sample(models, 3)
        ]
        return send("PUT", "/ai/prices", town.owner, json=batch).json["changed"]

    with ThreadPoolExecutor(4) as pool:
        changed = sum(pool.map(put, range(24)))
    entries = [entry for model in models for entry in read_entries(engine, f"acme/{model}")]
    assert len(entries) == changed, "one entry for each change that was counted"
    broken = [key for key in find_broken_stories(engine) if tag in key[1]]
    assert broken == []


@pytest.mark.parametrize(
    ("writers", "rounds"), [(4, 10), pytest.param(8, 150, marks=pytest.mark.long)]
)
def test_a_crowd_over_http_leaves_whole_stories_and_an_entry_for_each_answer(
    engine, send, world, writers, rounds
):
    groups = [world.a1, world.a2, world.b1]

    def act(seed):
        dice = random.Random(seed)
        done = Counter()
        for _ in range(rounds):
            group = dice.choice(groups)
            if dice.random() < 0.4:
                response = send("DELETE", budget_path(group), world.owner)
            else:
                headers = {"If-None-Match": "*"} if dice.random() < 0.3 else {}
                response = put_limit(send, group, world.owner, dice.randrange(100), headers=headers)
            assert response.status_code in {200, 204, 404, 412}
            done[group] += response.status_code in {200, 204}
        return done

    with ThreadPoolExecutor(writers) as pool:
        changes = sum(pool.map(act, range(writers)), Counter())
    for group in groups:
        story = read_story(engine, group)
        assert is_chain(story)
        assert len(story) == changes[group]
    broken = {key[1] for key in find_broken_stories(engine)}
    assert broken.isdisjoint(map(str, groups))
