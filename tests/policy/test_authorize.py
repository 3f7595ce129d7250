"""One decision: the same answers as stock Casbin with real `g` lines, and what they carry."""

from __future__ import annotations

import dataclasses
from itertools import chain, combinations

import pytest
from tests.policy.helpers import LINES, MORE, StockCasbin, answer, hold, load, number_of

from govbudget import Assignment, Domain, Forbidden, Group, Member, NotFound, Organization, Subject
from govbudget.authz.authorize import authorize, reach_members
from govbudget.authz.effective import find_effective_roles
from govbudget.identity import Action, Ledger, PriceBook

GROUPS = Group("a1", "a"), Group("a2", "a"), Group("b1", "b"), Group("b2", "b")
A1, A2, B1, B2 = GROUPS
ME, PEER, ME_THERE = Member("a", "someone"), Member("a", "peer"), Member("b", "someone")
OBJECTS = (*GROUPS, PriceBook(), Ledger(), ME, PEER, ME_THERE)
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


def list_reached(reach, ids):
    """Which of these are reached."""
    return {its_id for its_id in ids if (its_id in reach.exceptions) is not reach.elsewhere}


def find_allowed(policy, subject, action, objects):
    """What is allowed on these objects."""
    for obj in objects:
        if answer(policy, subject, action, obj) == "allowed":
            yield authorize(policy.table, subject, action, obj)


def subsets(items):
    return chain.from_iterable(combinations(items, n) for n in range(len(items) + 1))


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_what_is_allowed_says_who_may_do_what_to_which_object_and_by_which_lines(policy):
    subject = hold(("group-member", "group", "a1"), ("user-admin", "organization", "a"))
    allowed = policy.authorize(subject, "read", A1)
    assert (allowed.subject, allowed.action, allowed.object) == (subject, Action.READ, A1)
    assert allowed.roles == ("group-member", "user-admin")
    assert allowed.lines == ("policy.csv:22", "policy.csv:27")
    assert allowed.policy_digest == policy.digest
    assert allowed.reach is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        allowed.action = Action.UPDATE


def test_who_may_read_and_not_change_is_forbidden_and_the_log_learns_why(policy):
    with pytest.raises(Forbidden) as caught:
        policy.authorize(hold(("group-member", "group", "a1")), "update", A1)
    assert caught.value.action is Action.UPDATE
    assert caught.value.lines == ()
    assert caught.value.would_allow == (
        "policy.csv:8 (owner in its site)",
        "policy.csv:20 (org-admin in its organization)",
        "policy.csv:23 (user-admin in its organization)",
    )
    assert "policy.csv" not in caught.value.detail
    assert "update" in caught.value.detail


def test_who_is_refused_by_a_deny_line_learns_nothing_and_the_log_which():
    policy = load(lines=MORE)
    subject = hold(("org-admin", "organization", "a"), ("owner", "site"))
    with pytest.raises(Forbidden) as caught:
        policy.authorize(subject, "update", A1)
    assert caught.value.lines == (number_of(b"p, org-admin, organization, group, update, deny"),)
    assert "policy.csv" not in caught.value.detail


def test_who_may_do_nothing_with_a_group_is_told_that_there_is_none(policy):
    with pytest.raises(NotFound) as caught:
        policy.authorize(hold(("org-admin", "organization", "b")), "read", A1)
    assert caught.value.code == "group-not-found"
    assert "policy.csv:19 (org-admin in its organization)" in caught.value.would_allow


def test_who_may_do_nothing_with_a_members_spend_is_told_that_there_is_no_such_member(policy):
    with pytest.raises(NotFound) as caught:
        policy.authorize(hold(("group-member", "group", "a1")), "read", PEER)
    assert caught.value.code == "member-not-found"
    assert caught.value.detail == "no such member, or nothing you may do with it"
    assert "policy.csv:30 (self in its user)" in caught.value.would_allow


def test_who_reads_all_groups_of_an_organization_learns_nothing_of_its_members():
    policy = load(lines=MORE)
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
        for obj in (A1, PriceBook(), ME, Organization("a")):
            with pytest.raises(ValueError, match="not a known action"):
                policy.authorize(subject, action, obj)


@pytest.mark.parametrize(
    ("assignment", "obj", "said"),
    [
        (("group-membr", "group", "a1"), A1, "the policy declares no such role"),
        (("org-admin", "site"), A1, "scope is `organization`, and it is held in `site`"),
        (("owner", "organization", "a"), Organization("a"), "scope is `site`, and it is held in"),
        (("group-member", "group", "7"), Group(7, "a"), "the group ids '7' and 7 are of different"),
        (("org-admin", "organization", 1), Organization("1"), "the organization ids 1 and '1' are"),
        (("owner", "site"), Member("a", 5), "the user ids 'someone' and 5 are of different types"),
    ],
)
def test_a_subject_by_hand_whose_roles_could_never_count_is_an_error_and_no_denial(
    policy, assignment, obj, said
):
    with pytest.raises(ValueError, match=said):
        policy.authorize(hold(assignment), "read", obj)


