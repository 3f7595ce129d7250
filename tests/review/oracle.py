"""What a policy decides, worked out a second time: shares nothing with the reader or Casbin."""

from __future__ import annotations

OBJECTS = ("group", "group_ai_budget", "ai_model_price", "ai_usage", "ai_member_spend", "policy")
ACTIONS = ("read", "update", "create")
ASKED = {  # of the rest nothing is ever asked
    ("group", "read"),
    ("group", "update"),
    ("group_ai_budget", "read"),
    ("group_ai_budget", "update"),
    ("ai_model_price", "read"),
    ("ai_model_price", "update"),
    ("ai_usage", "create"),
    ("ai_usage", "update"),
    ("ai_member_spend", "read"),
    ("policy", "read"),
}
REACHED_FROM = {  # a price has no organization and no group, a member no group, a group no user
    "group": {"site", "organization", "group"},
    "group_ai_budget": {"site", "organization", "group"},
    "ai_model_price": {"site"},
    "ai_usage": {"site"},
    "ai_member_spend": {"site", "organization", "user"},
    "policy": {"site"},
}


def read_rows(text):
    """The rows (role, scope, object, action, effect) of a well-formed policy.csv."""
    lines = (line.strip() for line in text.split("\n"))
    fields = (line.split(",") for line in lines if line and line[0] != "#")
    return [tuple(field.strip() for field in row[1:]) for row in fields]


def is_allowed(rows, roles, obj, action):
    """Whether some row allows this to the roles, and none denies it."""
    effects = {
        effect
        for role, scope, about, done, effect in rows
        if about == obj and done == action and role in roles and scope in REACHED_FROM[obj]
    }
    return effects == {"allow"}


def decide_cell(rows, role, obj, action):
    """allow, deny (no row speaks) or forbid: what one role brings into a set of roles."""
    if is_allowed(rows, {role}, obj, action):
        return "allow"
    ally = ("ally", "site", obj, action, "allow")
    return "deny" if is_allowed([*rows, ally], {role, "ally"}, obj, action) else "forbid"


def decide_all(rows):
    """Every cell: {(role, object, action): allow, deny or forbid}, and each role's scope."""
    scopes, about = {role: scope for role, scope, *_ in rows}, {}
    for row in rows:
        about.setdefault(row[2:4], []).append(row)
    cells = {
        (role, obj, action): decide_cell(about.get((obj, action), []), role, obj, action)
        for role in scopes
        for obj in OBJECTS
        for action in ACTIONS
    }
    return cells, scopes
