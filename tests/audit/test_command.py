"""Roles, memberships, tokens and prices that change through the command leave entries."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.audit.support import read_entries, read_only_entry, read_story
from tests.commands import as_text
from tests.support import TABLES

A, B, EVERYWHERE = uuid4(), uuid4(), None
ANN, BEN, GROUP = uuid4(), uuid4(), uuid4()


@pytest.fixture(scope="module")
def fresh(make_database, template):
    """A database of its own: a load is the whole truth for the site's roles."""
    url = make_database(template=template)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    engine.text = as_text(url)
    return engine


def directory(*, members=(), joined=(), roles=()):
    """Write a file with two organizations and a group; the memberships and roles as given."""
    return {
        "organizations": [{"id": str(A), "name": "A"}, {"id": str(B), "name": "B"}],
        "users": [{"id": str(ANN), "name": "Ann"}, {"id": str(BEN), "name": "Ben"}],
        "groups": [{"id": str(GROUP), "organization_id": str(A), "name": "g"}],
        "organization_members": [
            {"organization_id": str(place), "user_id": str(user)} for place, user in members
        ],
        "group_members": [{"group_id": str(GROUP), "user_id": str(user)} for user in joined],
        "roles": [
            {"user_id": str(user), "role": role, "organization_id": place and str(place)}
            for user, role, place in roles
        ],
    }


def load(run, engine, content, *options):
    """Load a directory; give the entries that this left, without their times."""
    before = set(read_ids(engine))
    result = run(
        "directory", "load", "-", *options, stdin=json.dumps(content).encode(),
        database_url=engine.text,
    )  # fmt: skip
    log = TABLES.audit_log
    with engine.connect() as connection:
        rows = connection.execute(sa.select(log).where(log.c.id.not_in(before)))
        entries = [(r.organization_id, r.object_type, r.object_id, r.before, r.after) for r in rows]
        receipts = list(connection.scalars(sa.select(log.c.receipt).where(log.c.id.not_in(before))))
    for receipt in receipts:
        assert receipt.pop("id")
        assert receipt == {"actor": "operator", "cause": "command"}
    return result, sorted(entries, key=str)


def read_ids(engine):
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(TABLES.audit_log.c.id)))


def test_a_load_leaves_an_entry_for_each_role_and_membership_that_came_or_went(run, fresh):
    full = directory(
        members=[(A, ANN), (A, BEN), (B, BEN)],
        joined=[ANN],
        roles=[(ANN, "org-admin", A), (BEN, "owner", EVERYWHERE)],
    )
    result, entries = load(run, fresh, full)
    assert result.status == 0
    org_a, org_b = {"organization_id": str(A)}, {"organization_id": str(B)}
    admin = {"role": "org-admin", "organization_id": str(A)}
    owner = {"role": "owner", "organization_id": None}
    came = [
        (A, "organization_member", str(ANN), None, org_a),
        (A, "organization_member", str(BEN), None, org_a),
        (B, "organization_member", str(BEN), None, org_b),
        (A, "group_member", str(ANN), None, {"group_id": str(GROUP)}),
        (A, "role_assignment", str(ANN), None, admin),
        (None, "role_assignment", str(BEN), None, owner),
    ]
    assert entries == sorted(came, key=str)

    assert load(run, fresh, full) == (Anything(), []), "nothing changed"
    assert load(run, fresh, directory(), "--dry-run") == (Anything(), []), "a dry run"

    result, entries = load(run, fresh, directory(members=[(B, BEN)]))
    assert result.status == 0
    went = [(o, kind, who, after, None) for o, kind, who, _, after in came if o != B]
    assert entries == sorted(went, key=str)


class Anything:
    def __eq__(self, other):
        return True

    __hash__ = None


def test_a_load_that_is_refused_leaves_no_entry(run, fresh):
    wrong = directory(members=[(A, ANN)], roles=[(ANN, "emperor", A)])
    result, entries = load(run, fresh, wrong)
    assert (result.status, entries) == (2, [])


def test_a_group_that_a_load_takes_away_takes_its_budget_along_with_an_entry(run, fresh):
    load(run, fresh, directory(members=[(A, ANN)], joined=[ANN]))
    budget = {"group_id": GROUP, "spend_limit_micros": 5, "revision": uuid4()}
    with fresh.begin() as connection:
        connection.execute(sa.insert(TABLES.group_ai_budgets), budget)
    without = directory()
    without["groups"] = []
    _, entries = load_any(run, fresh, without)
    assert ("group_member", str(ANN), "command") in entries
    assert ("group_ai_budget", str(GROUP), "cascade") in entries
    assert read_story(fresh, GROUP) == [(None, 5, "direct"), (5, None, "cascade")]


def load_any(run, engine, content):
    before = set(read_ids(engine))
    result = run("directory", "load", "-", stdin=json.dumps(content).encode(),
                 database_url=engine.text)  # fmt: skip
    log = TABLES.audit_log
    with engine.connect() as connection:
        rows = connection.execute(sa.select(log).where(log.c.id.not_in(before))).all()
    return result, [(r.object_type, r.object_id, r.receipt["cause"]) for r in rows]


def test_a_token_leaves_an_entry_when_it_is_made_and_when_it_is_revoked(run, engine, url, world):
    """Never with the secret or its hash."""
    secret = run("token", "create", world.member, "--days", "3", database_url=url).out.strip()
    listed = run("token", "list", database_url=url).out.splitlines()
    (token,) = [line.split()[0] for line in listed if str(world.member) in line]
    made = read_only_entry(engine, token)
    assert (made.object_type, made.organization_id, made.before) == ("api_token", None, None)
    assert set(made.after) == {"user_id", "expires_at"}
    assert made.after["user_id"] == str(world.member)
    expires = datetime.fromisoformat(made.after["expires_at"])
    assert abs(expires - datetime.now(UTC) - timedelta(days=3)) < timedelta(minutes=1)
    for _ in range(2):
        run("token", "revoke", token, database_url=url)
    entries = read_entries(engine, token)
    assert len(entries) == 2, "revoking it again changed nothing"
    assert entries[1].after is None
    assert entries[1].before["user_id"] == str(world.member)
    assert {entry.receipt["actor"] for entry in entries} == {"operator"}
    assert secret not in str(entries)
    assert secret.removeprefix("gbt_") not in str(entries)


def test_a_token_for_nobody_leaves_no_entry(run, engine, url):
    user = uuid4()
    before = len(read_ids(engine))
    assert run("token", "create", user, database_url=url).status == 2
    assert len(read_ids(engine)) == before


def test_prices_loaded_by_the_command_say_so(run, engine, url, policy):
    model = f"model-{uuid4().hex}"
    row = {"provider": "acme", "model": model, "input_price": 1, "output_price": 2}
    row |= {"cache_read_price": None, "cache_write_price": None}
    for changed in (1, 0):
        result = run("prices", "load", "-", stdin=json.dumps([row]).encode(), database_url=url)
        assert result.out == f"1 received, {changed} changed\n"
    receipt = read_only_entry(engine, f"acme/{model}").receipt
    assert (receipt["actor"], receipt["cause"]) == ("operator", "command")
    assert receipt["roles"] == ["owner", "gateway"], "whoever has the database has every site role"
    assert receipt["policy_digest"] == policy.digest
    assert receipt["lines"] == list(policy.decide({"owner"}, "ai_model_price", "update").lines)
    assert receipt["request_id"] is None
