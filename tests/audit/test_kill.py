"""Whatever is killed and whenever: the log and the tables agree, and what was answered is kept."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.audit.crasher import APPLICATION_NAME, change
from tests.audit.support import find_broken_stories
from tests.forking import start_forker
from tests.support import TABLES, World, make_app

from govbudget.db.connection import normalize_url
from govbudget.layout import Layout
from govbudget.migrations import upgrade
from govbudget.server.embedded import start_postgres

pytestmark = pytest.mark.long


@pytest.fixture
def place(make_database, template):
    """A database of its own, with a world in it."""
    return open_place(make_database(template=template))


def open_place(url):
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    world = World(engine)
    plan = {
        "owner": str(world.owner),
        "groups": [str(world.a1), str(world.a2), str(world.b1)],
        "models": [uuid4().hex for _ in range(3)],
    }
    return SimpleNamespace(engine=engine, url=url, plan=plan, world=world)


@pytest.fixture(scope="module")
def crasher():
    with start_forker("tests.audit.crasher") as process:
        yield process


@pytest.fixture
def crash(crasher, place):
    """Run a plan of the crasher to its end: the request ids that were answered, and the lives."""

    def crash(**plan):
        url, answered = place.url.render_as_string(hide_password=False), []
        crasher.stdin.write(json.dumps({"url": url, **place.plan, **plan}) + "\n")
        while len(line := crasher.stdout.readline().strip()) == len(uuid4().hex):
            answered.append(line)
        assert line.startswith("lives: "), f"it ended with {line}"
        assert crasher.stdout.readline() == "0\n"
        wait_until_gone(place.engine)
        return answered, int(line.removeprefix("lives: "))

    return crash


def wait_until_gone(engine):
    """Wait until the server has seen that the killed clients are gone, and ended their work."""
    query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
    deadline = time.monotonic() + 20
    while True:
        with engine.connect() as connection:
            if connection.scalar(query, {"name": APPLICATION_NAME}) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_request_ids(engine):
    log = TABLES.audit_log
    with engine.connect() as connection:
        return [r["request_id"] for r in connection.scalars(sa.select(log.c.receipt))
                if r.get("request_id")]  # fmt: skip


def assert_whole(engine, answered=()):
    """Nothing changed without its entry, no entry is without its change, none stands twice."""
    assert find_broken_stories(engine) == []
    logged = read_request_ids(engine)
    assert len(logged) == len(set(logged))
    assert set(answered) <= set(logged), "an answer was given for a change that was not kept"


# -- SIGKILL of the process that makes the change --


@pytest.mark.parametrize("scenario", ["http", "transaction"])
def test_killed_between_any_two_statements_log_and_budgets_and_prices_agree(crash, place, scenario):
    answered, lives = crash(scenario=scenario)
    assert lives > 5, "it was killed at each moment in turn"
    assert_whole(place.engine, answered)


def test_killed_between_any_two_statements_of_a_command_log_and_directory_agree(crash, place):
    full, empty = describe_directories(place)
    _, lives = crash(scenario="command", full=full, empty=empty)
    assert lives > 30
    with place.engine.connect() as connection:
        replayed, stored = replay(connection), read_directory(connection)
    assert replayed == stored
    kinds = {kind for kind, *_ in stored}
    assert "api_token" in kinds, "one was made by a life that was over before it was revoked"


def describe_directories(place):
    """Give two files for a new organization: with members, roles and a group, and without."""
    organization, group, users = str(uuid4()), str(uuid4()), [str(uuid4()) for _ in range(3)]
    on_site = [
        {"user_id": str(place.world.people[role]), "role": role, "organization_id": None}
        for role in ("owner", "gateway")
    ]
    base = {
        "organizations": [{"id": organization, "name": "o"}],
        "users": [{"id": user, "name": "u"} for user in users],
        "roles": on_site,
    }
    full = base | {
        "groups": [{"id": group, "organization_id": organization, "name": "g"}],
        "organization_members": [
            {"organization_id": organization, "user_id": user} for user in users
        ],
        "group_members": [{"group_id": group, "user_id": user} for user in users[:2]],
        "roles": [
            *on_site,
            {"user_id": users[0], "role": "org-admin", "organization_id": organization},
            {"user_id": users[1], "role": "owner", "organization_id": None},
        ],
    }
    return full, base


def read_directory(connection):
    """Read who holds what as it is stored, as entries have it; the world's own rows aside."""
    text = "SELECT {} FROM govbudget.{} WHERE {}"
    since = "user_id::text IN (SELECT object_id FROM govbudget.audit_log)"
    stored = set()
    for table, columns in (
        ("organization_members", "organization_id"),
        ("group_members", "group_id"),
        ("role_assignments", "role, organization_id"),
    ):
        query = sa.text(text.format(f"user_id, {columns}", table, since))
        for row in connection.execute(query).mappings():
            value = {k: v and str(v) for k, v in row.items() if k != "user_id"}
            stored.add(
                (table.removesuffix("s"), str(row["user_id"]), json.dumps(value, sort_keys=True))
            )
    for row in connection.execute(sa.select(TABLES.api_tokens)):
        if row.revoked_at is None:
            stored.add(("api_token", str(row.id), str(row.user_id)))
    return stored


