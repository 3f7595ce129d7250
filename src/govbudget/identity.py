"""Who asks and what for, as pure values: subjects, objects, domains, and the Directory protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from sqlalchemy import Connection, FromClause

Id = UUID | int | str


class Scope(StrEnum):
    """The kinds of domain that a role can be held in.

    - `site`: everywhere.
    - `organization`: one organization, and its groups and members.
    - `group`: one group; being its member gives the role.
    - `user`: oneself; everyone holds it toward themselves, and nobody toward another.
    """

    SITE = "site"
    ORGANIZATION = "organization"
    GROUP = "group"
    USER = "user"


class ObjectType(StrEnum):
    """The kinds of object that a policy line can speak of.

    - `group`: a group of an organization; also its budget and its spend.
    - `group_ai_budget`: a group's budget, where the setting `budget_object` names it.
    - `ai_model_price`: the prices of all models, of the whole site.
    - `ai_usage`: the ledger of the whole site, in which services book calls.
    - `ai_member_spend`: what one user may spend, and has spent, in one organization.
    """

    GROUP = "group"
    GROUP_AI_BUDGET = "group_ai_budget"
    AI_MODEL_PRICE = "ai_model_price"
    AI_USAGE = "ai_usage"
    AI_MEMBER_SPEND = "ai_member_spend"


class Action(StrEnum):
    """What can be done to an object.

    - `read`: see it.
    - `update`: set, change or clear it.
    - `create`: add to it: to the ledger, holds and usage.
    """

    READ = "read"
    UPDATE = "update"
    CREATE = "create"


class Domain(NamedTuple):
    """Where a role is held: the site, one organization, one group, or toward one user."""

    scope: Scope
    id: Id | None = None

    def __str__(self) -> str:
        """Give `site`, `organization:<id>`, `group:<id>` or `user:<id>`."""
        return str(self.scope) if self.id is None else f"{self.scope}:{self.id}"


SITE = Domain(Scope.SITE)


class Assignment(NamedTuple):
    """One role, and the domain it is held in."""

    role: str
    domain: Domain


@dataclass(frozen=True, slots=True)
class CommandOperator:
    """Whoever runs a command on the database: not a user, and equal to no user's id."""

    def __str__(self) -> str:
        """Give the name that the audit trail has for the operator."""
        return "operator"


OPERATOR = CommandOperator()


@dataclass(frozen=True, slots=True)
class Subject:
    """The caller: an id (or the operator of a command) and its role assignments.

    `unit_of_work` is the database transaction that the assignments were read in
    (`connection.get_transaction()`); a store accepts a grant only inside it. A subject made by
    hand, without one, can be decided about but can't touch a row.
    """

    id: Id | CommandOperator
    assignments: tuple[Assignment, ...] = ()
    unit_of_work: object | None = None


class Object(Protocol):
    """What is acted on: an immutable value, never a database row."""

    @property
    def type(self) -> ObjectType:
        """The name under which the policy speaks of it."""

    @property
    def id(self) -> Id | None:
        """Its id; None where there is only one such object."""

    def domain(self, scope: Scope) -> Domain | None:
        """Give its own domain of that scope; None where it lacks one, which nobody can hold."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group of one organization.

    `type` is what the policy is asked about: the group itself, or its budget, where the setting
    `budget_object` makes budgets a resource of their own (see `BudgetStore.object_of`).
    """

    id: Id
    organization_id: Id
    type: ObjectType = ObjectType.GROUP
    _domains: dict[Scope, Domain] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay out the group's own domains once; a decision then looks them up."""
        domains = {
            Scope.SITE: SITE,
            Scope.ORGANIZATION: Domain(Scope.ORGANIZATION, self.organization_id),
            Scope.GROUP: Domain(Scope.GROUP, self.id),
        }
        object.__setattr__(self, "_domains", domains)

    def domain(self, scope: Scope) -> Domain | None:
        """Give the group's own domain of that scope; a group belongs to no user."""
        return self._domains.get(scope)


@dataclass(frozen=True, slots=True)
class PriceBook:
    """The prices of all models: a site-wide object, of no organization and no group."""

    type: ClassVar[ObjectType] = ObjectType.AI_MODEL_PRICE
    id: ClassVar[None] = None

    def domain(self, scope: Scope) -> Domain | None:
        """Give the site; the price book lacks every other domain."""
        return SITE if scope is Scope.SITE else None


@dataclass(frozen=True, slots=True)
class Ledger:
    """The usage ledger, which services write to: a site-wide object, as the price book is."""

    type: ClassVar[ObjectType] = ObjectType.AI_USAGE
    id: ClassVar[None] = None

    def domain(self, scope: Scope) -> Domain | None:
        """Give the site; the ledger lacks every other domain."""
        return SITE if scope is Scope.SITE else None


@dataclass(frozen=True, slots=True)
class Member:
    """What one user may spend and has spent in one organization; it belongs to no group."""

    type: ClassVar[ObjectType] = ObjectType.AI_MEMBER_SPEND
    organization_id: Id
    user_id: Id

    @property
    def id(self) -> Id:
        """The user's id."""
        return self.user_id

    def domain(self, scope: Scope) -> Domain | None:
        """Give the site, the organization or the user."""
        if scope is Scope.ORGANIZATION:
            return Domain(scope, self.organization_id)
        if scope is Scope.USER:
            return Domain(scope, self.user_id)
        return SITE if scope is Scope.SITE else None


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization: the place whose groups are listed."""

    id: Id


class Directory(Protocol):
    """Where subjects and groups are loaded from. It reports assignments and decides nothing.

    Each `load_*` sends one statement on the connection that it is given, names no budget, price or
    spend table in it, never commits, and puts `connection.get_transaction()` into the subject as
    its unit of work. A subject that it does not know has no assignments.
    """

    @property
    def groups(self) -> FromClause:
        """The groups as the database has them: a selectable with `id` and `organization_id`.

        A boolean `is_everyone`, where there is one, marks groups that hold all members of their
        organization, who are not listed in `group_members`.
        """

    @property
    def group_members(self) -> FromClause:
        """Who is in which group: a selectable with `group_id` and `user_id`."""

    @property
    def organization_members(self) -> FromClause:
        """Who is in which organization: a selectable with `organization_id` and `user_id`."""

    def load_subject(self, connection: Connection, subject_id: Id) -> Subject:
        """Load the caller with the roles held on the site."""

    def load_group(
        self, connection: Connection, subject_id: Id, group_id: Id
    ) -> tuple[Subject, Group | None]:
        """Load the group, and the caller's roles on the site, in its organization and in it."""

    def load_organization(
        self, connection: Connection, subject_id: Id, organization_id: Id
    ) -> tuple[Subject, Organization | None]:
        """Load the organization, and the caller's roles on the site, in it and in its groups."""

    def load_member(
        self, connection: Connection, subject_id: Id, organization_id: Id, user_id: Id
    ) -> tuple[Subject, Member | None]:
        """Load a member of an organization, and the caller's roles on the site and in it.

        There is none where the user is not a member, or the organization has no group (is deleted).
        """
