"""Alembic's entry: run the migrations on the connection and layout that the caller gave."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from govbudget.migrations import comparison_options
from govbudget.tables import Tables

connection = context.config.attributes["connection"]
layout = context.config.attributes["layout"]

connection.execute(sa.schema.CreateSchema(layout.schema, if_not_exists=True))
context.configure(
    connection=connection,
    target_metadata=Tables(layout).metadata,
    **comparison_options(layout, layout.schema),
)
with context.begin_transaction():
    context.run_migrations()
