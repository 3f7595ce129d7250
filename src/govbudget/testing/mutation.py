"""Mutants of a policy: every one-step edit of its lines, and what notices it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from govbudget.authz.evaluator import build_table
from govbudget.authz.files import PolicyFiles, read_policy_files
from govbudget.authz.matrix import compare_with_matrix, list_cells
from govbudget.authz.policy import Policy
from govbudget.authz.reader import FIELDS, Effect, Line, read_policy
from govbudget.authz.table import DecisionTable
from govbudget.errors import Finding
from govbudget.identity import Action, ObjectType, Scope


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edited policy: what was edited, the findings that kill it, whether it means the same."""

    edit: str
    findings: tuple[Finding, ...]
    is_equivalent: bool

    @property
    def survives(self) -> bool:
        """Whether it means something else and nothing notices: `matrix.csv` is too weak."""
        return not self.findings and not self.is_equivalent


def mutants(policy: Policy) -> Iterator[Mutant]:
    """Make every one-step edit of the policy's lines; check it with the reader and `matrix.csv`.

    Edits: delete a line, flip its effect, put another value of its set into a field, add a deny.
    A mutant is equivalent where no role's scope and no cell's verdict differs, which is where no
    set of roles is decided differently.
    """
    files = read_policy_files(policy.folder)
    for edit, lines in _edit(policy.table):
        text = "".join(f"{line.text}\n" for line in lines)
        mutated = PolicyFiles(files.model, text.encode("ascii"), files.matrix)
        read, findings = read_policy(mutated)
        if findings:
            yield Mutant(edit, tuple(findings), is_equivalent=False)
            continue
        table = build_table(mutated, read, compare=False)
        seen = compare_with_matrix(table, files.matrix) if files.matrix is not None else []
        yield Mutant(edit, tuple(seen), _means_the_same(policy.table, table))


def _means_the_same(one: DecisionTable, other: DecisionTable) -> bool:
    return one.scopes == other.scopes and all(
        one.cell(*cell).verdict is other.cell(*cell).verdict for cell in list_cells(one)
    )


def _edit(table: DecisionTable) -> Iterator[tuple[str, list[Line]]]:
    lines = list(table.lines)
    sets: tuple[Iterable[Any], ...] = (sorted(table.scopes), Scope, ObjectType, Action, Effect)
    others = dict(zip(FIELDS, sets, strict=True))
    for index, line in enumerate(lines):
        before, after = lines[:index], lines[index + 1 :]
        yield f"delete {line.name}", [*before, *after]
        for name, values in others.items():
            old = getattr(line, name)
            for new in values:
                if new != old:
                    changed = replace(line, **{name: new})
                    yield f"change {old} to {new} in {line.name}", [*before, changed, *after]
    for role, obj, action in list_cells(table):
        deny = Line(0, role, table.scopes[role], obj, action, Effect.DENY)
        yield f"add {deny.text}", [*lines, deny]
