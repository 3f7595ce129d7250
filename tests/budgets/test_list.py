"""Listing is filtered in SQL by the policy, and agrees with getting, for every id of any world."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from hypothesis import event, given, settings, strategies as st
from tests.budgets.support import attempt, list_budgets, set_budget
from tests.support import TABLES, authorize, count_statements

from govbudget import Budget, Grant, NotFound, Policy
from govbudget.authz.files import packaged_policy_dir
from govbudget.budgets.store import Budgets

# -- random policies: a subset of all lines that the reader takes for these roles --

SCOPES = {
    "owner": "site",
    "auditor": "site",
    "org-admin": "organization",
    "suspended": "organization",
    "group-member": "group",
}
EFFECTS = {
    role: st.sampled_from(("allow", "deny", None) if scope == "group" else ("allow", "allow", None))
    for role, scope in SCOPES.items()
} | {"suspended": st.sampled_from(("deny", None, None))}


@st.composite
def policies(draw):
    """Draw the lines of a policy: for each role and action an allow, a deny or nothing."""
    lines = tuple(
        f"p, {role}, {scope}, group, {action}, {effect}"
        for role, scope in SCOPES.items()
        for action in ("read", "update")
        if (effect := draw(EFFECTS[role])) is not None
    )
    return lines or ("p, owner, site, group, read, deny",)


@functools.cache
def load_policy(lines):
    """Load a policy of these lines, written as a reviewer would find it."""
    with tempfile.TemporaryDirectory() as folder:
        model = (packaged_policy_dir() / "model.conf").read_text()
        Path(folder, "model.conf").write_text(model)
        Path(folder, "policy.csv").write_text("\n".join(lines) + "\n")
        return Policy.load(folder)


# -- random worlds, as seen by one caller --


@dataclass(frozen=True)
class Scene:
    """Two organizations (one may be deleted), their groups, and what the caller is in them."""

    organizations: tuple[UUID, UUID]
    deleted: tuple[bool, bool]
    groups: dict[UUID, int]
    budgets: frozenset[UUID]
    joined: frozenset[int]
    member_of: frozenset[UUID]
    roles: frozenset[tuple[str, int | None]]


@st.composite
def scenes(draw):
    ids = draw(st.lists(st.uuids(), min_size=3, max_size=9, unique=True))
    organizations = tuple(ids[:2])
    groups = {organizations[0]: 0, organizations[1]: 1}
    for identifier in ids[2:]:
        groups[identifier] = draw(st.sampled_from((0, 0, 1)))
    joined = draw(st.sampled_from((frozenset({0}), frozenset({0, 1}), frozenset())))
    own = [g for g, place in groups.items() if place in joined and g not in organizations]
    # Roles held in places that are not of their scope, the group's role too, are in there.
    roles = set()
    for role, scope in SCOPES.items():
        well, ill = (None, 0) if scope == "site" else (0, None)
        roles |= {(role, p) for p in draw(st.sampled_from(((), (well,), (well, 1), (ill, 1))))}
    return Scene(
        organizations,
        draw(st.sampled_from(((False, False), (False, False), (False, True), (True, False)))),
        groups,
        frozenset(group for group in groups if draw(st.sampled_from((True, True, False)))),
        joined,
        frozenset(group for group in own if draw(st.booleans())),
        frozenset(roles),
    )


def put(connection, table, rows):
    if rows:
        connection.execute(sa.insert(getattr(TABLES, table)), rows)


def build(connection, scene):
    """Insert a scene and give its caller."""
    caller = uuid4()
    put(connection, "users", [{"id": caller, "name": "the caller"}])
    organizations = list(enumerate(scene.organizations))
    put(
        connection,
        "organizations",
        [{"id": o, "name": "o", "deleted": scene.deleted[n]} for n, o in organizations],
    )
    put(
        connection,
        "groups",
        [
            {"id": group, "organization_id": scene.organizations[place], "name": "g"}
            for group, place in scene.groups.items()
        ],
    )
    put(
        connection,
        "organization_members",
        [{"organization_id": o, "user_id": caller} for n, o in organizations if n in scene.joined],
    )
    put(
        connection,
        "group_members",
        [
            {
                "group_id": group,
                "user_id": caller,
                "organization_id": scene.organizations[scene.groups[group]],
            }
            for group in scene.member_of
        ],
    )
    put(
        connection,
        "role_assignments",
        [
            {
                "id": uuid4(),
                "user_id": caller,
                "role": role,
                "organization_id": None if place is None else scene.organizations[place],
            }
            for role, place in scene.roles
        ],
    )
    put(
        connection,
        "group_ai_budgets",
        [
            {"group_id": group, "spend_limit_micros": n, "revision": uuid4()}
            for n, group in enumerate(sorted(scene.budgets))
        ],
    )
    return caller


def get_each(connection, policy, caller, groups):
    """Give what a GET of each group's budget finds, group by group."""
    found = {}
    for group in groups:
        grant = attempt(authorize, connection, caller, "read", group=group, policy=policy)
        if isinstance(grant, Grant):
            budget = attempt(Budgets.get, grant)
            if isinstance(budget, Budget):
                found[group] = budget
            else:
                assert budget.code == "budget-not-set"
        else:
            assert grant.code in {"group-not-found", "forbidden"}
    return found


def list_pages(grant, size):
    """Read the list page by page, as the endpoint does."""
    pages, after = [], None
    while True:
        page = Budgets.list(grant, limit=size, after=after)
        assert len(page) <= size
        assert after is None or all(budget.group_id > after for budget in page)
        pages += page
        if len(page) < size:
            return pages
        after = page[-1].group_id


