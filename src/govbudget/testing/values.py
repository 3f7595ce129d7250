"""Subjects and groups, made by hand in one line."""

from __future__ import annotations

from govbudget.identity import SITE, Assignment, Domain, Group, Id, Scope, Subject


def make_group(group_id: Id, organization_id: Id) -> Group:
    """Make a group of an organization."""
    return Group(group_id, organization_id)


def make_subject(subject_id: Id, *held: tuple[str, str]) -> Subject:
    """Make a subject from (role, domain) pairs.

    A domain is written `site`, `organization:<id>` or `group:<id>`; ids are texts then. Use
    `Subject` and `Assignment` for ids of another type. Raises ValueError for what is not such a
    pair, and for another domain: a role of the scope `user` is not held in one, since all hold it
    toward themselves.
    """
    return Subject(subject_id, tuple(map(_read_assignment, held)))


def _read_assignment(pair: tuple[str, str]) -> Assignment:
    match pair:
        case (str(role), str(domain)):
            return Assignment(role, _read_domain(domain))
    raise ValueError(f"`{pair!r}` is not a role and a domain; write a pair: ('owner', 'site')")


def _read_domain(text: str) -> Domain:
    scope, _, domain_id = text.partition(":")
    if text == Scope.SITE:
        return SITE
    is_id = domain_id and domain_id == domain_id.strip()
    if scope not in {Scope.ORGANIZATION, Scope.GROUP} or not is_id:
        message = f"`{text}` is not a domain; write `site`, `organization:<id>` or `group:<id>`"
        raise ValueError(message)
    return Domain(Scope(scope), domain_id)
