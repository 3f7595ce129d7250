"""The effective roles of a subject toward one object: which of its roles count there."""

from __future__ import annotations

from collections.abc import Mapping

from govbudget.identity import SITE, Assignment, Domain, Object, Organization, Scope, Subject

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
        # Scopes are compared with `==`: a directory of a host may report them as plain texts.
        if (
            scope == domain.scope
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
    return scope == _SITE or (domain_id is not None and scope != _USER)


def find_fault(role: str, domain: Domain, scopes: Mapping[str, Scope]) -> str | None:
    """Say why a role that is held there counts toward nothing; None: it may count."""
    scope = scopes.get(role)
    if scope is None:
        return "the policy declares no such role"
    if scope != domain.scope:
        return f"the role's scope is `{scope}`, and it is held in `{domain.scope}`"
    return None


def find_mistake(
    subject: Subject, obj: Object | Organization, scopes: Mapping[str, Scope]
) -> str | None:
    """Say what is wrong with a subject that was made by hand to ask about this object; None: sound.

    A role that counts toward nothing, or an id of another type than the object's, which is never
    equal to it: a test that has one would see a denial, whatever the policy says.
    """
    for role, domain in subject.assignments:
        if fault := find_fault(role, domain, scopes):
            return f"`{role}` in `{domain}` counts for nothing: {fault}"
    held = [(domain.scope, domain.id) for _, domain in subject.assignments]
    for scope, its_id in [*held, (_USER, subject.id)]:
        own = obj.keys.get(f"{scope}_id")
        if own is not None and its_id is not None and type(own) is not type(its_id):
            return f"the {scope} ids {its_id!r} and {own!r} are of different types, so never equal"
    return None
