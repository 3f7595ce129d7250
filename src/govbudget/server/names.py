"""Ids by name: for an operator who knows only what somebody or something is called."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from govbudget.db.tables import Tables
from govbudget.directory.sql import own_directory
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


def find_names(connection: sa.Connection, tables: Tables, text: str) -> list[Named]:
    """Give those whose name contains the text, or whose id it is; ordered by kind and name.

    Upper and lower case are the same.
    """
    names: Any = own_directory(tables).names
    groups = tables.groups
    is_group = (names.c.kind == "group") & (names.c.id == groups.c.id)
    is_named = names.c.name.icontains(text, autoescape=True)
    query = (
        sa.select(names.c.kind, names.c.id, groups.c.organization_id, names.c.name)
        .select_from(names.outerjoin(groups, is_group))
        .where(is_named | (sa.cast(names.c.id, sa.Text) == text.lower()))
        .order_by(names.c.kind, names.c.name, names.c.id)
    )
    return [Named(*row) for row in connection.execute(query)]
