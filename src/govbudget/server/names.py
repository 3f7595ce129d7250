"""Ids by name: for an operator who knows only what somebody or something is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from govbudget.db.tables import Tables
    from govbudget.identity import Id


class Named(NamedTuple):
    """A user, a group or an organization; `organization_id` is that of a group."""

    kind: str
    id: Id
    organization_id: Id | None
    name: str

    def __str__(self) -> str:
        where = f" organization_id={self.organization_id}" if self.organization_id else ""
        return f"{self.kind} id={self.id}{where} `{self.name}`"


def find_names(connection: Connection, tables: Tables, text: str) -> list[Named]:
    """Give those whose name contains the text, or whose id it is; ordered by kind and name.

    Upper and lower case are the same.
    """
    kinds = {"group": tables.groups, "organization": tables.organizations, "user": tables.users}
    found = [
        sa.select(
            sa.literal(kind).label("kind"),
            table.c.id,
            table.c.get("organization_id", sa.null()).label("organization_id"),
            table.c.name,
        ).where(
            table.c.name.icontains(text, autoescape=True)
            | (sa.cast(table.c.id, sa.Text) == text.lower())
        )
        for kind, table in kinds.items()
    ]
    query = sa.union_all(*found).order_by("kind", "name", "id")
    return [Named(*row) for row in connection.execute(query)]
