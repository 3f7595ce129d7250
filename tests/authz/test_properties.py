"""Any policy, with deny lines: the table, stock Casbin and the lists agree."""

from __future__ import annotations

from itertools import combinations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.policy.helpers import StockCasbin, answer, hold, load

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
    Scope,
)
from govbudget.authz.effective import find_effective_roles
from govbudget.authz.files import packaged_policy_dir, read_policy_files

GROUPS = tuple(Group(f"{o}{n}", o) for o in "ab" for n in (1, 2))
MEMBERS = (Member("a", "someone"), Member("a", "other"))
BUDGET = Group("a1", "a", ObjectType.GROUP_AI_BUDGET)
OBJECTS = (*GROUPS, BUDGET, PriceBook(), Ledger(), *MEMBERS)
DOMAINS = (
    ("site",),
    ("organization", "a"),
    ("organization", "b"),
    *(("group", group.id) for group in GROUPS),
    ("user", "other"),
)
ROLES = ("r1", "r2", "r3", "r4")


@st.composite
def draw_lines(draw):
    """Some lines over four roles, of one scope each, a third of them denials."""
    scopes = {role: draw(st.sampled_from(list(Scope))) for role in ROLES}
    effects = st.sampled_from(["allow", "allow", "deny"])
    right = st.tuples(
        st.sampled_from(ROLES),
        st.sampled_from(["group", *ObjectType]),
        st.sampled_from(list(Action)),
        effects,
    )
    rights = draw(st.lists(right, min_size=1, max_size=8))
    rows = [f"p, {role}, {scopes[role]}, {obj}, {act}, {eft}" for role, obj, act, eft in rights]
    return "\n".join(rows).encode()


SUBJECTS = st.lists(
    st.tuples(st.sampled_from((*ROLES, "unknown")), st.sampled_from(DOMAINS)), max_size=6
).map(lambda held: hold(*((role, *domain) for role, domain in held)))

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(lines=draw_lines(), people=st.lists(SUBJECTS, min_size=1, max_size=3))
def test_any_policy_answers_as_stock_casbin_does(lines, people):
    policy = load(lines=lines)
    named = {str(number): subject for number, subject in enumerate(people)}
    stock = StockCasbin(lines, named)
    for name, subject in named.items():
        for obj in OBJECTS:
            for action in Action:
                assert answer(policy, subject, action, obj) == stock.answer(name, action, obj)


@FEW
@given(lines=draw_lines(), subject=SUBJECTS)
def test_a_list_grant_reaches_exactly_the_groups_that_are_allowed_one_by_one(lines, subject):
    policy = load(lines=lines)
    scopes = policy.table.scopes
    groups = [group for group in GROUPS if group.organization_id == "a"]
    # as `Directory.load_organization` says: roles on the site, in the organization, in its groups
    here = {"site", "organization:a", *(f"group:{group.id}" for group in groups)}
    held = [
        (role, domain.scope, *([] if domain.id is None else [domain.id]))
        for role, domain in subject.assignments
        if str(domain) in here
    ]
    subject = hold(*held)
    standing = {role for group in groups for role in find_effective_roles(subject, group, scopes)}
    for obj in (ObjectType.GROUP, ObjectType.GROUP_AI_BUDGET):
        for action in Action:
            try:
                grant = policy.authorize_list(subject, action, Organization("a"), obj)
            except NotFound:
                assert not standing
                continue
            assert standing
            assert grant.object_type is obj
            for group in groups:
                roles = find_effective_roles(subject, group, scopes)
                allowed = policy.decide(roles, obj, action).allowed
                assert allowed is grant.covers(group.id)
            bare = policy.decide(
                find_effective_roles(subject, Group("new", "a"), scopes), obj, action
            )
            assert grant.allowed_elsewhere is bare.allowed
            assert len(set(grant.exceptions)) == len(grant.exceptions)


@FEW
@given(lines=draw_lines(), subject=SUBJECTS)
def test_a_list_grant_of_members_reaches_exactly_those_that_are_allowed_one_by_one(lines, subject):
    policy = load(lines=lines)
    for action in Action:
        allowed = [answer(policy, subject, action, member) == "allowed" for member in MEMBERS]
        try:
            grant = policy.authorize_members(subject, action, Organization("a"))
        except Forbidden:
            assert not any(allowed)
        else:
            assert [grant.covers(member.user_id) for member in MEMBERS] == allowed


def test_every_set_of_roles_of_the_dedicated_policy_is_decided_as_by_stock_casbin():
    files = read_policy_files(packaged_policy_dir() / "dedicated")
    policy = load(lines=files.lines, matrix=files.matrix)
    places = {
        role: {"site": ("site",), "organization": ("organization", "a"), "group": ("group", "a1")}[
            scope
        ]
        for role, scope in policy.table.scopes.items()
        if scope is not Scope.USER
    }
    sets = [held for n in range(len(places) + 1) for held in combinations(places, n)]
    people = {"+".join(held): hold(*((role, *places[role]) for role in held)) for held in sets}
    stock = StockCasbin(files.lines, people)
    for name, subject in people.items():
        for obj in (GROUPS[0], BUDGET, PriceBook(), *MEMBERS):
            for action in Action:
                assert answer(policy, subject, action, obj) == stock.answer(name, action, obj)