def check_that_list_and_get_agree(engine, scene, lines):
    policy = load_policy(lines)
    with engine.connect() as connection:
        caller = build(connection, scene)
        found = get_each(connection, policy, caller, scene.groups)
        listed_anywhere = set()
        for place, organization in enumerate(scene.organizations):
            expected = {g: b for g, b in found.items() if scene.groups[g] == place}
            asked = {"organization": organization, "policy": policy}
            grant = attempt(authorize, connection, caller, "read", **asked)
            if isinstance(grant, NotFound):
                assert (expected, grant.code) == ({}, "organization-not-found")
                continue
            assert not scene.deleted[place]
            reach = grant.allowed.reach
            assert expected == {} or not reach.is_empty
            if reach.elsewhere and reach.exceptions:
                event("a deny takes some groups out of all")
            elif reach.exceptions:
                event("some groups of none")
            for size in (100, 1, 2, len(expected) or 1):
                pages = list_pages(grant, size)
                assert [budget.group_id for budget in pages] == sorted(expected)
                assert {budget.group_id: budget for budget in pages} == expected
            listed_anywhere |= set(expected)
        assert listed_anywhere == set(found)


@given(scene=scenes(), lines=policies())
def test_list_and_get_agree_for_every_group_of_a_random_world_and_policy(engine, scene, lines):
    """In pages of every size, in order, the same budgets."""
    check_that_list_and_get_agree(engine, scene, lines)


@pytest.mark.long
@given(scene=scenes(), lines=policies())
@settings(max_examples=60, deadline=None)
def test_list_and_get_agree_in_many_more_worlds(engine, scene, lines):
    check_that_list_and_get_agree(engine, scene, lines)


DENY_LINES = (
    "p, org-admin, organization, group, read, allow",
    "p, group-member, group, group, read, deny",
)


def test_a_deny_in_one_group_takes_that_one_out_of_the_list(engine, world):
    """An administrator who is a member of the group does not see it under such a policy."""
    with engine.connect() as connection:
        for group in (world.a, world.a1, world.a2):
            set_budget(connection, world.owner, group, 1)
        world.join_group(connection, world.a, world.a1, "org_admin")
        asked = {"action": "read", "policy": load_policy(DENY_LINES)}
        grant = authorize(connection, world.org_admin, organization=world.a, **asked)
        listed = Budgets.list(grant, limit=9)
        # Everybody in the organization is a member of its Everyone group.
        assert [budget.group_id for budget in listed] == [world.a2]
        refused = attempt(authorize, connection, world.org_admin, group=world.a1, **asked)
        assert type(refused) is NotFound


@pytest.mark.parametrize(
    ("person", "groups"),
    [
        ("owner", ("a", "a1", "a2")),
        ("org_admin", ("a", "a1", "a2")),
        ("user_admin", ("a", "a1", "a2")),
        ("member", ("a", "a1")),
        ("joined", ("a",)),
    ],
)
def test_each_person_of_the_organization_is_listed_what_they_may_read(
    engine, world, person, groups
):
    with engine.connect() as connection:
        for group in (world.a, world.a1, world.a2, world.b, world.b1):
            set_budget(connection, world.owner, group, 1)
        listed = list_budgets(connection, getattr(world, person), world.a)
    assert [budget.group_id for budget in listed] == sorted(getattr(world, g) for g in groups)


@pytest.mark.parametrize("person", ["outsider", "b_admin", "nobody", "stranger"])
def test_whoever_is_nothing_in_the_organization_finds_none(engine, world, person):
    with engine.connect() as connection:
        asked = {"action": "read", "organization": world.a}
        refused = attempt(authorize, connection, getattr(world, person), **asked)
    assert (type(refused), refused.code) == (NotFound, "organization-not-found")


def test_only_rows_that_are_listed_leave_the_database(engine, world):
    """The filter is part of the one statement, its limit too."""
    with engine.connect() as connection:
        for group in (world.a, world.a1, world.a2, world.b1):
            set_budget(connection, world.owner, group, 1)
        grant = authorize(connection, world.member, "read", organization=world.a)
        rows = []
        with count_statements(engine) as sent:
            listen = lambda *arguments: rows.append(arguments[1].rowcount)  # noqa: E731
            sa.event.listen(engine, "after_cursor_execute", listen)
            try:
                Budgets.list(grant, limit=9)
                Budgets.list(grant, limit=1)
            finally:
                sa.event.remove(engine, "after_cursor_execute", listen)
    assert len(sent) == 2
    assert rows == [2, 1]


def test_pages_survive_what_happens_between_them(engine, world):
    """Deletes and inserts, of the last one seen too: the rest comes once, in order."""
    groups = sorted(uuid4() for _ in range(9))
    early, first, second, gone, third, late, *others = groups
    with engine.begin() as connection:
        for group in (*groups, world.b1):
            if group != world.b1:
                world.add_group(connection, world.a, group)
            if group not in {early, late}:
                set_budget(connection, world.owner, group, 1)

    def read_page(after):
        with engine.connect() as connection:
            page = list_budgets(connection, world.owner, world.a, limit=2, after=after)
            return [budget.group_id for budget in page]

    page = read_page(None)
    assert page == [first, second]
    with engine.begin() as connection:
        for group in (second, gone):
            connection.execute(sa.delete(TABLES.groups).where(TABLES.groups.c.id == group))
        for group in (early, late):
            set_budget(connection, world.owner, group, 1)
    seen = []
    while page:
        page = read_page(page[-1])
        assert not set(page) & set(seen)
        seen += page
    assert seen == [third, late, *others]
