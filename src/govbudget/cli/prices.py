"""`govbudget prices`: the model price book and custom prices."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import click

from govbudget.cli import OK, NotSo
from govbudget.cli.each_database import each_database
from govbudget.cli.environment import run_as_operator, run_everywhere_as_operator, show_done
from govbudget.cli.formats import format_option, print_answer
from govbudget.db.unit import Unit
from govbudget.errors import NotFound
from govbudget.prices.change import MAX_FACTOR, refuse_jumps
from govbudget.prices.price import ALWAYS, Price, parse_prices, read_shipped_prices
from govbudget.prices.store import Comparison, Prices, PriceSource


@click.group()
def prices() -> None:
    """The model price book and custom prices."""


@prices.command("load")
@click.argument("file", metavar="[FILE]", type=click.File("rb"), required=False)
@click.option("--shipped", is_flag=True, help="Load the book that comes with govbudget; no FILE.")
@click.option(
    "--source",
    type=click.Choice([source.value for source in PriceSource]),
    default=PriceSource.BOOK.value,
    help="Which prices to set; a model's custom price is in force before the book's.",
)
@click.option("--dry-run", is_flag=True, help="Print what would change, and write nothing.")
@click.option(
    "--allow-jumps",
    is_flag=True,
    help=f"Take prices that move by more than a factor of {MAX_FACTOR}.",
)
def prices_load(
    file: BinaryIO | None, *, shipped: bool, source: str, dry_run: bool, allow_jumps: bool
) -> int | None:
    """Load FILE (a JSON array of price rows, `-`: standard input) or --shipped, all or nothing.

    The book's prices never touch the custom ones, which are in force before them; they replace
    those of all days of the models that FILE names. A price that moves by more than a factor of 20,
    up or down, is refused: against the one that is in force on its day, of its source, else of
    the other, else of the name that it is priced as. From a price to 0 is a jump too; from 0, and
    from and to null, is not. A dry run refuses what the load would.
    """
    if shipped == (file is not None):
        raise click.UsageError("name a FILE or --shipped, and not both")
    content = read_shipped_prices() if file is None else file.read()
    batch, kind = parse_prices(content), PriceSource(source)

    def load(unit: Unit) -> list[str]:
        grant = unit.authorize("update", prices=True)
        result = Prices.upsert(grant, batch, source=kind, allow_jumps=allow_jumps)
        return [f"{result.received} received, {result.changed} changed"]

    if dry_run:
        return _compare(batch, kind, allow_jumps=allow_jumps)
    show_done(run_everywhere_as_operator(load), list)
    return OK


@each_database
def _compare(batch: Sequence[Price], kind: PriceSource, *, allow_jumps: bool) -> None:
    """Print what a load would change; raise what it would."""

    def compare(unit: Unit) -> None:
        compared = Prices.compare(unit.authorize("update", prices=True), batch, source=kind)
        for line in _show_changes(compared):
            click.echo(line)
        if not allow_jumps:
            refuse_jumps(compared.changes)

    run_as_operator(compare)


def _show_changes(compared: Comparison) -> Iterator[str]:
    """Show what would change: `+` a new price, `~` another, old -> new, `-` one that goes; sums."""
    new = [change for change in compared.changes if change.was is None]
    other = [c for c in compared.changes if c.was is not None and c.is_needed]
    for change in new:
        yield f"+ {_name(change.price)}: {_show_values(change.price)}"
    for change in other:
        moves = ", ".join(
            f"{name} {json.dumps(old)} -> {json.dumps(value)}"
            for name, old, value in change.list_moves()
        )
        yield f"~ {_name(change.price)}: {moves or _show_values(change.price)}"
    for price in compared.removed:
        yield f"- {_name(price)}: {_show_values(price)}"
    counts = f"{len(new)} new, {len(other)} changed"
    if compared.removed:
        counts += f", {len(compared.removed)} removed"
    unchanged = len(compared.changes) - len(new) - len(other)
    yield f"{counts}, {unchanged} unchanged; nothing is written"


def _name(price: Price) -> str:
    day = price.model_dump(mode="json").get("effective_from")
    return f"{price.provider}/{price.model}{f' from {day}' if day else ''}"


def _show_values(price: Price) -> str:
    values = price.model_dump(mode="json", exclude={"provider", "model", "effective_from"})
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items())


@prices.command("show")
@click.argument("provider")
@click.argument("model")
def prices_show(provider: str, model: str) -> None:
    """Print a model's price in force, and both sources' prices; status 1: none is known.

    Prices are micros per one million tokens. A name that has no row may mean one by a rule of the
    shipped book; `priced_as` says which, and `rule` why.
    """
    found, match = run_as_operator(
        lambda unit: Prices.find_named(unit.authorize("read", prices=True), provider, model),
        f"no price is known for `{provider}` `{model}`; check both names, or load prices "
        "with `govbudget prices load --shipped` or from a file",
    )
    in_force, price = next(iter(found.items()))
    named = {"provider": provider, "model": model}
    said = {} if match is None else {"priced_as": match.priced_as._asdict(), "rule": match.rule}
    shown = {**price.model_dump(mode="json"), **named, **said, "in_force": in_force.value}
    for source in PriceSource:
        of_source = found.get(source)
        shown[source.value] = of_source and of_source.model_dump(
            mode="json", exclude={"provider", "model"}
        )
    print_answer("json", shown)


@prices.command("history")
@click.argument("provider")
@click.argument("model")
@format_option("text", "json")
def prices_history(provider: str, model: str, form: str) -> None:
    """Print a model's prices of all days, the latest first; status 1: there are none.

    Custom ones come first: the first whose day has come is in force. What a price was before
    somebody changed it is in the audit trail: `govbudget audit export --type ai_model_price`.
    """
    days = run_as_operator(
        lambda unit: Prices.list_days(unit.authorize("read", prices=True), provider, model),
        f"no price is known for `{provider}` `{model}`",
    )
    in_force = next((one for one in days if one.has_come), None)
    rows, lines = [], []
    for one in days:
        state = "in force" if one is in_force else "replaced" if one.has_come else "to come"
        day = one.price.effective_from
        start = "always" if day == ALWAYS else f"from {day}"
        rows.append(
            {"source": one.source.value, "state": state, **one.price.model_dump(mode="json")}
        )
        lines.append(f"{state:<8}  {one.source:<6}  {start:<15}  {_show_values(one.price)}")
    print_answer(form, rows, lines)


@prices.command("remove")
@click.argument("provider")
@click.argument("model")
def prices_remove(provider: str, model: str) -> None:
    """Take a model's custom prices away, so that the book's are in force; status 1: it has none."""

    def remove(unit: Unit) -> bool:
        grant = unit.authorize("update", prices=True)
        try:
            Prices.remove(grant, provider, model)
        except NotFound:
            return False
        return True

    done, missing = run_everywhere_as_operator(remove), f"no custom price of `{provider}` `{model}`"
    if not any(done.values()):
        raise NotSo(missing)
    removed = f"removed the custom price of `{provider}` `{model}`"
    show_done(done, lambda was_there: [removed if was_there else missing])
