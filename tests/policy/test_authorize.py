"""Policy.authorize: the same answers as stock Casbin with real `g` lines, and what they carry."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
from tests.policy.helpers import LINES, StockCasbin, answer, hold, load

from govbudget import Action, Forbidden, Group, NotFound, ObjectType, Organization, PriceBook

A1, A2, B1, B2 = Group("a1", "a"), Group("a2", "a"), Group("b1", "b"), Group("b2", "b")
OBJECTS = (A1, A2, B1, B2, PriceBook())
DOMAINS = (
    ("site",),
    ("organization", "a"),
    ("organization", "b"),
    ("group", "a1"),
    ("group", "a2"),
    ("group", "b1"),
    ("group", "b2"),
)
ROLES = ("owner", "org-admin", "user-admin", "group-member")
PLACES = {  # where each role counts toward the group a1
    "owner": ("site",),
    "org-admin": ("organization", "a"),
    "user-admin": ("organization", "a"),
    "group-member": ("group", "a1"),
}

# each role held in each domain, right or wrong; then people with several
PEOPLE = {
    "-".join((role, *domain)): hold((role, *domain)) for role in ROLES for domain in DOMAINS
} | {
    "nobody": hold(),
    "admin-here-member-there": hold(
        ("org-admin", "organization", "a"), ("group-member", "group", "b1")
    ),
    "member-of-all": hold(*(("group-member", "group", g.id) for g in (A1, A2, B1, B2))),
    "wrong-everywhere": hold(
        ("owner", "organization", "a"),
        ("owner", "group", "a1"),
        ("org-admin", "site"),
        ("user-admin", "group", "a1"),
        ("group-member", "organization", "a"),
        ("group-member", "site"),
    ),
    "id-of-another-kind": hold(("org-admin", "organization", "a1"), ("group-member", "group", "a")),
}


def subsets(items):
    return chain.from_iterable(combinations(items, n) for n in range(len(items) + 1))


def test_every_user_object_and_action_is_answered_as_by_stock_casbin(policy):
    stock = StockCasbin(LINES, PEOPLE)
    answers = {
        (name, obj, action): (answer(policy, subject, action, obj), stock.answer(name, action, obj))
        for name, subject in PEOPLE.items()
        for obj in OBJECTS
        for action in Action
    }
    differences = {case: pair for case, pair in answers.items() if pair[0] != pair[1]}
    assert differences == {}
    assert {mine for mine, _ in answers.values()} == {"allowed", "forbidden", "not-found"}
    assert answers["owner-organization-a", A1, "read"][0] == "not-found"
    assert answers["org-admin-site", A1, "read"][0] == "not-found"


def test_every_set_of_roles_of_the_shipped_policy_is_decided_as_by_stock_casbin(policy):
    sets = list(subsets(ROLES))
    assert len(sets) == 2**4
    people = {"+".join(held): hold(*((role, *PLACES[role]) for role in held)) for held in sets}
    stock = StockCasbin(LINES, people)
    for held in sets:
        for obj in (A1, PriceBook()):
            for action in Action:
                # the price book has a site only: roles of other scopes have no standing there
                roles = held if obj is A1 else tuple(role for role in held if role == "owner")
                decision = policy.decide(roles, obj.type, action)
                assert decision.allowed is stock.allows("+".join(held), action, obj)


def test_a_subject_that_is_named_like_a_role_may_do_nothing(policy):
    for role in ROLES:
        assert answer(policy, hold(subject_id=role), "read", A1) == "not-found"


def test_a_grant_says_who_may_do_what_to_which_object_and_by_which_lines(policy):
    subject = hold(("group-member", "group", "a1"), ("user-admin", "organization", "a"))
    grant = policy.authorize(subject, "read", A1)
    assert (grant.subject, grant.action, grant.object) == (subject, Action.READ, A1)
    assert grant.object_type is ObjectType.GROUP
    assert grant.roles == ("group-member", "user-admin")
    assert grant.lines == ("policy.csv:15", "policy.csv:19")
    assert grant.policy_digest == policy.digest
    assert grant.decision == policy.decide(grant.roles, "group", "read")


def test_who_may_read_and_not_change_is_forbidden_and_the_log_learns_why(policy):
    with pytest.raises(Forbidden) as caught:
        policy.authorize(hold(("group-member", "group", "a1")), "update", A1)
    assert caught.value.action is Action.UPDATE
    assert caught.value.lines == ()
    assert caught.value.would_allow == (
        "policy.csv:8 (owner in its site)",
        "policy.csv:14 (org-admin in its organization)",
        "policy.csv:16 (user-admin in its organization)",
    )
    assert "policy.csv" not in caught.value.detail
    assert "update" in caught.value.detail


def test_who_is_refused_by_a_deny_line_learns_nothing_and_the_log_which():
    policy = load(lines=LINES + b"p, org-admin, organization, group, update, deny\n")
    subject = hold(("org-admin", "organization", "a"), ("owner", "site"))
    with pytest.raises(Forbidden) as caught:
        policy.authorize(subject, "update", A1)
    added = LINES.count(b"\n") + 1
    assert caught.value.lines == (f"policy.csv:{added}",)
    assert "policy.csv" not in caught.value.detail


def test_who_may_do_nothing_with_a_group_is_told_that_there_is_none(policy):
    with pytest.raises(NotFound) as caught:
        policy.authorize(hold(("org-admin", "organization", "b")), "read", A1)
    assert caught.value.code == "group-not-found"
    assert "policy.csv:13 (org-admin in its organization)" in caught.value.would_allow


def test_site_wide_objects_are_forbidden_and_never_not_found(policy):
    with pytest.raises(Forbidden):
        policy.authorize(hold(), "read", PriceBook())


@pytest.mark.parametrize("action", ["write", "READ", "", "create"])
def test_an_unknown_action_is_a_value_error_and_no_denial(policy, action):
    for subject in (hold(), hold(("owner", "site"))):
        with pytest.raises(ValueError, match="no action of this policy"):
            policy.authorize(subject, action, A1)
        with pytest.raises(ValueError, match="no action of this policy"):
            policy.authorize_list(hold(("owner", "site")), action, Organization("a"))


def test_a_custom_role_of_one_line_reads_in_its_organization_and_nowhere_else():
    policy = load(lines=LINES + b"p, budget-viewer, organization, group, read, allow\n")
    viewer = hold(("budget-viewer", "organization", "a"))
    answers = [answer(policy, viewer, action, obj) for obj in (A1, A2, B1) for action in Action]
    assert answers == ["allowed", "forbidden"] * 2 + ["not-found"] * 2
    assert answer(policy, hold(("budget-viewer", "site")), "read", A1) == "not-found"


def is_listed(grant, group_id):
    return grant.allowed_elsewhere is not (group_id in grant.exceptions)


@pytest.mark.parametrize("name", PEOPLE)
def test_a_list_reaches_the_groups_that_may_be_read_one_by_one(policy, name):
    # what a directory reports for organization a: roles held on the site, in it and in its groups
    here = {("site",), ("organization", "a"), ("group", "a1"), ("group", "a2")}
    held = [
        (role, *(part for part in domain if part is not None))
        for role, domain in PEOPLE[name].assignments
        if tuple(part for part in domain if part is not None) in here
    ]
    subject = hold(*held)
    standing = {role for group in (A1, A2) for role in policy_roles(policy, subject, group)}
    if not standing:
        with pytest.raises(NotFound) as caught:
            policy.authorize_list(subject, "read", Organization("a"))
        assert caught.value.code == "organization-not-found"
        return
    for action in Action:
        grant = policy.authorize_list(subject, action, Organization("a"))
        for group in (A1, A2):
            allowed = answer(policy, subject, action, group) == "allowed"
            assert is_listed(grant, group.id) is allowed
        assert set(grant.roles) == standing
        assert grant.policy_digest == policy.digest


def policy_roles(policy, subject, group):
    from govbudget.authz.standing import find_standing

    return find_standing(subject, group, policy.table.scopes)


def test_an_organization_or_group_without_an_id_lists_nothing(policy):
    subject = hold(("org-admin", "organization", None), ("group-member", "group", None))
    with pytest.raises(NotFound):
        policy.authorize_list(subject, "read", Organization(None))