def test_a_directory_may_report_scopes_as_plain_texts(policy):
    for subject in PEOPLE.values():
        held = tuple(
            Assignment(role, Domain(str(scope.value), its_id))
            for role, (scope, its_id) in subject.assignments
        )
        in_texts = Subject(subject.id, held)
        for obj in (*OBJECTS, Organization("a")):
            for action in Action:
                said = answer(policy, in_texts, action, obj)
                assert said == answer(policy, subject, action, obj)
                if said == "allowed":
                    reach = authorize(policy.table, in_texts, action, obj).reach
                    assert reach == authorize(policy.table, subject, action, obj).reach


def test_a_custom_role_of_one_line_reads_in_its_organization_and_nowhere_else():
    policy = load(lines=MORE)
    viewer = hold(("budget-viewer", "organization", "a"))
    answers = [answer(policy, viewer, action, obj) for obj in (A1, A2, B1) for action in Action]
    assert answers == ["allowed", "forbidden", "forbidden"] * 2 + ["not-found"] * 3
    assert answer(policy, hold(("budget-viewer", "site")), "read", A1) == "not-found"


def test_a_list_reaches_the_groups_that_may_be_read_one_by_one(policy):
    for subject in PEOPLE.values():
        check_list(policy, subject)


def check_list(policy, person):
    # what a directory reports for organization a: roles held on the site, in it and in its groups
    here = {("site",), ("organization", "a"), ("group", "a1"), ("group", "a2")}
    held = [
        (role, *(part for part in domain if part is not None))
        for role, domain in person.assignments
        if tuple(part for part in domain if part is not None) in here
    ]
    subject = hold(*held)
    scopes = policy.table.scopes
    effective = {
        role for group in (A1, A2) for role in find_effective_roles(subject, group, scopes)
    }
    if not effective:
        with pytest.raises(NotFound) as caught:
            authorize(policy.table, subject, "read", Organization("a"))
        assert caught.value.code == "organization-not-found"
        return
    for action in Action:
        one_by_one = {
            group.id for group in (A1, A2) if answer(policy, subject, action, group) == "allowed"
        }
        if action is not Action.READ and not one_by_one:
            assert answer(policy, subject, action, Organization("a")) == "forbidden"
            continue
        allowed = authorize(policy.table, subject, action, Organization("a"))
        assert list_reached(allowed.reach, ("a1", "a2")) == one_by_one
        assert set(allowed.roles) == effective
        assert allowed.policy_digest == policy.digest


def test_an_organization_or_group_without_an_id_lists_nothing(policy):
    subject = hold(("org-admin", "organization", None), ("group-member", "group", None))
    with pytest.raises(NotFound):
        policy.authorize(subject, "read", Organization(None))


def test_a_list_of_members_reaches_those_whose_spend_may_be_read_one_by_one(policy):
    """Whoever reads the organization, or one of its groups, asks this way."""
    for subject in PEOPLE.values():
        check_list_of_members(policy, subject)


def check_list_of_members(policy, subject):
    for allowed in find_allowed(policy, subject, "read", (*GROUPS, Organization("a"))):
        reach = reach_members(policy.table, allowed)
        place = "a" if allowed.object == Organization("a") else allowed.object.organization_id
        users = ("someone", "peer", "stranger", "a")
        assert list_reached(reach, users) == {
            user
            for user in users
            if answer(policy, subject, "read", Member(place, user)) == "allowed"
        }
        assert reach.exceptions == (() if reach.elsewhere else (subject.id,))


def test_who_may_do_nothing_to_any_members_spend_is_refused(policy):
    allowed = policy.authorize(hold(("owner", "site")), "update", A1)
    with pytest.raises(Forbidden) as caught:
        reach_members(policy.table, allowed)
    assert caught.value.action is Action.UPDATE


def test_a_deny_toward_oneself_takes_the_own_row_out_of_an_administrators_list():
    policy = load(lines=MORE)
    owner = policy.authorize(hold(("owner", "site")), "read", Organization("a"))
    assert list_reached(reach_members(policy.table, owner), ("peer", "someone")) == {"peer"}
    member = policy.authorize(hold(("group-member", "group", "a1")), "read", A1)
    with pytest.raises(Forbidden) as caught:
        reach_members(policy.table, member)
    assert caught.value.lines == (number_of(b"p, self, user, ai_member_spend, read, deny"),)


def test_the_operator_of_a_command_is_nobody_toward_whom_a_role_of_oneself_is_held(policy):
    operator = hold(("owner", "site"), subject_id=None)
    allowed = policy.authorize(operator, "read", Organization("a"))
    assert allowed.roles == ("owner",)
    assert reach_members(policy.table, allowed).elsewhere
    assert answer(policy, hold(subject_id=None), "read", Member("a", None)) == "not-found"
