"""What a host's own Alembic leaves alone: filters that its autogenerate takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from govbudget.db.revisions import VERSION_TABLE
from govbudget.db.tables import Tables
from govbudget.layout import Layout


class Filters(TypedDict):
    """Two of the arguments of Alembic's `context.configure`."""

    include_name: Callable[..., bool]
    include_object: Callable[..., bool]


def exclude_govbudget(
    layout: Layout,
    *,
    include_name: Callable[..., bool] | None = None,
    include_object: Callable[..., bool] | None = None,
) -> Filters:
    """Give the filters for `context.configure(..., **exclude_govbudget(layout))` in `env.py`.

    With them the host's autogenerate neither drops what is in govbudget's schema nor makes it, with
    `include_schemas=True` too. Filters that the host has already are asked about the rest. Where
    the search path holds our schema, Alembic sees our tables under no schema; so one that is seen
    there and has a name of ours is left alone, unless the host describes it.
    """
    tables = Tables(layout).metadata.tables.values()
    names = {table.name for table in tables if table.schema == layout.schema} | {VERSION_TABLE}

    def is_name_of_host(name: str | None, kind: str, parents: Any) -> bool:  # noqa: ANN401
        schema = name if kind == "schema" else parents.get("schema_name")
        if schema == layout.schema:
            return False
        return include_name is None or include_name(name, kind, parents)

    def is_object_of_host(
        item: Any,  # noqa: ANN401 - Alembic's signature
        name: str | None,
        kind: str,
        reflected: bool,  # noqa: FBT001 - as above
        compare_to: Any,  # noqa: ANN401 - as above
    ) -> bool:
        table = item if kind == "table" else item.table
        is_stray = table.schema is None and kind == "table" and reflected and compare_to is None
        if table.schema == layout.schema or (is_stray and name in names):
            return False
        return include_object is None or include_object(item, name, kind, reflected, compare_to)

    return {"include_name": is_name_of_host, "include_object": is_object_of_host}
