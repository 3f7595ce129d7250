"""Governed statements: SQL that says which right it needs. Only a grant runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import sqlalchemy as sa

from govbudget.authz.authorize import ObjectT
from govbudget.db.sql import prepare, write
from govbudget.identity import Action, ObjectType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from govbudget.authz.table import DecisionTable
    from govbudget.db.gov import Gov

GROUPS, MEMBERS = ObjectType.GROUP, ObjectType.AI_MEMBER_SPEND


def describe_nothing(_gov: Gov) -> Mapping[str, object]:
    """Give no parts."""
    return {}


def describe_groups(gov: Gov) -> Mapping[str, object]:
    """Give the part `{groups}`: the groups as the directory has them."""
    groups = gov.directory.groups.alias("g")
    return {"groups": write(sa.select(groups.c.id, groups.c.organization_id))}


@dataclass(frozen=True, slots=True, eq=False)
class Governed(Generic[ObjectT]):
    """A statement, and the right that it needs: the action, and the kind of object.

    - `text` is a template: `{s}` is the schema, `{id}` the SQL type of ids, `{answer}` what it
      selects (`answer`), and the rest is what `parts` gives for the installation.
    - It is bound to the object's own keys: of a group, `:group_id` and
      `:organization_id`.
    - `reach`: it also works on the groups (GROUPS) or the members (MEMBERS) of the organization
      that the caller reaches, and is bound to `:allowed_elsewhere` and `:exceptions`. In a list,
      `{reach}` compares its `column` with what is reached.
    - `{after}` compares with the page before, as `past` says; it is the first page where the value
      that `past` names first is None. A text for each case: a plan for both would go through the
      rows of all pages before.
    """

    name: str
    action: Action
    kind: type[ObjectT]
    text: str
    answer: tuple[str, ...] = ()
    reach: ObjectType | None = None
    column: str = ""
    past: tuple[str, str] = ("after", "{column} > :after")
    parts: Callable[[Gov], Mapping[str, object]] = describe_nothing

    @property
    def is_audited(self) -> bool:
        """Whether it writes down who changes something and why."""
        return ":receipt" in self.text

    def list_cells(self, table: DecisionTable) -> Iterator[tuple[ObjectType, Action]]:
        """Give the cells of the table that are asked before it runs."""
        # An organization has no type: the policy is asked what is reached in it.
        for asked in (getattr(self.kind, "type", None), self.reach):
            if asked is not None:
                yield table.asked_as(asked), self.action

    def prepare(self, gov: Gov, *, elsewhere: bool, is_first: bool) -> sa.Executable:
        """Make it for an installation, for `reach.elsewhere` and for a first page or another."""
        parts = {
            **self.parts(gov),
            "reach": f"{self.column} {'<> ALL' if elsewhere else '= ANY'} (:exceptions)",
            "after": "" if is_first else f"AND {self.past[1].format(column=self.column)}",
        }
        return prepare(self.text, gov.settings.layout, self.answer, **parts)


@dataclass(frozen=True, slots=True, eq=False)
class Ungoverned:
    """A statement that needs no right, and the reason why. `text` and `parts` are as above."""

    name: str
    reason: str
    text: str
    parts: Callable[[Gov], Mapping[str, object]] = describe_nothing
