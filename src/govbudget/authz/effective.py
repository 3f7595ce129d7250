"""The effective roles of a subject toward one object: which of its roles count there."""

from __future__ import annotations

from collections.abc import Mapping

from govbudget.identity import SITE, Assignment, Domain, Object, Scope, Subject

# An attribute of an enumeration costs 90 ns a look-up, a third of what the roles take.
_SITE, _USER = Scope.SITE, Scope.USER


def find_effective_roles(
    subject: Subject, obj: Object, scopes: Mapping[str, Scope]
) -> tuple[str, ...]:
    """Give the roles whose domain is the object's own domain at the role's scope.

    `scopes` are the policy's roles and their scopes. A role that the policy does not declare, or
    that is held in a domain of another scope, counts for nothing. The roles of the scope `user` are
    held by everyone toward themselves, and by no assignment. Pure; each role once.
    """
    roles: list[str] = []
    for role, domain in subject.assignments:
        scope = scopes.get(role)
        # INVARIANT: a role held outside the object's own domain counts for nothing
        # `obj.domain` of a scope that the object lacks is None, which no domain equals.
        if (
            scope is domain.scope
            and obj.domain(scope) == domain
            and is_holdable(domain)
            and role not in roles
        ):
            roles.append(role)
    user = obj.domain(_USER)
    # INVARIANT: a role of the scope `user` is held toward oneself and nobody else
    if user is not None and user.id is not None and user.id == subject.id:
        roles += (role for role, scope in scopes.items() if scope is _USER)
    return tuple(roles)


def find_operator(scopes: Mapping[str, Scope]) -> Subject:
    """Give the subject of a command: it holds every role of the site."""
    held = (Assignment(role, SITE) for role, scope in scopes.items() if scope is _SITE)
    return Subject(None, tuple(held))


def is_holdable(domain: Domain) -> bool:
    """Whether a role can be assigned there: an organization or a group without an id is nowhere.

    Without this, "no organization" would be one organization, the same for everyone. Nor can a role
    be assigned toward a user: all have those toward themselves, and nobody toward another.
    """
    scope, domain_id = domain
    return scope is _SITE or (domain_id is not None and scope is not _USER)


def find_fault(role: str, domain: Domain, scopes: Mapping[str, Scope]) -> str | None:
    """Say why a role that is held there counts toward nothing; None: it may count."""
    scope = scopes.get(role)
    if scope is None:
        return "the policy declares no such role"
    if scope is not domain.scope:
        return f"the role's scope is `{scope}`, and it is held in `{domain.scope}`"
    return None
