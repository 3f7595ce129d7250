"""Where people may do something, against `authorize`, which decides one object at a time."""

from __future__ import annotations

from itertools import product
from random import Random
from types import SimpleNamespace

import pytest
from tests.review.helpers import MODEL, ROLES, write_rows
from tests.review.oracle import REACHED_FROM

from govbudget import SITE, Assignment, Domain, Forbidden, Group, Member, NotFound, Scope, Subject
from govbudget.authz.authorize import authorize
from govbudget.authz.files import PolicyFiles
from govbudget.authz.reader import read_policy
from govbudget.authz.table import DecisionTable
from govbudget.identity import Action, Ledger, ObjectType, Organization, PriceBook
from govbudget.review.people import Areas, Right, find_reached

pytestmark = pytest.mark.slow

# Two organizations, three groups, and people with any role anywhere, be it right or wrong.
GROUPS = {"a1": "a", "a2": "a", "b1": "b"}
DOMAINS = (
    SITE,
    *(Domain(Scope.ORGANIZATION, one) for one in ("a", "gone", None)),
    Domain("organization", "b"),  # a directory may report scopes as plain texts
    *(Domain(Scope.GROUP, one) for one in (*GROUPS, "gone", None)),
    Domain(Scope.USER, "ann"),
)
SCOPES = ("site", "organization", "group", "user")
RIGHTS = [
    *product((ObjectType.GROUP, ObjectType.AI_MEMBER_SPEND), (Action.READ, Action.UPDATE)),
    (ObjectType.AI_MODEL_PRICE, Action.UPDATE),
]
TRIED = ("group", "group", "ai_member_spend", "ai_member_spend", "ai_model_price")

SEEDS = range(300)


def make_case(random):
    """Two tables of a dozen rows each, and people who hold most of their roles where they count.

    What Casbin says of each line is tested elsewhere.
    """
    scopes = {role: random.choice(SCOPES) for role in ROLES}
    held = {name: list(hold_roles(random, scopes)) for name in ("ann", "bob", "cy")}
    world = SimpleNamespace(
        subjects=[Subject(name, tuple(found)) for name, found in held.items()],
        members={name: random.sample(("a", "b"), random.randint(0, 2)) for name in held},
    )
    return [make_table(random, scopes) for _ in range(2)], world


def make_table(random, scopes):
    effects = ("allow", "allow", "deny")
    tried = (*TRIED, *random.choice(((), (), ("group_ai_budget", "group_ai_budget"))))
    rows = [
        (role, scopes[role], *map(random.choice, (tried, ("read", "update"), effects)))
        for role in random.choices(ROLES, k=12)
    ]
    lines, findings = read_policy(PolicyFiles(MODEL, write_rows(rows).encode(), None))
    assert findings == []
    return DecisionTable("", lines, [x for x in lines if x.scope in REACHED_FROM[x.object]])


def hold_roles(random, scopes):
    for _ in range(random.randint(0, 6)):
        role = random.choice((*ROLES, "unknown"))
        areas = [domain for domain in DOMAINS if domain.scope == scopes.get(role)]
        yield Assignment(role, random.choice(areas if random.random() < 0.8 and areas else DOMAINS))


def area(*names):
    """The area of an organization, and of a group or member of it."""
    domains = [SITE, *(Domain(Scope.ORGANIZATION, name) for name in names[:1])]
    return (
        *domains,
        *(Domain(Scope.GROUP if name in GROUPS else Scope.USER, name) for name in names[1:]),
    )


def list_objects(world, kind):
    """Every object of a kind, by its area."""
    if kind is ObjectType.GROUP:
        return {area(o, group): Group(group, o) for group, o in GROUPS.items()}
    if kind is ObjectType.AI_MEMBER_SPEND:
        pairs = ((o, name) for name, inside in world.members.items() for o in inside)
        return {area(*pair): Member(*pair) for pair in pairs}
    return {(SITE,): PriceBook() if kind is ObjectType.AI_MODEL_PRICE else Ledger()}


def list_asked(world, kind):
    """The site, each organization and each object itself; and the objects that each has in it."""
    objects = list_objects(world, kind)
    roots = {at[:size]: None for at in objects for size in range(1, len(at) + 1)}
    return {root: {at: objects[at] for at in objects if at[: len(root)] == root} for root in roots}


def find(world, objects, root, right, less=None):
    """What is found of each person."""
    known = {}
    if len(root) < 3:
        for at in (area("a"), area("b"), *objects):
            if at[: len(root)] == root and len(at) > 1:
                known.setdefault(at[-1], []).append(at)
    areas = Areas(root, known)
    return {one.id: list(find_reached(areas, one, right, less)) for one in world.subjects}


def covers(reached, at):
    """Whether what is said to be reached has this area in it."""
    return any(
        at[: len(one.area)] == one.area and not any(at[: len(but)] == but for but in one.exceptions)
        for one in reached
    )


def decide(table, subject, action, obj):
    try:
        return authorize(table, subject, action, obj)
    except (Forbidden, NotFound):
        return None


def test_who_lists_exactly_those_for_whom_authorize_says_yes():
    """On each object alone, in each organization and on the whole site, with the exceptions."""
    for random in map(Random, SEEDS):
        (table, _), world = make_case(random)
        for kind, action in RIGHTS:
            right = Right(table, kind, action)
            for root, objects in list_asked(world, kind).items():
                found = find(world, objects, root, right)
                for (at, obj), subject in product(objects.items(), world.subjects):
                    allowed, reached = decide(table, subject, action, obj), found[subject.id]
                    assert covers(reached, at) is (allowed is not None)
                    if at == root and allowed:  # the roles and lines, too
                        (said,) = (one.roles for one in reached)
                        assert {one.role for one, _ in said} <= {*allowed.roles}
                        assert {line for _, lines in said for line in lines} == {*allowed.lines}


def test_who_gains_may_do_it_now_and_not_before_and_who_loses_the_other_way_round():
    for random in map(Random, SEEDS):
        tables, world = make_case(random)
        for kind, action in RIGHTS:
            old, new = (Right(table, kind, action) for table in tables)
            for root, objects in list_asked(world, kind).items():
                gained = find(world, objects, root, new, old)
                lost = find(world, objects, root, old, new)
                for (at, obj), subject in product(objects.items(), world.subjects):
                    was, may = (decide(t, subject, action, obj) is not None for t in tables)
                    assert covers(gained[subject.id], at) is (may and not was)
                    assert covers(lost[subject.id], at) is (was and not may)


def test_in_an_organization_it_is_what_a_list_reaches():
    """A list answers whoever holds a role there, though it be empty: they are not listed here."""
    for random in map(Random, SEEDS):
        (table, _), world = make_case(random)
        objects = list_objects(world, ObjectType.GROUP)
        for organization, action, subject in product(("a", "b"), Action, world.subjects):
            right = Right(table, ObjectType.GROUP, action)
            here = {
                SITE,
                *area(organization),
                *(at[-1] for at in objects if at[1].id == organization),
            }
            loaded = tuple(one for one in subject.assignments if one.domain in here)
            allowed = decide(table, Subject(subject.id, loaded), action, Organization(organization))
            reach = allowed and allowed.reach
            reached = find(world, objects, area(organization), right)[subject.id]
            assert bool(reached) is (allowed is not None and not reach.is_empty)
            for at, group in objects.items():
                if allowed and group.organization_id == organization:
                    assert covers(reached, at) is (
                        reach.elsewhere != (group.id in reach.exceptions)
                    )
