"""The grant: the receipt of an allowed decision, and the key to every function with budget SQL."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NoReturn, Self

from govbudget.errors import GrantRefused

if TYPE_CHECKING:
    from govbudget.authz.table import Decision
    from govbudget.identity import Action, Id, Object, ObjectType, Organization, Subject


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Receipt:
    """What both kinds of grant share: made by `Policy` only, for one unit of work, unchangeable."""

    subject: Subject
    roles: tuple[str, ...]
    action: Action
    decision: Decision

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        """Refuse: only an allowed decision mints a grant."""
        # INVARIANT: a grant is minted by an allowed decision and nothing else
        raise TypeError(f"a {cls.__name__} is minted by a Policy that allows it, never by hand")

    def __init_subclass__(cls) -> None:
        """Refuse subclasses from outside this module."""
        if cls.__module__ != __name__:
            raise TypeError("a grant can't be subclassed")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled: a grant is for one unit of work."""
        raise TypeError("a grant can't be copied or pickled; authorize again where it is needed")

    @property
    def lines(self) -> tuple[str, ...]:
        """The policy lines that allowed it."""
        return self.decision.lines

    @property
    def policy_digest(self) -> str:
        """The digest of the policy that allowed it."""
        return self.decision.policy_digest


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Grant(_Receipt):
    """Leave to do one action to one object, in the transaction that the standing was loaded in.

    Minted by `Policy.authorize`. It guards against forgetting, not against hostile code in the
    same process.
    """

    object: Object

    @property
    def object_type(self) -> ObjectType:
        """The kind of object that it is for."""
        return self.object.type


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ListGrant(_Receipt):
    """Leave to list an organization's groups, or its members, as far as the policy allows.

    One is listed where `allowed_elsewhere` is true, except for those in `exceptions`, for which the
    opposite holds: groups in which the caller holds a role that changes the answer, or the caller.
    """

    object_type: ObjectType
    organization: Organization
    allowed_elsewhere: bool
    exceptions: tuple[Id, ...]

    def covers(self, group_or_user_id: Id) -> bool:
        """Whether the group, or the member, with this id is listed."""
        return self.allowed_elsewhere is not (group_or_user_id in self.exceptions)


# A slot's own `__set__`, which `object.__setattr__` would look up by name, at half the speed.
_put_subject, _put_roles, _put_action, _put_decision, _put_object = (
    getattr(Grant, field.name).__set__ for field in fields(Grant)
)


def mint_grant(
    subject: Subject, roles: tuple[str, ...], action: Action, obj: Object, decision: Decision
) -> Grant:
    """Mint a grant for an allowed decision. Called by `Policy` and nothing else."""
    grant = object.__new__(Grant)
    _put_subject(grant, subject)
    _put_roles(grant, roles)
    _put_action(grant, action)
    _put_decision(grant, decision)
    _put_object(grant, obj)
    return grant


def require_grant(grant: Grant, action: Action, obj: Object, unit_of_work: object | None) -> None:
    """Refuse (GrantRefused) a grant that does not cover this action on this object, here and now.

    `unit_of_work` is `connection.get_transaction()` of the connection about to be used.
    """
    _require_receipt(grant, Grant, action, obj.type, unit_of_work)
    if grant.object != obj:
        raise GrantRefused(f"the grant is for `{grant.object}`, not for `{obj}`")


def require_list_grant(
    grant: ListGrant,
    action: Action,
    object_type: ObjectType,
    organization: Organization,
    unit_of_work: object | None,
) -> None:
    """Refuse (GrantRefused) a list grant that does not cover this organization, here and now."""
    _require_receipt(grant, ListGrant, action, object_type, unit_of_work)
    if grant.organization != organization:
        raise GrantRefused(f"the grant is for `{grant.organization}`, not for `{organization}`")


def _require_receipt(
    grant: Grant | ListGrant,
    kind: type[Grant | ListGrant],
    action: Action,
    object_type: ObjectType,
    unit_of_work: object | None,
) -> None:
    if type(grant) is not kind:
        raise GrantRefused(f"expected a {kind.__name__} from Policy, got `{type(grant).__name__}`")
    try:
        unit = grant.subject.unit_of_work
    except AttributeError:
        raise GrantRefused("the grant was made by hand; call Policy.authorize") from None
    if grant.action is not action:
        raise GrantRefused(f"the grant is for the action `{grant.action}`, not for `{action}`")
    if grant.object_type is not object_type:
        raise GrantRefused(f"the grant is for a `{grant.object_type}`, not for a `{object_type}`")
    if unit is None or unit is not unit_of_work:
        raise GrantRefused(
            "the grant belongs to another connection or transaction than the one in use; load the "
            "subject and the group on this connection, in this transaction, then authorize"
        )
