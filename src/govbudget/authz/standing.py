"""The standing of a subject toward one object: which of its roles count there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from govbudget.identity import Scope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from govbudget.identity import Domain, Object, Subject


def find_standing(subject: Subject, obj: Object, scopes: Mapping[str, Scope]) -> tuple[str, ...]:
    """Give the roles whose domain is the object's own domain at the role's scope.

    `scopes` are the policy's roles and their scopes. A role that the policy does not declare, or
    that is held in a domain of another scope, counts for nothing. Pure; each role once.
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
    return tuple(roles)


def is_holdable(domain: Domain) -> bool:
    """Whether a role can be held there: an organization or a group without an id is nowhere.

    Without this, "no organization" would be one organization, the same for everyone.
    """
    return domain.id is not None or domain.scope is Scope.SITE
