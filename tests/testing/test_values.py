"""Subjects and groups by hand, in one line each."""

from __future__ import annotations

import pytest

from govbudget import SITE, Assignment, Domain, Forbidden, Group, NotFound, Policy, Scope
from govbudget.testing import make_group, make_subject


def test_a_subject_holds_what_is_written():
    subject = make_subject(
        "ada", ("owner", "site"), ("org-admin", "organization:a"), ("group-member", "group:a1")
    )
    assert subject.id == "ada"
    assert subject.assignments == (
        Assignment("owner", SITE),
        Assignment("org-admin", Domain(Scope.ORGANIZATION, "a")),
        Assignment("group-member", Domain(Scope.GROUP, "a1")),
    )


def test_they_are_what_authorize_takes():
    policy, group = Policy.load(), make_group("a1", "a")
    assert group == Group("a1", "a")
    admin = make_subject("ada", ("org-admin", "organization:a"))
    assert policy.authorize(admin, "update", group).object == group
    with pytest.raises(Forbidden):
        policy.authorize(make_subject("bob", ("group-member", "group:a1")), "update", group)
    with pytest.raises(NotFound):
        policy.authorize(make_subject("cy", ("org-admin", "organization:b")), "read", group)


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "sites",
        "site:",
        "site:1",
        "organization",
        "organization:",
        "organization: a",
        "group:a1 ",
        "team:1",
        "user:1",
    ],
)
def test_a_domain_that_is_none_is_an_error(domain):
    with pytest.raises(ValueError, match="is not a domain"):
        make_subject("ada", ("owner", domain))


@pytest.mark.parametrize(
    "held",
    [
        ("owner", "site"),
        ([("owner", "site")],),
        (("owner", "site", "a"),),
        (("owner", SITE),),
        (("owner",),),
        ("ab",),
    ],
)
def test_what_is_not_a_role_and_a_domain_is_an_error_that_shows_it(held):
    with pytest.raises(ValueError, match="is not a role and a domain; write a pair"):
        make_subject("ada", *held)
