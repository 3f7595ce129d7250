"""Policy.authorize: the same answers as stock Casbin with real `g` lines, and what they carry."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
from tests.policy.helpers import LINES, StockCasbin, answer, hold, load

from govbudget import (
    Action,
    Forbidden,
    Group,
    Ledger,
    Member,
    NotFound,
    ObjectType,
    Organization,
    PriceBook,
)
from govbudget.authz.effective import find_effective_roles

A1, A2, B1, B2 = Group("a1", "a"), Group("a2", "a"), Group("b1", "b"), Group("b2", "b")
ME, PEER, ME_THERE = Member("a", "someone"), Member("a", "peer"), Member("b", "someone")
OBJECTS = (A1, A2, B1, B2, PriceBook(), Ledger(), ME, PEER, ME_THERE)
DOMAINS = (
    ("site",),
    ("organization", "a"),
    ("organization", "b"),
    ("group", "a1"),
    ("group", "a2"),
    ("group", "b1"),
    ("group", "b2"),
)
ROLES = ("owner", "gateway", "org-admin", "user-admin", "group-member", "self")
PLACES = {  # where each role counts toward the group a1
    "owner": ("site",),
    "org-admin": ("organization", "a"),
    "user-admin": ("organization", "a"),
    "group-member": ("group", "a1"),
    "gateway": ("site",),
}

# each role held in each domain, right or wrong; then people with several
PEOPLE = {
    "-".join((role, *domain)): hold((role, *domain)) for role in ROLES for domain in DOMAINS
} | {
    "nobody": hold(),
    "stranger": hold(subject_id="stranger"),
    "self-toward-a-peer": hold(("self", "user", "peer"), ("org-admin", "user", "peer")),
    "named-like-an-organization": hold(subject_id="a"),
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
    assert answers["nobody", ME, "read"][0] == "allowed"
    assert answers["self-toward-a-peer", PEER, "read"][0] == "not-found"


def test_every_set_of_roles_of_the_shipped_policy_is_decided_as_by_stock_casbin(policy):
    assert {*PLACES, "self"} == set(ROLES)
    sets = list(subsets(PLACES))
    assert len(sets) == 2**5
    people = {"+".join(held): hold(*((role, *PLACES[role]) for role in held)) for held in sets}
    stock = StockCasbin(LINES, people)
    for held in sets:
        for obj in (A1, PriceBook(), Ledger(), ME, PEER):
            for action in Action:
                roles = find_effective_roles(people["+".join(held)], obj, policy.table.scopes)
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
    assert grant.lines == ("policy.csv:20", "policy.csv:25")
    assert grant.policy_digest == policy.digest
    assert grant.decision == policy.decide(grant.roles, "group", "read")


def test_who_may_read_and_not_change_is_forbidden_and_the_log_learns_why(policy):
    with pytest.raises(Forbidden) as caught:
        policy.authorize(hold(("group-member", "group", "a1")), "update", A1)
    assert caught.value.action is Action.UPDATE
    assert caught.value.lines == ()
    assert caught.value.would_allow == (
        "policy.csv:8 (owner in its site)",
        "policy.csv:18 (org-admin in its organization)",
        "policy.csv:21 (user-admin in its organization)",
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
    assert "policy.csv:17 (org-admin in its organization)" in caught.value.would_allow


def test_who_may_do_nothing_with_a_members_spend_is_told_that_there_is_no_such_member(policy):
    with pytest.raises(NotFound) as caught:
        policy.authorize(hold(("group-member", "group", "a1")), "read", PEER)
    assert caught.value.code == "member-not-found"
    assert caught.value.detail == "no such member, or nothing you may do with it"
    assert "policy.csv:28 (self in its user)" in caught.value.would_allow


def test_who_reads_all_groups_of_an_organization_learns_nothing_of_its_members():
    policy = load(lines=LINES + b"p, budget-viewer, organization, group, read, allow\n")
    viewer = hold(("budget-viewer", "organization", "a"))
    assert answer(policy, viewer, "read", PEER) == "not-found"


def test_who_reads_a_members_spend_and_does_more_is_forbidden(policy):
    assert answer(policy, hold(), "update", ME) == "forbidden"


@pytest.mark.parametrize("obj", [PriceBook(), Ledger()])
def test_site_wide_objects_are_forbidden_and_never_not_found(policy, obj):
    with pytest.raises(Forbidden):
        policy.authorize(hold(), "read", obj)


@pytest.mark.parametrize("action", ["write", "READ", "", "delete"])
def test_an_unknown_action_is_a_value_error_and_no_denial(policy, action):
    for subject in (hold(), hold(("owner", "site"))):
        with pytest.raises(ValueError, match="no action of this policy"):
            policy.authorize(subject, action, A1)
        with pytest.raises(ValueError, match="no action of this policy"):
            policy.authorize_list(hold(("owner", "site")), action, Organization("a"))
        with pytest.raises(ValueError, match="no action of this policy"):
            policy.authorize_members(subject, action, Organization("a"))


def test_a_custom_role_of_one_line_reads_in_its_organization_and_nowhere_else():
    policy = load(lines=LINES + b"p, budget-viewer, organization, group, read, allow\n")
    viewer = hold(("budget-viewer", "organization", "a"))
    answers = [answer(policy, viewer, action, obj) for obj in (A1, A2, B1) for action in Action]
    assert answers == ["allowed", "forbidden", "forbidden"] * 2 + ["not-found"] * 3
    assert answer(policy, hold(("budget-viewer", "site")), "read", A1) == "not-found"


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
    scopes = policy.table.scopes
    standing = {role for group in (A1, A2) for role in find_effective_roles(subject, group, scopes)}
    if not standing:
        with pytest.raises(NotFound) as caught:
            policy.authorize_list(subject, "read", Organization("a"))
        assert caught.value.code == "organization-not-found"
        return
    for action in Action:
        grant = policy.authorize_list(subject, action, Organization("a"))
        for group in (A1, A2):
            allowed = answer(policy, subject, action, group) == "allowed"
            assert grant.covers(group.id) is allowed
        assert set(grant.roles) == standing
        assert grant.policy_digest == policy.digest


def test_an_organization_or_group_without_an_id_lists_nothing(policy):
    subject = hold(("org-admin", "organization", None), ("group-member", "group", None))
    with pytest.raises(NotFound):
        policy.authorize_list(subject, "read", Organization(None))


@pytest.mark.parametrize("name", PEOPLE)
def test_a_list_of_members_reaches_those_whose_spend_may_be_read_one_by_one(policy, name):
    subject = PEOPLE[name]
    grant = policy.authorize_members(subject, "read", Organization("a"))
    assert (grant.object_type, grant.organization) == (
        ObjectType.AI_MEMBER_SPEND,
        Organization("a"),
    )
    for user in ("someone", "peer", "stranger", "a"):
        allowed = answer(policy, subject, "read", Member("a", user)) == "allowed"
        assert grant.covers(user) is allowed
    assert grant.exceptions == (() if grant.allowed_elsewhere else (subject.id,))


def test_a_grant_for_oneself_says_by_which_line_and_as_what(policy):
    grant = policy.authorize_members(hold(), "read", Organization("a"))
    assert (grant.roles, grant.lines) == (("self",), ("policy.csv:28",))
    owner = policy.authorize_members(hold(("owner", "site")), "read", Organization("a"))
    assert (owner.roles, owner.lines) == (("owner", "self"), ("policy.csv:11",))


def test_who_may_do_nothing_to_any_members_spend_is_refused(policy):
    with pytest.raises(Forbidden) as caught:
        policy.authorize_members(hold(("owner", "site")), "update", Organization("a"))
    assert caught.value.action is Action.UPDATE


def test_a_deny_toward_oneself_takes_the_own_row_out_of_an_administrators_list():
    policy = load(lines=LINES + b"p, self, user, ai_member_spend, read, deny\n")
    grant = policy.authorize_members(hold(("owner", "site")), "read", Organization("a"))
    assert (grant.covers("peer"), grant.covers("someone")) == (True, False)
    with pytest.raises(Forbidden):
        policy.authorize_members(hold(), "read", Organization("a"))
