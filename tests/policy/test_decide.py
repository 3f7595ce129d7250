"""Policy.decide: a look-up in an immutable table, for the roles of a set."""

from __future__ import annotations

import dataclasses

import pytest
from tests.policy.helpers import load

from govbudget.authz.table import Verdict
from govbudget.identity import Action, ObjectType

WITH_DENIES = load(
    lines=b"""\
p, reader, organization, group, read, allow
p, writer, organization, group, update, allow
p, writer, organization, group, read, allow
p, frozen, group, group, update, deny
p, frozen, group, group, update, deny
p, frozen, group, group, read, allow
p, auditor, site, group, read, allow
p, auditor, site, group, update, deny
p, torn, site, group, read, allow
p, torn, site, group, read, deny
"""
)


def test_an_allow_names_the_line_that_allowed_it_and_the_digest(policy):
    decision = policy.decide({"group-member"}, "group", "read")
    assert decision.allowed
    assert decision.lines == ("policy.csv:27",)
    assert decision.policy_digest == policy.digest
    assert policy.digest.startswith("sha256:")


def test_every_line_that_allowed_it_is_named_in_the_order_of_the_file(policy):
    decision = policy.decide(["user-admin", "owner", "group-member", "owner"], "group", "read")
    assert decision.lines == ("policy.csv:7", "policy.csv:22", "policy.csv:27")


@pytest.mark.parametrize("roles", [set(), (), [], frozenset(), {}])
def test_no_role_at_all_is_a_default_deny_without_lines(policy, roles):
    for obj in ObjectType:
        for action in Action:
            decision = policy.decide(roles, obj, action)
            assert not decision.allowed
            assert decision.lines == ()
            assert decision.policy_digest == policy.digest


def test_what_no_line_matches_is_denied_without_lines(policy):
    decision = policy.decide({"group-member"}, "group", "update")
    assert (decision.allowed, decision.lines) == (False, ())


def test_a_deny_line_wins_over_every_allow_line():
    for roles, action, allowed, numbers in (
        ({"writer"}, "update", True, [2]),
        ({"writer", "reader"}, "update", True, [2]),
        ({"writer", "reader"}, "read", True, [1, 3]),
        ({"writer", "frozen"}, "update", False, [4, 5]),
        ({"writer", "frozen", "auditor"}, "update", False, [4, 5, 8]),
        ({"writer", "frozen"}, "read", True, [3, 6]),
        ({"frozen"}, "update", False, [4, 5]),
        ({"torn"}, "read", False, [10]),
        ({"torn", "reader", "writer"}, "read", False, [10]),
        ({"reader", "auditor"}, "update", False, [8]),
    ):
        for order in (sorted(roles), sorted(roles, reverse=True)):
            decision = WITH_DENIES.decide(order, "group", action)
            assert decision.allowed is allowed
            assert decision.lines == tuple(f"policy.csv:{n}" for n in numbers)


@pytest.mark.parametrize(
    ("role", "action", "verdict"),
    [
        ("writer", Action.UPDATE, Verdict.ALLOW),
        ("reader", Action.UPDATE, Verdict.DENY),
        ("frozen", Action.UPDATE, Verdict.FORBID),
        ("torn", Action.READ, Verdict.FORBID),
    ],
)
def test_a_role_alone_allows_stays_silent_or_forbids(role, action, verdict):
    assert WITH_DENIES.table.cell(role, ObjectType.GROUP, action).verdict is verdict


def test_an_unknown_name_is_a_value_error_and_no_denial(policy):
    for roles, obj, action, message in (
        (
            {"ower"},
            "group",
            "read",
            "`ower` is not a known role; did you mean `owner`",
        ),
        ({"owner", "nobody"}, "group", "read", "`nobody` is not a known role"),
        (["owner", "Owner"], "group", "read", "`Owner` is not a known role"),
        ({""}, "group", "read", "`` is not a known role"),
        ({None}, "group", "read", "`None` is not a known role"),
        ({"owner"}, None, "read", "`None` is not a known object type"),
        (
            {"owner"},
            "groups",
            "read",
            "`groups` is not a known object type; did you mean",
        ),
        ({"owner"}, "*", "read", "`\\*` is not a known object type"),
        (set(), "groups", "read", "not a known object type"),
        ({"owner"}, "group", "write", "`write` is not a known action"),
        ({"owner"}, "group", "READ", "`READ` is not a known action"),
        (set(), "group", "delete", "`delete` is not a known action"),
        ("owner", "group", "read", "`roles` is a set of roles; write {'owner'}"),
        ("", "group", "read", "`roles` is a set of roles"),
    ):
        with pytest.raises(ValueError, match=message):
            policy.decide(roles, obj, action)


def test_a_string_is_no_set_of_roles_even_where_it_is_a_role_of_one_letter():
    policy = load(lines=b"p, a, site, group, read, allow")
    assert policy.decide({"a"}, "group", "read").allowed
    with pytest.raises(ValueError, match="`roles` is a set of roles"):
        policy.decide("a", "group", "read")


def test_a_table_and_its_decisions_cannot_be_changed(policy):
    with pytest.raises(AttributeError, match="immutable"):
        policy.table.digest = "sha256:0"
    with pytest.raises(TypeError):
        policy.table.scopes["mallory"] = "site"
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.decide({"owner"}, "group", "read").allowed = False
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.table.lines[0].role = "mallory"
