"""Alembic's entry: run the migrations on the connection and layout that the caller gave.

Without a connection: write them as SQL.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from govbudget.db.tables import Tables
from govbudget.migrations import comparison_options

attributes = context.config.attributes
layout = attributes["layout"]
options = {
    "target_metadata": Tables(layout).metadata,
    **comparison_options(layout, layout.schema),
}
create_schema = sa.schema.CreateSchema(layout.schema, if_not_exists=True)

if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # so that a percent sign stays as it is
        literal_binds=True,
        output_buffer=attributes["output"],
        **options,
    )
    with context.begin_transaction():
        if context.get_starting_revision_argument() is None:
            context.execute(create_schema)
        context.run_migrations()
else:
    connection = attributes["connection"]
    # Asked first: the statement needs a right on the database even where the schema is there.
    if not sa.inspect(connection).has_schema(layout.schema):
        connection.execute(create_schema)
    context.configure(connection=connection, **options)
    with context.begin_transaction():
        context.run_migrations()