def replay(connection):
    """Apply the log's entries one by one; each must fit what those before it made."""
    log, state = TABLES.audit_log, set()
    for entry in connection.execute(sa.select(log).order_by(log.c.at)):
        value = entry.after or entry.before
        told = (
            value["user_id"]
            if entry.object_type == "api_token"
            else json.dumps(value, sort_keys=True)
        )
        fact = (entry.object_type, entry.object_id, told)
        assert (fact in state) == (entry.after is None), entry
        (state.discard if entry.after is None else state.add)(fact)
    return state


def test_killed_at_random_under_load_what_was_answered_is_kept_with_its_entry(crash, place):
    answered, _ = crash(scenario="load", lives=12, threads=4)
    assert answered, "it did something"
    assert_whole(place.engine, answered)


# -- the connection is cut, and the server --


@contextmanager
def changing(place, writers):
    """Change things over HTTP with threads for the length of the block; collect the answers."""
    arguments = {"application_name": APPLICATION_NAME, "connect_timeout": 5}
    engine = sa.create_engine(place.url, connect_args=arguments)
    app = make_app(engine)
    answers, over = [], threading.Event()

    def work():
        dice, sender = random.Random(), app.test_client()
        while not over.is_set():
            answers.append(change(sender, place.plan, dice))

    threads = [threading.Thread(target=work) for _ in range(writers)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
        engine.dispose()


def test_connections_cut_at_random_under_load_leave_log_and_tables_in_agreement(place):
    """A request that met a cut is answered 503: its change was made, with its entry, or neither."""
    cut = sa.text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = :name AND datname = current_database() AND random() < 0.7"
    )
    done = 0
    with changing(place, 6) as answers, place.engine.connect() as connection:
        while done < 200:
            time.sleep(random.uniform(0, 0.03))
            done += connection.scalar(cut, {"name": APPLICATION_NAME})
            connection.rollback()
    statuses = {status for _, status in answers}
    assert statuses <= {200, 204, 404, 503}
    assert_whole(place.engine, [i for i, status in answers if status in {200, 204}])
    refused = {i for i, status in answers if status == 404}
    assert refused.isdisjoint(read_request_ids(place.engine))


def test_a_server_that_crashes_under_load_recovers_with_log_and_tables_in_agreement():
    """With its durability on, as it is by default: what was answered survives, with its entry.

    Where one of its processes is killed, PostgreSQL ends all the others, drops what it had in
    memory, and recovers from its write-ahead log.
    """
    with start_postgres() as text:
        url = normalize_url(text)
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
            upgrade(connection, Layout())
        place = open_place(url)
        for _ in range(3):
            answers = change_and_crash(place)
            assert_whole(place.engine, [i for i, status in answers if status in {200, 204}])


def change_and_crash(place):
    """Change things, and kill a process of the server meanwhile; give the answers."""
    with changing(place, 4) as answers:
        wait_for_answers(answers, {200, 204})
        time.sleep(random.uniform(0, 0.3))
        with place.engine.connect() as connection:
            other = sa.text(
                "SELECT pid FROM pg_stat_activity WHERE application_name = :name"
                " AND datname = current_database() LIMIT 1"
            )
            pid = connection.scalar(other, {"name": APPLICATION_NAME})
        os.kill(pid, signal.SIGKILL)
        wait_for_answers(answers, {503})
        wait_until_back(place.engine)
        wait_for_answers(answers, {200}, since=len(answers))
    return answers


def wait_for_answers(answers, statuses, since=0):
    """Wait until each of these was an answer, of those from a number on."""
    deadline = time.monotonic() + 30
    while not statuses <= {status for _, status in answers[since:]}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_back(engine):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with engine.connect():
                return
        except sa.exc.OperationalError:
            time.sleep(0.05)
    raise AssertionError("the server did not recover")
