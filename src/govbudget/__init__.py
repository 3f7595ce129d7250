"""govbudget: who may see and set a group's AI budget, decided by a policy that one can read."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from govbudget.authz.authorize import Allowed
    from govbudget.authz.policy import Policy
    from govbudget.authz.table import Decision, DecisionTable
    from govbudget.budgets.budget import Budget, Condition
    from govbudget.db.tables import Layout, Tables
    from govbudget.db.unit import Grant
    from govbudget.directory.protocol import Directory
    from govbudget.directory.sql import SqlDirectory
    from govbudget.errors import (
        BudgetExceeded,
        EventConflict,
        Finding,
        Forbidden,
        GovBudgetError,
        GrantRefused,
        GroupChanged,
        InvalidInput,
        NotAMember,
        NotFound,
        PolicyError,
        PreconditionFailed,
        SettingsError,
        UnpricedModel,
    )
    from govbudget.extension import GovBudget
    from govbudget.identity import (
        SITE,
        Action,
        Assignment,
        Domain,
        Group,
        Ledger,
        Member,
        ObjectType,
        Organization,
        PriceBook,
        Scope,
        Subject,
    )
    from govbudget.ids import IdType
    from govbudget.prices.price import Price
    from govbudget.spend.installation import Installation
    from govbudget.spend.open_hold import OpenHold
    from govbudget.spend.tokens import Tokens
    from govbudget.spend.usage import Call, Hold, Usage

# Where each public name lives. They are loaded when first used: a policy test pulls in neither
# Flask nor SQLAlchemy.
_HOMES = {
    name: home
    for home, names in {
        "authz.authorize": ("Allowed",),
        "db.unit": ("Grant",),
        "authz.policy": ("Policy",),
        "authz.table": ("Decision", "DecisionTable"),
        "budgets.budget": ("Budget", "Condition"),
        "directory.protocol": ("Directory",),
        "directory.sql": ("SqlDirectory",),
        "errors": (
            "BudgetExceeded",
            "EventConflict",
            "Finding",
            "Forbidden",
            "GovBudgetError",
            "GrantRefused",
            "GroupChanged",
            "InvalidInput",
            "NotAMember",
            "NotFound",
            "PolicyError",
            "PreconditionFailed",
            "SettingsError",
            "UnpricedModel",
        ),
        "extension": ("GovBudget",),
        "identity": (
            "SITE",
            "Action",
            "Assignment",
            "Domain",
            "Group",
            "Ledger",
            "Member",
            "ObjectType",
            "Organization",
            "PriceBook",
            "Scope",
            "Subject",
        ),
        "ids": ("IdType",),
        "spend.installation": ("Installation",),
        "prices.price": ("Price",),
        "spend.open_hold": ("OpenHold",),
        "spend.tokens": ("Tokens",),
        "spend.usage": ("Call", "Hold", "Usage"),
        "db.tables": ("Layout", "Tables"),
    }.items()
    for name in names
}

__all__ = [
    "SITE",
    "Action",
    "Allowed",
    "Assignment",
    "Budget",
    "BudgetExceeded",
    "Call",
    "Condition",
    "Decision",
    "DecisionTable",
    "Directory",
    "Domain",
    "EventConflict",
    "Finding",
    "Forbidden",
    "GovBudget",
    "GovBudgetError",
    "Grant",
    "GrantRefused",
    "Group",
    "GroupChanged",
    "Hold",
    "IdType",
    "Installation",
    "InvalidInput",
    "Layout",
    "Ledger",
    "Member",
    "NotAMember",
    "NotFound",
    "ObjectType",
    "OpenHold",
    "Organization",
    "Policy",
    "PolicyError",
    "PreconditionFailed",
    "Price",
    "PriceBook",
    "Scope",
    "SettingsError",
    "SqlDirectory",
    "Subject",
    "Tables",
    "Tokens",
    "UnpricedModel",
    "Usage",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module `govbudget` has no attribute `{name}`"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"govbudget.{_HOMES[name]}"), name)
