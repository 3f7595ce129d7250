"""The list of all statements: those that need a right, and the few that need none.

It is what the policy is asked about, and what each right can touch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TypeVar

from govbudget.db.governed import Governed, Ungoverned
from govbudget.parts import is_installed

# The modules that hold some; of a part only where it is installed.
MODULES = (
    *("audit.statements", "budgets.statements", "prices.statements", "directory.names"),
    *("spend.statements", "spend.hold_statements", "spend.corrections", "spend.price_gaps"),
    *("spend.notices", "spend.overrides", "spend.this_month", "spend.overview", "spend.report"),
    *("spend.refusals", "spend.export", "spend.verify", "spend.closing_statements"),
)

StatementT = TypeVar("StatementT", Governed, Ungoverned)  # type: ignore[type-arg]


def list_governed() -> dict[str, Governed]:  # type: ignore[type-arg]
    """Give every statement that needs a right, by its name."""
    return _gather(Governed)


def list_ungoverned() -> dict[str, Ungoverned]:
    """Give every statement that needs no right, by its name."""
    return _gather(Ungoverned)


def _gather(kind: type[StatementT]) -> dict[str, StatementT]:
    found = [
        value
        for module in MODULES
        if is_installed(module)
        for value in vars(import_module(f"govbudget.{module}")).values()
        if isinstance(value, kind)
    ]
    return {statement.name: statement for statement in found}
