"""Who asks and what for, as pure values: subjects, objects and domains."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, NamedTuple, final
from uuid import UUID

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
    """The kinds of object that a policy line can name.

    - `group`: a group of an organization; also its budget and its spend.
    - `group_ai_budget`: a group's budget, where a line of the policy names it.
    - `ai_model_price`: the prices of all models, of the whole site.
    - `ai_usage`: the ledger of the whole site, in which services record calls; a correction is an
      `update`.
    - `ai_member_spend`: what one user may spend, and has spent, in one organization.
    - `policy`: the policy itself, as the pages show and explain it.
    """

    GROUP = "group"
    GROUP_AI_BUDGET = "group_ai_budget"
    AI_MODEL_PRICE = "ai_model_price"
    AI_USAGE = "ai_usage"
    AI_MEMBER_SPEND = "ai_member_spend"
    POLICY = "policy"


class Action(StrEnum):
    """What can be done to an object.

    - `read`: see it.
    - `update`: set, change or clear it.
    - `create`: add to it: to the ledger, holds and usage.
    """

    READ = "read"
    UPDATE = "update"
    CREATE = "create"


class Cause(StrEnum):
    """How a change came about, as the audit trail has it.

    - `request`: over HTTP.
    - `call`: from Python.
    - `command`: by the operator of a command.
    - `cascade`: the group went, and its budget with it.
    - `direct`: somebody wrote to the table behind govbudget's back; the actor is null.
    """

    REQUEST = "request"
    CALL = "call"
    COMMAND = "command"
    CASCADE = "cascade"
    DIRECT = "direct"


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
@final
class Operator:
    """Whoever runs a command on the database: not a user, and equal to no user's id."""

    def __str__(self) -> str:
        """Give the name that the audit trail has for the operator."""
        return "operator"


OPERATOR: Final = Operator()


@dataclass(frozen=True, slots=True)
class Subject:
    """The caller: an id and its role assignments.

    `id` is None of the operator of a command, who is nobody in the directory.
    """

    id: Id | None
    assignments: tuple[Assignment, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """A group of one organization.

    Where the policy makes budgets a resource of their own, it is asked about that (see
    `DecisionTable.asked_as`).
    """

    type: ClassVar[ObjectType] = ObjectType.GROUP
    id: Id
    organization_id: Id
    _domains: dict[Scope, Domain] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay out the group's own domains once; a decision then looks them up."""
        domains = {
            Scope.SITE: SITE,
            Scope.ORGANIZATION: Domain(Scope.ORGANIZATION, self.organization_id),
            Scope.GROUP: Domain(Scope.GROUP, self.id),
        }
        object.__setattr__(self, "_domains", domains)

    @property
    def keys(self) -> dict[str, Id]:
        """What a statement about it is bound to."""
        return {"group_id": self.id, "organization_id": self.organization_id}

    def domain(self, scope: Scope) -> Domain | None:
        """Give the group's own domain of that scope; a group belongs to no user."""
        return self._domains.get(scope)


class _OfTheSite:
    """An object of which the site has one: of no organization and no group."""

    __slots__ = ()
    id: ClassVar[None] = None

    @property
    def keys(self) -> dict[str, Id]:
        """Nothing: there is one."""
        return {}

    def domain(self, scope: Scope) -> Domain | None:
        """Give the site; it lacks every other domain."""
        return SITE if scope is Scope.SITE else None


@dataclass(frozen=True, slots=True)
class PriceBook(_OfTheSite):
    """The prices of all models."""

    type: ClassVar[ObjectType] = ObjectType.AI_MODEL_PRICE


@dataclass(frozen=True, slots=True)
class Ledger(_OfTheSite):
    """The usage ledger, which services write to."""

    type: ClassVar[ObjectType] = ObjectType.AI_USAGE


@dataclass(frozen=True, slots=True)
class PolicyRules(_OfTheSite):
    """The policy that is in force: what everybody may do, and why."""

    type: ClassVar[ObjectType] = ObjectType.POLICY


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

    @property
    def keys(self) -> dict[str, Id]:
        """What a statement about it is bound to."""
        return {"organization_id": self.organization_id, "user_id": self.user_id}

    def domain(self, scope: Scope) -> Domain | None:
        """Give the site, the organization or the user."""
        if scope is Scope.ORGANIZATION:
            return Domain(scope, self.organization_id)
        if scope is Scope.USER:
            return Domain(scope, self.user_id)
        return SITE if scope is Scope.SITE else None


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization, whose groups are listed."""

    id: Id

    @property
    def keys(self) -> dict[str, Id]:
        """What a statement about it is bound to."""
        return {"organization_id": self.id}


# What the policy is asked about; about an organization it is asked what is in it.
Object = Group | Member | PriceBook | Ledger | PolicyRules
# One of each type, for whoever asks what a policy says about all of them.
EXAMPLES: dict[ObjectType, Object] = {
    ObjectType.GROUP: Group("g", "o"),
    ObjectType.GROUP_AI_BUDGET: Group("g", "o"),
    ObjectType.AI_MODEL_PRICE: PriceBook(),
    ObjectType.AI_USAGE: Ledger(),
    ObjectType.AI_MEMBER_SPEND: Member("o", "u"),
    ObjectType.POLICY: PolicyRules(),
}
# What the site has one of, by the name that a caller asks for it by.
OF_THE_SITE = {"prices": PriceBook(), "ledger": Ledger(), "policy": PolicyRules()}
