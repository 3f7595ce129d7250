"""Bearer tokens: only their hash is stored, and a token that is not live finds nobody."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.budgets.support import watch
from tests.support import TABLES, count_statements

from govbudget import InvalidInput
from govbudget.server.tokens import BearerTokens

STORE = BearerTokens(TABLES)


@pytest.fixture
def connection(engine, world):
    with engine.connect() as connection:
        yield connection


def of(connection, user):
    return [token for token in STORE.list(connection) if token.user_id == user]


def change(connection, token_id, **values):
    tokens = TABLES.api_tokens
    connection.execute(sa.update(tokens).where(tokens.c.id == token_id).values(**values))


def test_a_token_finds_its_user(connection, world):
    token = STORE.create(connection, world.member, 1)
    other = STORE.create(connection, world.owner, 1)
    assert STORE.find_user(connection, token) == world.member
    assert STORE.find_user(connection, other) == world.owner
    assert token != other


def test_only_the_hash_of_a_token_is_stored(connection, world):
    """The text is nowhere in the row, nor is any part of it; it holds 256 random bits."""
    token = STORE.create(connection, world.member, 1)
    assert re.fullmatch(r"gbt_[A-Za-z0-9_-]{43}", token)
    tokens = TABLES.api_tokens
    row = connection.execute(sa.select(tokens).where(tokens.c.user_id == world.member)).one()
    assert row.secret_sha256 == hashlib.sha256(token.encode()).digest()
    text = connection.scalar(
        sa.select(sa.cast(sa.literal_column("t"), sa.Text)).select_from(
            sa.select(tokens).where(tokens.c.id == row.id).subquery("t")
        )
    )
    assert str(row.id) in text
    assert token[4:20] not in text


def test_an_expired_token_finds_nobody(connection, world):
    token = STORE.create(connection, world.member, 1)
    (stored,) = of(connection, world.member)
    assert stored.state == "active"
    assert timedelta(hours=23) < stored.expires_at - datetime.now(UTC) <= timedelta(days=1)
    change(connection, stored.id, expires_at=sa.func.now())
    assert STORE.find_user(connection, token) is None
    assert of(connection, world.member)[0].state == "expired"


def test_a_token_that_expired_a_month_ago_goes_when_one_is_made(connection, world):
    for days in (31, 29):
        STORE.create(connection, world.member, 1)
        newest = of(connection, world.member)[-1]
        change(connection, newest.id, expires_at=sa.func.now() - timedelta(days=days))
    STORE.create(connection, world.owner, 1)
    (kept,) = of(connection, world.member)
    assert kept.id == newest.id


def test_a_revoked_token_finds_nobody_and_is_revoked_once(connection, world):
    token, other = (STORE.create(connection, world.member, 1) for _ in range(2))
    secret = hashlib.sha256(token.encode()).digest()
    tokens = TABLES.api_tokens
    identifier = connection.scalar(sa.select(tokens.c.id).where(tokens.c.secret_sha256 == secret))
    assert STORE.revoke(connection, identifier)
    assert not STORE.revoke(connection, identifier)
    assert STORE.find_user(connection, token) is None
    assert STORE.find_user(connection, other) == world.member
    assert sorted(item.state for item in of(connection, world.member)) == ["active", "revoked"]


def test_a_token_that_is_not_there_is_not_revoked(connection, world):
    assert not STORE.revoke(connection, uuid4())


@pytest.mark.parametrize(
    "mangle",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token.swapcase(),
        lambda token: token.removeprefix("gbt_"),
        lambda token: f" {token}",
        lambda token: f"{token}\n",
        lambda token: hashlib.sha256(token.encode()).hexdigest(),
        lambda token: "\0",
        lambda token: "\ud800",
        lambda token: "é" * 10_000,
        lambda token: "' OR true --",
    ],
)
def test_any_other_text_finds_nobody(connection, world, mangle):
    token = STORE.create(connection, world.member, 1)
    assert STORE.find_user(connection, mangle(token)) is None


def test_a_token_goes_with_its_user(connection, world):
    token = STORE.create(connection, world.nobody, 1)
    connection.execute(sa.delete(TABLES.users).where(TABLES.users.c.id == world.nobody))
    assert STORE.find_user(connection, token) is None
    assert of(connection, world.nobody) == []


def test_a_token_is_made_for_somebody_who_is_there(connection, world):
    with pytest.raises(InvalidInput, match=str(world.stranger)):
        STORE.create(connection, world.stranger, 1)


def test_tokens_are_listed_with_their_users_name_the_oldest_first(connection, world):
    first = STORE.create(connection, world.member, 1)
    assert first
    change(
        connection, of(connection, world.member)[0].id, created_at=datetime(2020, 1, 1, tzinfo=UTC)
    )
    STORE.create(connection, world.member, 1)
    listed = of(connection, world.member)
    assert [item.user_name for item in listed] == ["member", "member"]
    assert listed[0].created_at < listed[1].created_at


def test_a_look_up_is_one_statement_and_the_transaction_is_the_callers(connection, engine, world):
    with watch(engine) as seen:
        token = STORE.create(connection, world.member, 1)
        with count_statements(engine) as sent:
            STORE.find_user(connection, token)
        STORE.revoke(connection, STORE.list(connection)[0].id)
    assert len(sent) == 1
    assert seen == []
    connection.rollback()
    assert STORE.find_user(connection, token) is None
