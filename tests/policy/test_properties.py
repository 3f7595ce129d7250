"""Any policy, with deny lines: the table, stock Casbin and the lists agree."""

from __future__ import annotations

from itertools import combinations

import pytest
from tests.policy.helpers import StockCasbin, answer, hold, load, load_unreviewed

from govbudget import Forbidden, Group, Member, NotFound, Organization, Scope
from govbudget.authz.authorize import authorize, reach_members
from govbudget.authz.effective import find_effective_roles
from govbudget.authz.files import packaged_policy_dir, read_policy_files
from govbudget.identity import Action, Ledger, ObjectType, PriceBook

pytest.importorskip("hypothesis", reason="a policy's tester has pycasbin and pytest alone")
from hypothesis import HealthCheck, given, settings, strategies as st

GROUPS = tuple(Group(f"{o}{n}", o) for o in "ab" for n in (1, 2))
MEMBERS = (Member("a", "someone"), Member("a", "other"))
OBJECTS = (*GROUPS, PriceBook(), Ledger(), *MEMBERS)
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

FEW = settings(suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(lines=draw_lines(), people=st.lists(SUBJECTS, min_size=1, max_size=3))
def test_any_policy_answers_as_stock_casbin_does(lines, people):
    policy = load_unreviewed(lines)
    named = {str(number): subject for number, subject in enumerate(people)}
    stock = StockCasbin(lines, named)
    for name, subject in named.items():
        for obj in OBJECTS:
            for action in Action:
                assert answer(policy, subject, action, obj) == stock.answer(name, action, obj)


@FEW
@given(lines=draw_lines(), subject=SUBJECTS)
def test_a_list_reaches_exactly_the_groups_that_are_allowed_one_by_one(lines, subject):
    policy = load_unreviewed(lines)
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
    effective = {role for group in groups for role in find_effective_roles(subject, group, scopes)}
    asked = policy.table.budget_object
    for action in Action:
        decided = {
            group.id: policy.decide(
                find_effective_roles(subject, group, scopes), asked, action
            ).allowed
            for group in (*groups, Group("new", "a"))
        }
        try:
            reach = authorize(policy.table, subject, action, Organization("a")).reach
        except NotFound:
            assert not effective
        except Forbidden:
            assert action is not Action.READ
            assert not any(decided.values())
        else:
            assert effective
            assert reach.elsewhere is decided["new"]
            reached = {i: (i in reach.exceptions) is not reach.elsewhere for i in decided}
            assert reached == decided
            assert len(set(reach.exceptions)) == len(reach.exceptions)


@FEW
@given(lines=draw_lines(), subject=SUBJECTS)
def test_a_list_reaches_exactly_the_members_that_are_allowed_one_by_one(lines, subject):
    """Whoever may do something to the organization's groups, or to one of them, asks this way."""
    policy = load_unreviewed(lines)
    for action in Action:
        one_by_one = [answer(policy, subject, action, member) == "allowed" for member in MEMBERS]
        for obj in (Organization("a"), GROUPS[0], GROUPS[1]):
            if answer(policy, subject, action, obj) != "allowed":
                continue
            try:
                reach = reach_members(policy.table, authorize(policy.table, subject, action, obj))
            except Forbidden:
                assert not any(one_by_one)
            else:
                assert [
                    (member.id in reach.exceptions) is not reach.elsewhere for member in MEMBERS
                ] == one_by_one


@pytest.mark.slow
def test_every_set_of_roles_of_the_dedicated_policy_is_decided_as_by_stock_casbin():
    files = read_policy_files(packaged_policy_dir() / "dedicated")
    policy = load(lines=files.lines, matrix=files.matrix)
    assert policy.table.budget_object is ObjectType.GROUP_AI_BUDGET
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
        for obj in (GROUPS[0], PriceBook(), Ledger(), *MEMBERS):
            for action in Action:
                assert answer(policy, subject, action, obj) == stock.answer(name, action, obj)
