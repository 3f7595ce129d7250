"""The entries of what the operator's commands change: roles, memberships, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from govbudget.db.tables import Tables
from govbudget.identity import OPERATOR, Cause, Id
from govbudget.new_ids import make_id


@dataclass(frozen=True, slots=True)
class CommandChange:
    """What a command changed: a role, a membership, a token."""

    organization_id: Id | None
    object_type: str
    object_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def record_command(
    connection: sa.Connection, tables: Tables, changes: Sequence[CommandChange]
) -> None:
    """Write the entries of changes that a command makes, in the transaction of the changes.

    They say that the database's operator made them, and that no policy was asked.
    """
    if changes:
        receipt = {"id": str(uuid4()), "actor": str(OPERATOR), "cause": Cause.COMMAND}
        rows = [
            {"id": make_id(change.organization_id), **asdict(change), "receipt": receipt}
            for change in changes
        ]
        connection.execute(sa.insert(tables.audit_log), rows)
