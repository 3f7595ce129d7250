"""Write docs/rights.md: for each right that is asked for, the tables that it can read and write.

    python -m tools.write_rights

It reads the governed statements with an SQL parser. A test holds the page equal.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import sqlglot
from sqlglot import exp

from govbudget import Layout, Policy
from govbudget.db.gov import Gov
from govbudget.db.sql import prepare
from govbudget.db.tables import Tables
from govbudget.directory.sql import own_directory
from govbudget.settings import Settings
from govbudget.statements import list_governed, list_ungoverned

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "rights.md"
# What a change of a table writes beside it: the triggers of the audit trail.
TRIGGERED = {
    "ai_model_prices": {"audit_log"},
    "group_ai_budgets": {"audit_log"},
    "member_ai_overrides": {"audit_log"},
}
OBJECTS = {
    "Group": "a group",
    "Organization": "an organization",
    "Member": "a member",
    "PriceBook": "the prices",
    "Ledger": "the ledger",
}

HEAD = """\
# What each right can touch

Only a grant runs SQL about budgets, prices, spend and the audit trail, and each statement names
the right that it needs ([record 2](adr/0002-the-grant.md)). This table has every statement by its
right, with every table that it can read and write, in an installation with govbudget's own
directory. A statement reads and writes only what is about the grant's object.

| right | what the policy is asked | statements | reads | writes |
|---|---|---|---|---|
"""
FOOT = """
Triggers also write `audit_log`, in the statement of the change. Statements that load the caller and
the object before the decision read only the directory's tables.

## Without a right

| statement | why | reads | writes |
|---|---|---|---|
"""
END = """
Commands that migrate, load the directory file or make tokens need the database's URL and no right.

`python -m tools.write_rights` writes this page, and a test compares it with the code.
"""


def _no_engine(_: object) -> NoReturn:
    raise NotImplementedError


def find_tables(text: str) -> tuple[set[str], set[str]]:
    """Give the tables of govbudget that SQL reads, and those that it writes, triggers included."""
    tree = sqlglot.parse_one(text, dialect="postgres")
    changes = list(tree.find_all(exp.Insert, exp.Update, exp.Delete))
    targets = [target for change in changes if (target := change.this.find(exp.Table))]
    written = {target.name for target in targets}
    ours = [table for table in tree.find_all(exp.Table) if table.db == "govbudget"]
    read = {table.name for table in ours if all(table is not target for target in targets)}
    return read, written.union(*(TRIGGERED.get(name, ()) for name in written))


def write_page() -> str:
    """Write the page."""
    layout = Layout()
    gov = Gov(Settings(), Policy.load(), own_directory(Tables(layout)), _no_engine)
    rights: dict[tuple[str, str, str], list[tuple[str, set[str], set[str]]]] = defaultdict(list)
    for name, statement in list_governed().items():
        sides = find_tables(str(gov.find(statement, elsewhere=True, is_first=True)))
        cells = statement.list_cells(gov.policy.table)
        asked = ", ".join(f"`{action}` on `{obj}`" for obj, action in cells)
        rights[str(statement.action), statement.kind.__name__, asked].append((name, *sides))
    return HEAD + "".join(_write_rights(rights)) + FOOT + "".join(_write_ungoverned(gov)) + END


def _write_rights(
    rights: dict[tuple[str, str, str], list[tuple[str, set[str], set[str]]]],
) -> Iterator[str]:
    order = [*OBJECTS]
    for action, kind, asked in sorted(rights, key=lambda r: (order.index(r[1]), r[0], r[2])):
        found = rights[action, kind, asked]
        names = ", ".join(f"`{name}`" for name, _, _ in found)
        read: set[str] = set().union(*(read for _, read, _ in found))
        written: set[str] = set().union(*(written for _, _, written in found))
        right = f"{action} {OBJECTS[kind]}"
        yield f"| {right} | {asked} | {names} | {_list(read)} | {_list(written)} |\n"


def _write_ungoverned(gov: Gov) -> Iterator[str]:
    for name, statement in list_ungoverned().items():
        text = str(prepare(statement.text, gov.settings.layout, (), **statement.parts(gov)))
        read, written = find_tables(text)
        yield f"| `{name}` | {statement.reason} | {_list(read)} | {_list(written)} |\n"


def _list(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "nothing"


if __name__ == "__main__":
    DOCUMENT.write_text(write_page())
