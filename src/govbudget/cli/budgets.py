"""`govbudget budget`: what each member of a group may spend in a month."""

from __future__ import annotations

from collections.abc import Callable

import click

from govbudget.budgets.budget import Budget
from govbudget.budgets.store import Budgets
from govbudget.cli import NotSo
from govbudget.cli.each_database import each_database
from govbudget.cli.environment import list_all, open_gov, run_as_operator
from govbudget.cli.formats import format_option, print_answer, reading
from govbudget.cli.host import find_settings
from govbudget.db.unit import Grant
from govbudget.errors import NotFound
from govbudget.identity import OPERATOR, Group
from govbudget.money import MAX_LIMIT_MICROS, parse_usd, write_usd


@click.group()
def budget() -> None:
    """Budgets: what each member of a group may spend in a month."""


def _run(action: str, group: str, work: Callable[[Grant[Group]], Budget]) -> Budget:
    """Run work as the operator on a group; raise NotSo where it, or its budget, is not there."""
    asked = find_settings().id_type.parse(group)
    try:
        return run_as_operator(lambda unit: work(unit.authorize(action, group=asked)))
    except NotFound as error:
        message = f"no group `{group}` is known here"
        if error.code == "budget-not-set":
            message = f"group `{group}` has no budget, so no limit; `govbudget budget set` sets one"
        raise NotSo(message) from None


def _print(form: str, found: Budget) -> None:
    print_answer(form, {} if form == "text" else _describe(found), [_show(found)])


def _describe(found: Budget) -> dict[str, object]:
    from govbudget.web.answers import BudgetAnswer  # with pydantic

    return BudgetAnswer.model_validate(found).model_dump(mode="json")


def _show(found: Budget, says: str = "each member may spend") -> str:
    micros = found.spend_limit_micros
    return f"group {found.group_id}: {says} {write_usd(micros)} USD ({micros} micros) a month"


@budget.command("show")
@click.argument("group")
@format_option("text", "json")
@each_database
def budget_show(group: str, form: str) -> None:
    """Print the limit of GROUP (an id); status 1: it has none."""
    _print(form, _run("read", group, Budgets.get))


@budget.command("set")
@click.argument("group")
@click.option(
    "--usd", type=reading(parse_usd), metavar="AMOUNT", help="US dollars, such as 20 or 0.5."
)
@click.option(
    "--micros", type=click.IntRange(0, MAX_LIMIT_MICROS), help="The same in micros; 1 USD is 10^6."
)
@format_option("text", "json")
@each_database
def budget_set(group: str, usd: int | None, micros: int | None, form: str) -> None:
    """Set the limit of GROUP (an id): what each of its members may spend in a month.

    With 0, they may spend nothing. Status 1: there is no such group.
    """
    limits = [limit for limit in (usd, micros) if limit is not None]
    if len(limits) != 1:
        raise click.UsageError("name one of --usd and --micros")
    _print(form, _run("update", group, lambda grant: Budgets.set(grant, limits[0])))


@budget.command("clear")
@click.argument("group")
@each_database
def budget_clear(group: str) -> None:
    """Clear the limit of GROUP (an id). It then has no limit. Status 1: it had none."""
    click.echo(_show(_run("update", group, Budgets.delete), "no limit any more; it was"))


@budget.command("list")
@click.argument("organization")
@format_option("text", "json", "csv")
@each_database
def budget_list(organization: str, form: str) -> None:
    """List the limits of the groups in ORGANIZATION (an id). Groups without one are left out."""
    from govbudget.web.answers import BudgetAnswer

    asked = find_settings().id_type.parse(organization)
    with open_gov() as gov, gov.unit(OPERATOR, atomic=True) as unit:
        grant = unit.authorize("read", organization=asked)
        found = list_all(grant, Budgets.list, lambda one: one.group_id)
        columns = list(BudgetAnswer.model_fields)
        print_answer(form, map(_describe, found), map(_show, found), columns)
