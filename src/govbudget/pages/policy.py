"""The pages about the policy: what everybody may do, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request

from govbudget.errors import FieldError
from govbudget.identity import PolicyRules, Scope
from govbudget.pages.links import links_of
from govbudget.pages.render import Page
from govbudget.review.explain import explain_decision, require_asked
from govbudget.review.meaning import INVARIANTS
from govbudget.review.render import lay_out, select_cells
from govbudget.web.paging import refuse_query

if TYPE_CHECKING:
    from govbudget.web.call import AuthorizedRequest

    Asked = AuthorizedRequest[PolicyRules]


def show_policy(asked: Asked) -> Page:
    """Show the grid, each role's rights, the invariants and the digest. Sends no SQL."""
    table = asked.grant.unit.table
    roles, rows = lay_out(table, select_cells(table, (), (), ()))
    invariants = [(i.statement, [example for _, example in i.find(table)]) for i in INVARIANTS]
    rights = {role: [line for line in table.lines if line.role == role] for role in roles}
    values = {"table": table, "roles": roles, "rows": rows, "rights": rights}
    return Page("policy", "Policy", values | {"invariants": invariants}, links_of(asked.grant))


def show_explain(asked: Asked) -> Page:
    """Explain a decision that the query names; without one, show the form alone. Sends no SQL."""
    table, query = asked.grant.unit.table, request.args
    named = {name: query.get(name, "") for name in ("object", "action")}
    roles = list(dict.fromkeys(query.getlist("role")))
    explanation = None
    if any((*named.values(), roles)):
        try:
            require_asked(table, *named.values())
            explanation = explain_decision(table, roles, *named.values())
        except ValueError as error:
            refuse_query([FieldError("query", str(error))])
    values = {
        "table": table,
        "rights": [f"{action} {obj}" for obj, action in table.asked],
        "asked": table.asked,
        "named": named,
        "held": roles,
        "roles": sorted(table.scopes, key=lambda role: list(Scope).index(table.scopes[role])),
        "explanation": explanation,
    }
    return Page("explain", "Explain a decision", values, links_of(asked.grant))
