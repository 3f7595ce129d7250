"""The names of organizations, groups and users, for people to read: one statement for a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from govbudget.db.gov import Gov
from govbudget.db.governed import Ungoverned, describe_groups
from govbudget.db.sql import write
from govbudget.db.unit import Unit
from govbudget.identity import Id

NONE = "SELECT NULL AS kind, NULL AS id, NULL AS name WHERE false"


def _describe_names(gov: Gov) -> Mapping[str, object]:
    names = getattr(gov.directory, "names", None)
    found = NONE if names is None else write(sa.select(*names.c["kind", "id", "name"]))
    return {**describe_groups(gov), "names": found}


FIND = Ungoverned(
    "names.find",
    "it names what a page shows already",
    """
SELECT n.kind, n.id, n.name FROM ({names}) n
WHERE n.id = ANY (:named) AND (n.kind <> 'group' OR n.id IN (
  SELECT g.id FROM ({groups}) g WHERE g.id = ANY (:named) AND g.organization_id = ANY (:places)))
""",
    _describe_names,
)


def find_names(
    unit: Unit, ids: Iterable[Id | None], organizations: Iterable[Id]
) -> dict[tuple[str, Id], str]:
    """Give names by `organization`, `group` or `user` and id, as far as the directory has some.

    A group that is not in one of the organizations has none: it may have moved to another one,
    which named it since. One statement, and none where the directory has no names. Never commits.
    """
    named = sorted({one for one in ids if one is not None}, key=str)
    if not named or getattr(unit.gov.directory, "names", None) is None:
        return {}
    rows = unit.gov.execute(unit.connection, FIND, named=named, places=[*organizations])
    return {(row.kind, row.id): row.name for row in rows}
