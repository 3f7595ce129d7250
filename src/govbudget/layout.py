"""What a host chooses about the tables: the type of ids, the schema, the groups of budgets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from govbudget.errors import SettingsError
from govbudget.ids import IdType

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
OWN_GROUPS, NO_GROUPS = "own", "none"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a host chooses: the type of ids, the schema's name, the groups that budgets belong to.

    `groups` is `own` (govbudget's own directory tables are made), `schema.table.column` of the
    host's groups table (the budget's foreign key points there, so that a deleted group takes its
    budget along), or `none` (no foreign key; delete budgets with their groups yourself).
    """

    id_type: IdType = IdType.UUID
    schema: str = "govbudget"
    groups: str = OWN_GROUPS

    def __post_init__(self) -> None:
        """Raise SettingsError for an unknown type of ids, or a name that can't be used."""
        if self.id_type not in [*IdType]:
            raise SettingsError(
                f"the type of ids is `{self.id_type}`; write one of {', '.join(IdType)}"
            )
        object.__setattr__(self, "id_type", IdType(self.id_type))
        if not _IDENTIFIER.fullmatch(self.schema):
            raise SettingsError(
                f"GOVBUDGET_SCHEMA is `{self.schema}`; use lower-case letters, digits and `_`"
            )
        if self.schema == "public" or self.schema.startswith("pg_"):
            raise SettingsError(
                f"GOVBUDGET_SCHEMA is `{self.schema}`, which is not govbudget's alone; name another"
            )
        if self.groups not in {OWN_GROUPS, NO_GROUPS}:
            parts = self.groups.split(".")
            if len(parts) != len(("schema", "table", "column")) or not all(parts):
                raise SettingsError(
                    f"GOVBUDGET_GROUPS is `{self.groups}`; write `own`, `none`, or the "
                    "`schema.table.column` of your groups' ids"
                )

    @property
    def owns_directory(self) -> bool:
        """Whether organizations, users, groups, roles and tokens are govbudget's own tables."""
        return self.groups == OWN_GROUPS
