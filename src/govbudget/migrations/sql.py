"""Revisions that are SQL and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.db.triggers import quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.operations import Operations

    from govbudget.db.tables import Tables


def run_sql(template: str) -> Callable[[Operations, Tables], None]:
    """Give the `upgrade` of a revision: `{s}` is the schema, and `{id}` the type of ids."""

    def upgrade(op: Operations, tables: Tables) -> None:
        op.execute(template.format(s=quote(tables.layout.schema), id=tables.layout.id_type))

    return upgrade
