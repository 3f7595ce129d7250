"""Bearer tokens of the stand-alone server: 256 random bits, stored as their SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from govbudget.db.tables import Tables
from govbudget.errors import InvalidInput
from govbudget.identity import Id
from govbudget.server.audit import CommandChange, record_command

_Facts = dict[str, str]
TOKEN_PREFIX = "gbt_"  # noqa: S105 - what every token starts with
MAX_DAYS = 3650
KEPT_DAYS = 30  # after a token expired, so that `token list` can say why it is refused


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A bearer token as it is stored: never the secret itself."""

    id: UUID
    user_id: Id
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    user_name: str

    @property
    def state(self) -> str:
        """`active`, `expired` or `revoked`, now."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at > datetime.now(UTC) else "expired"


class BearerTokens:
    """The bearer tokens. Its functions run on the caller's connection and never commit."""

    def __init__(self, tables: Tables) -> None:
        """Prepare the look-up."""
        self._tables = tables
        tokens = tables.api_tokens
        live = sa.select(tokens.c.user_id, tokens.c.id).where(
            tokens.c.revoked_at.is_(None), tokens.c.expires_at > sa.func.now()
        )
        self._find_user = live.where(tokens.c.secret_sha256 == sa.bindparam("secret"))
        self._find_user_by_id = live.where(tokens.c.id == sa.bindparam("token_id"))

    def find_user(self, connection: sa.Connection, token: str) -> Id | None:
        """Give the user whose live token this is, or None. One statement, by key."""
        user: Id | None = connection.scalar(self._find_user, {"secret": _hash(token)})
        return user

    def find_id(self, connection: sa.Connection, token: str) -> UUID | None:
        """Give the id of a token where it is live, or None. One statement, by key."""
        row = connection.execute(self._find_user, {"secret": _hash(token)}).one_or_none()
        return None if row is None else row.id

    def find_user_by_id(self, connection: sa.Connection, token_id: UUID) -> Id | None:
        """Give the user whose live token has this id, or None. One statement, by key."""
        user: Id | None = connection.scalar(self._find_user_by_id, {"token_id": token_id})
        return user

    def create(
        self, connection: sa.Connection, user_id: Id, days: int, secret: str | None = None
    ) -> str:
        """Make a token for a user and give its text, which is stored nowhere.

        A `secret` that is given has the same id in each of several databases. Tokens that expired
        more than `KEPT_DAYS` ago go; the audit trail keeps their entries.
        """
        users = self._tables.users
        if connection.scalar(sa.select(users.c.id).where(users.c.id == user_id)) is None:
            raise InvalidInput(
                f"no user `{user_id}`; load users with `govbudget directory load`",
                code="input-invalid",
            )
        token = secret or make_secret()
        token_id = UUID(bytes=_hash(f"id of {token}")[:16], version=4)
        expires_at = datetime.now(UTC) + timedelta(days=days)
        statement = sa.insert(self._tables.api_tokens).values(
            id=token_id, secret_sha256=_hash(token), user_id=user_id, expires_at=expires_at
        )
        connection.execute(statement)
        tokens, oldest = self._tables.api_tokens, datetime.now(UTC) - timedelta(days=KEPT_DAYS)
        connection.execute(sa.delete(tokens).where(tokens.c.expires_at < oldest))
        self._record(connection, token_id, None, _describe(user_id, expires_at))
        return token

    def list(self, connection: sa.Connection) -> list[BearerToken]:
        """List all tokens, the oldest first."""
        tokens, users = self._tables.api_tokens, self._tables.users
        shown = tokens.c["id", "user_id", "created_at", "expires_at", "revoked_at"]
        statement: sa.Select[Any] = sa.select(*shown, users.c.name).join_from(tokens, users)
        rows = connection.execute(statement.order_by(tokens.c.created_at, tokens.c.id))
        return [BearerToken(*row) for row in rows]

    def revoke(self, connection: sa.Connection, token_id: UUID) -> bool:
        """Revoke a token, once; give whether there was a live one to revoke."""
        tokens = self._tables.api_tokens
        statement = (
            sa.update(tokens)
            .where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
            .values(revoked_at=sa.func.now())
            .returning(tokens.c.user_id, tokens.c.expires_at)
        )
        row = connection.execute(statement).one_or_none()
        if row is not None:
            self._record(connection, token_id, _describe(*row), None)
        return row is not None

    def _record(
        self, connection: sa.Connection, token_id: UUID, before: _Facts | None, after: _Facts | None
    ) -> None:
        change = CommandChange(None, "api_token", str(token_id), before, after)
        record_command(connection, self._tables, [change])


def make_secret() -> str:
    """Make the text of a token."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def _describe(user_id: Id, expires_at: datetime) -> _Facts:
    return {"user_id": str(user_id), "expires_at": expires_at.isoformat()}


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
