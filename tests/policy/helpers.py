"""Policies in memory or in a folder, people who hold roles, and stock Casbin to compare with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import casbin
import pytest
from casbin.persist.adapters.string_adapter import StringAdapter

from govbudget import (
    Assignment,
    Domain,
    Forbidden,
    Group,
    NotFound,
    Policy,
    PolicyError,
    Scope,
    Subject,
)
from govbudget.authz import evaluator
from govbudget.authz.authorize import authorize
from govbudget.authz.files import PolicyFiles, packaged_policy_dir
from govbudget.authz.policy import load_table
from govbudget.authz.reader import read_policy

MODEL, LINES, MATRIX = (
    (packaged_policy_dir() / name).read_bytes()
    for name in ("model.conf", "policy.csv", "matrix.csv")
)
# The shipped lines with some more, for all tests that need others: Casbin is asked about them once.
MORE = LINES + (
    b"p, group-member, group, group, update, deny\n"
    b"p, org-admin, organization, group, update, deny\n"
    b"p, self, user, ai_member_spend, read, deny\n"
    b"p, gateway, site, ai_model_price, read, allow\n"
    b"p, budget-viewer, organization, group, read, allow\n"
)


def load(*, model=MODEL, lines=LINES, matrix=None):
    """Load a policy that no folder holds."""
    table = load_table(PolicyFiles(model, lines, matrix))
    return Policy(Path("nowhere"), table, None)


def load_unreviewed(lines):
    """Load some lines that nobody has reviewed, budgets as a resource of their own among them.

    Casbin is asked about each line alone, and not about all that each role may do.
    """
    files = PolicyFiles(MODEL, lines, None)
    read, findings = read_policy(files)
    assert findings == []
    return Policy(Path("nowhere"), evaluator.build_table(files, read, compare=False), None)


def find(*, model=MODEL, lines=LINES, matrix=None):
    """The findings that refuse a policy, [(file, line, code), ...], each printed as it should."""
    with pytest.raises(PolicyError) as caught:
        load(model=model, lines=lines, matrix=matrix)
    return list_findings(caught.value)


def list_findings(error):
    for finding in error.findings:
        file, line, code = finding.file, finding.line, finding.code
        assert str(finding) == f"{file}:{line}: {code}: {finding.sentence}"
        assert str(finding).isascii()
        assert str(finding).replace("\t", " ").isprintable()
        assert str(finding) in str(error)
    return [(finding.file, finding.line, finding.code) for finding in error.findings]


def write_policy(folder, *, model=MODEL, lines=LINES, matrix=None):
    """Write a policy folder."""
    folder.mkdir(exist_ok=True)
    (folder / "model.conf").write_bytes(model)
    (folder / "policy.csv").write_bytes(lines)
    if matrix is not None:
        (folder / "matrix.csv").write_bytes(matrix)
    return folder


def number_of(line):
    """The name of a line of `MORE`."""
    return f"policy.csv:{MORE.splitlines().index(line) + 1}"


def hold(*assignments, subject_id="someone"):
    """A subject holding `(role, scope, id)`; the site has no id."""
    held = (
        Assignment(role, Domain(Scope(scope), *domain_id))
        for role, scope, *domain_id in assignments
    )
    return Subject(subject_id, tuple(held))


def answer(policy, subject, action, obj):
    """What a request is told: allowed, forbidden or not-found."""
    try:
        authorize(policy.table, subject, action, obj)
    except Forbidden:
        return "forbidden"
    except NotFound:
        return "not-found"
    return "allowed"


# Whoever may do one of these to an object may know that it is there.
KNOWS = {
    "group": ("read", "update"),
    "group_ai_budget": ("read", "update"),
    "ai_member_spend": ("read",),
}


class StockCasbin:
    """One stock enforcer over the shipped model, some lines, and a `g` line for each assignment.

    Roles of the scope `user` come from the lines: all hold them toward themselves, and nobody by
    assignment.
    """

    def __init__(self, lines, subjects):
        held = [
            f"g, user:{name}, {assignment.role}, {assignment.domain}"
            for name, subject in subjects.items()
            for assignment in subject.assignments
            if assignment.domain.scope is not Scope.USER
        ]
        rows = [[field.strip() for field in row.split(",")] for row in lines.decode().splitlines()]
        self.budget = (
            "group_ai_budget" if any("group_ai_budget" in row for row in rows) else "group"
        )
        held += [
            f"g, user:{name}, {role}, user:{subject.id}"
            for name, subject in subjects.items()
            for role in sorted({row[1] for row in rows if row[0] == "p" and row[2] == "user"})
        ]
        model = casbin.Enforcer.new_model(text=MODEL.decode())
        adapter = StringAdapter("\n".join([lines.decode(), *held]))
        self.enforcer = casbin.Enforcer(model, adapter)

    def asked_as(self, obj):
        """What the policy is asked about an object: of a group, its budget."""
        return self.budget if isinstance(obj, Group) else obj.type

    @cache  # noqa: B019 - lives as long as one test
    def allows(self, name, action, obj, kind=None):
        domains = (
            str(obj.domain(scope) or "nowhere")
            for scope in (Scope.ORGANIZATION, Scope.GROUP, Scope.USER)
        )
        return self.enforcer.enforce(f"user:{name}", *domains, kind or self.asked_as(obj), action)

    def answer(self, name, action, obj):
        """What `authorize` must say, by the contract's table of errors."""
        if self.allows(name, action, obj):
            return "allowed"
        if obj.domain(Scope.ORGANIZATION) is None:
            return "forbidden"
        known = {self.asked_as(obj), obj.type}
        if any(self.allows(name, other, obj, kind) for kind in known for other in KNOWS[kind]):
            return "forbidden"
        return "not-found"
