"""The effective roles: which of a subject's roles count toward one object."""

from __future__ import annotations

from itertools import product
from types import MappingProxyType

import pytest
from tests.policy.helpers import hold

from govbudget import Domain, Group, Member, Scope
from govbudget.authz.effective import find_effective_roles, find_fault
from govbudget.identity import Ledger, PriceBook

SCOPES = MappingProxyType(
    {
        "owner": Scope.SITE,
        "org-admin": Scope.ORGANIZATION,
        "user-admin": Scope.ORGANIZATION,
        "group-member": Scope.GROUP,
        "self": Scope.USER,
    }
)
GROUP = Group("g", "o")
MEMBER = Member("o", "m")

COUNTS = [
    (("owner", "site"), ["group", "prices", "ledger", "member"]),
    (("org-admin", "organization", "o"), ["group", "member"]),
    (("user-admin", "organization", "o"), ["group", "member"]),
    (("group-member", "group", "g"), ["group"]),
    # another organization, another group
    (("org-admin", "organization", "other"), []),
    (("group-member", "group", "other"), []),
    # an id of another kind of thing, or of another type
    (("org-admin", "organization", "g"), []),
    (("group-member", "group", "o"), []),
    (("org-admin", "organization", 1), []),
    # a wrong scope
    (("owner", "organization", "o"), []),
    (("owner", "group", "g"), []),
    (("org-admin", "site"), []),
    (("org-admin", "group", "g"), []),
    (("group-member", "site"), []),
    (("group-member", "organization", "o"), []),
    (("org-admin", "user", "m"), []),
    (("owner", "user", "m"), []),
    # no such role, no such place
    (("auditor", "site"), []),
    (("", "site"), []),
    (("owner", "site", "o"), []),
    (("org-admin", "organization"), []),
    (("group-member", "group"), []),
]


def test_a_role_held_outside_the_objects_own_domain_counts_for_nothing():
    objects = {"group": GROUP, "prices": PriceBook(), "ledger": Ledger(), "member": MEMBER}
    for assignment, counts in COUNTS:
        subject = hold(assignment)
        for name, obj in objects.items():
            expected = (assignment[0],) if name in counts else ()
            assert find_effective_roles(subject, obj, SCOPES) == expected


@pytest.mark.parametrize("obj", [Group(None, None), Group("g", None), Group(None, "o")])
def test_having_no_organization_or_no_group_is_not_one_that_is_shared(obj):
    subject = hold(("org-admin", "organization", None), ("group-member", "group", None))
    assert find_effective_roles(subject, obj, SCOPES) == ()


def test_each_role_counts_once_in_the_order_held():
    subject = hold(
        ("group-member", "group", "g"),
        ("org-admin", "organization", "other"),
        ("owner", "site"),
        ("group-member", "group", "g"),
        ("org-admin", "organization", "o"),
    )
    assert find_effective_roles(subject, GROUP, SCOPES) == ("group-member", "owner", "org-admin")


def test_nobody_has_no_effective_roles():
    assert find_effective_roles(hold(), GROUP, SCOPES) == ()


def test_a_subject_that_is_named_like_a_role_or_a_group_has_no_effective_roles():
    for name in ("owner", "g", "o"):
        assert find_effective_roles(hold(subject_id=name), GROUP, SCOPES) == ()


def test_a_role_of_the_scope_user_is_held_toward_oneself_and_nobody_else():
    for assignments in ((), (("self", "user", "m"),), (("self", "site"),), (("self", "user"),)):
        me, other = hold(*assignments, subject_id="m"), hold(*assignments, subject_id="other")
        assert find_effective_roles(me, MEMBER, SCOPES) == ("self",)
        assert find_effective_roles(other, MEMBER, SCOPES) == ()
        assert find_effective_roles(me, Member("elsewhere", "m"), SCOPES) == ("self",)
        for obj in (GROUP, PriceBook(), Ledger(), Group("m", "m")):
            assert find_effective_roles(me, obj, SCOPES) == ()


def test_nobody_is_the_user_without_an_id():
    assert find_effective_roles(hold(subject_id=None), Member("o", None), SCOPES) == ()


def test_a_policy_without_a_role_of_the_scope_user_gives_nobody_anything_toward_themselves():
    scopes = {role: scope for role, scope in SCOPES.items() if role != "self"}
    assert find_effective_roles(hold(subject_id="m"), MEMBER, scopes) == ()


def test_a_role_that_is_held_at_another_scope_has_a_fault_that_says_so():
    for scope, held in product(Scope, Scope):
        domain = Domain(held, None if held is Scope.SITE else "x")
        fault = find_fault("buyer", domain, {"buyer": scope})
        said = f"the role's scope is `{scope}`, and it is held in `{held}`"
        assert fault == (None if scope is held else said)
