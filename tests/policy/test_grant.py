"""Grants: minted by an allowed decision only, for one unit of work, never copied or changed."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields
from types import SimpleNamespace

import pytest
from govbudget.authz.grant import require_grant, require_list_grant
from tests.policy.helpers import hold

from govbudget import (
    Action,
    Grant,
    GrantRefused,
    Group,
    ListGrant,
    NotFound,
    ObjectType,
    Organization,
    PriceBook,
)

GROUP = Group("g", "o")
HERE = object()
OWNER = hold(("owner", "site"), unit=HERE)


@pytest.fixture
def grant(policy):
    return policy.authorize(OWNER, "read", GROUP)


@pytest.fixture
def list_grant(policy):
    return policy.authorize_list(OWNER, "read", Organization("o"))


def check_list(grant, *, action=Action.READ, obj=ObjectType.GROUP, organization="o", unit=HERE):
    require_list_grant(grant, action, obj, Organization(organization), unit)


def test_a_grant_covers_what_it_was_given_for(grant, list_grant):
    require_grant(grant, Action.READ, GROUP, HERE)
    require_grant(grant, Action.READ, Group("g", "o"), HERE)
    check_list(list_grant)


@pytest.mark.parametrize(
    ("action", "obj", "unit", "message"),
    [
        (Action.UPDATE, GROUP, HERE, "for the action `read`, not for `update`"),
        (Action.READ, Group("other", "o"), HERE, "not for"),
        (Action.READ, Group("g", "other"), HERE, "not for"),
        (Action.READ, Group("g", "o", ObjectType.GROUP_AI_BUDGET), HERE, "not for a `group_ai_bud"),
        (Action.READ, PriceBook(), HERE, "for a `group`, not for a `ai_model_price`"),
        (Action.READ, GROUP, object(), "another connection or transaction"),
        (Action.READ, GROUP, None, "another connection or transaction"),
    ],
)
def test_a_grant_covers_nothing_else(grant, action, obj, unit, message):
    with pytest.raises(GrantRefused, match=message):
        require_grant(grant, action, obj, unit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": Action.UPDATE}, "for the action `read`"),
        ({"organization": "other"}, "not for"),
        ({"obj": ObjectType.GROUP_AI_BUDGET}, "not for a `group_ai_budget`"),
        ({"unit": object()}, "another connection or transaction"),
        ({"unit": None}, "another connection or transaction"),
    ],
)
def test_a_list_grant_covers_nothing_else(list_grant, change, message):
    with pytest.raises(GrantRefused, match=message):
        check_list(list_grant, **change)


def test_a_grant_of_a_subject_that_was_made_by_hand_covers_nothing(policy):
    by_hand = hold(("owner", "site"))
    with pytest.raises(GrantRefused, match="load the subject"):
        require_grant(policy.authorize(by_hand, "read", GROUP), Action.READ, GROUP, None)
    with pytest.raises(GrantRefused, match="load the subject"):
        check_list(policy.authorize_list(by_hand, "read", Organization("o")), unit=None)


def test_a_list_grant_is_no_grant_and_the_other_way_round(grant, list_grant):
    with pytest.raises(GrantRefused, match="expected a Grant"):
        require_grant(list_grant, Action.READ, GROUP, HERE)
    with pytest.raises(GrantRefused, match="expected a ListGrant"):
        check_list(grant)


@pytest.mark.parametrize("forged", [None, True, "grant", SimpleNamespace(subject=OWNER)])
def test_something_else_is_no_grant(forged):
    with pytest.raises(GrantRefused, match="expected a Grant"):
        require_grant(forged, Action.READ, GROUP, HERE)
    with pytest.raises(GrantRefused, match="expected a ListGrant"):
        check_list(forged)


@pytest.mark.parametrize("kind", [Grant, ListGrant])
def test_a_grant_is_minted_by_an_allowed_decision_and_nothing_else(kind):
    for arguments in ((), (OWNER, ("owner",), Action.READ, GROUP)):
        with pytest.raises(TypeError, match="never by hand"):
            kind(*arguments)
    empty = object.__new__(kind)
    with pytest.raises(GrantRefused, match="made by hand"):
        check_list(empty) if kind is ListGrant else require_grant(empty, Action.READ, GROUP, HERE)


def test_a_refused_decision_mints_no_grant(policy):
    with pytest.raises(NotFound):
        policy.authorize(hold(unit=HERE), "read", GROUP)
    with pytest.raises(NotFound):
        policy.authorize_list(hold(unit=HERE), "read", Organization("o"))


@pytest.mark.parametrize("name", ["grant", "list_grant"])
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, *(lambda g, n=n: pickle.dumps(g, n) for n in range(6))]
)
def test_a_grant_cannot_be_copied_or_pickled(request, name, duplicate):
    with pytest.raises(TypeError, match="can't be copied or pickled"):
        duplicate(request.getfixturevalue(name))


@pytest.mark.parametrize("kind", [Grant, ListGrant])
def test_a_grant_cannot_be_subclassed(kind):
    with pytest.raises(TypeError, match="can't be subclassed"):
        type("Wider", (kind,), {})


@pytest.mark.parametrize("name", ["grant", "list_grant"])
def test_a_grant_cannot_be_changed(request, name):
    grant = request.getfixturevalue(name)
    for attribute in (field.name for field in fields(grant)):
        with pytest.raises(AttributeError, match=r"cannot (assign|delete)"):
            setattr(grant, attribute, None)
        with pytest.raises(AttributeError, match=r"cannot (assign|delete)"):
            delattr(grant, attribute)
    assert not hasattr(grant, "__dict__")
