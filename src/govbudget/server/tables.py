"""The tables of the stand-alone server."""

from __future__ import annotations

import sqlalchemy as sa

from govbudget.db.tables import Tables, required, timestamp
from govbudget.db.times import Time


def api_tokens(t: Tables) -> sa.Table:
    """Bearer tokens, by their hash."""
    return t.add(
        "api_tokens",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("secret_sha256", sa.LargeBinary, nullable=False, unique=True),
        required(t.id("user_id", t.users.c.id)),
        timestamp("created_at"),
        sa.Column("expires_at", Time, nullable=False),
        sa.Column("revoked_at", Time),
    )


OF_DIRECTORY = (api_tokens,)
OTHERS = ()
