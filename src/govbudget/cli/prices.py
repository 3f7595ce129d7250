"""`govbudget prices`: the model price book and custom prices."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from typing import TYPE_CHECKING

import click

from govbudget.cli import NOT_SO
from govbudget.cli.spreadsheet import write_csv
from govbudget.cli.target import find_policy, open_target, operator
from govbudget.errors import NotFound
from govbudget.identity import Action, PriceBook
from govbudget.prices.change import MAX_FACTOR, refuse_jumps
from govbudget.prices.gap import PriceGap, list_gaps
from govbudget.prices.price import parse_prices
from govbudget.prices.store import PriceSource, PriceStore
from govbudget.tables import PRICES, TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from sqlalchemy import Connection

    from govbudget.authz.grant import Grant
    from govbudget.prices.change import PriceChange
    from govbudget.tables import Tables

BOOK = PriceBook()


@dataclass(frozen=True, slots=True)
class _Access:
    """A transaction, and a grant in it to do one thing with the prices."""

    connection: Connection
    grant: Grant
    tables: Tables

    @property
    def store(self) -> PriceStore:
        return PriceStore(self.tables)


@contextmanager
def _open(action: Action) -> Iterator[_Access]:
    policy = find_policy()
    with open_target() as target, target.engine.begin() as connection:
        grant = policy.authorize(operator(policy, connection), action, BOOK)
        yield _Access(connection, grant, target.tables)


@click.group()
def prices() -> None:
    """The model price book and custom prices."""


@prices.command("load")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--source",
    type=click.Choice([source.value for source in PriceSource]),
    default=PriceSource.BOOK.value,
    show_default=True,
    help="Which prices to set; a model's custom price is in force before the book's.",
)
@click.option("--dry-run", is_flag=True, help="Print what would change, and write nothing.")
@click.option(
    "--allow-jumps",
    is_flag=True,
    help=f"Take prices that move by more than a factor of {MAX_FACTOR}.",
)
def prices_load(file: BinaryIO, *, source: str, dry_run: bool, allow_jumps: bool) -> None:
    """Load FILE (a JSON array of price rows, `-`: standard input), all or nothing."""
    batch, kind = parse_prices(file.read()), PriceSource(source)
    with _open(Action.UPDATE) as to:
        if dry_run:
            changes = to.store.compare(to.connection, to.grant, BOOK, batch, source=kind)
            for line in _tell(changes):
                click.echo(line)
            if not allow_jumps:
                refuse_jumps(changes, MAX_FACTOR)
            return
        if allow_jumps:
            result = to.store.upsert(to.connection, to.grant, BOOK, batch, source=kind)
        else:
            result = to.store.upsert_without_jumps(
                to.connection, to.grant, BOOK, batch, source=kind, factor=MAX_FACTOR
            )
    click.echo(f"{result.received} received, {result.changed} changed")


def _tell(changes: list[PriceChange]) -> Iterator[str]:
    """Tell what would change: `+` a new price, `~` another price, old -> new; then the sums."""
    new = [change for change in changes if change.was is None]
    other = [change for change in changes if change.was is not None and change.is_needed]
    for change in new:
        values = ", ".join(f"{name} {json.dumps(getattr(change.price, name))}" for name in PRICES)
        yield f"+ {change.price.provider}/{change.price.model}: {values}"
    for change in other:
        moves = ", ".join(
            f"{name} {json.dumps(old)} -> {json.dumps(value)}"
            for name, old, value in change.list_moves()
        )
        yield f"~ {change.price.provider}/{change.price.model}: {moves}"
    unchanged = len(changes) - len(new) - len(other)
    yield f"{len(new)} new, {len(other)} changed, {unchanged} unchanged; nothing is written"


@prices.command("show")
@click.argument("provider")
@click.argument("model")
@click.pass_context
def prices_show(ctx: click.Context, provider: str, model: str) -> None:
    """Print a model's price in force, and both sources' prices; status 1: none is known.

    Prices are micros per one million tokens.
    """
    with _open(Action.READ) as to:
        try:
            found = to.store.find(to.connection, to.grant, BOOK, provider, model)
        except NotFound:
            click.echo(f"govbudget: no price is known for `{provider}` `{model}`", err=True)
            ctx.exit(NOT_SO)
    in_force, price = next(iter(found.items()))
    shown = {**price.model_dump(), "in_force": in_force.value}
    for source in PriceSource:
        of_source = found.get(source)
        shown[source.value] = of_source and of_source.model_dump(include=set(PRICES))
    click.echo(json.dumps(shown, indent=2))


@prices.command("remove")
@click.argument("provider")
@click.argument("model")
@click.pass_context
def prices_remove(ctx: click.Context, provider: str, model: str) -> None:
    """Take a model's custom price away, so that the book's is in force; status 1: it has none."""
    with _open(Action.UPDATE) as to:
        try:
            to.store.remove(to.connection, to.grant, BOOK, provider, model)
        except NotFound:
            click.echo(f"govbudget: no custom price of `{provider}` `{model}`", err=True)
            ctx.exit(NOT_SO)
    click.echo(f"removed the custom price of `{provider}` `{model}`")


@prices.command("gaps")
@click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text")
def prices_gaps(form: str) -> None:
    """List the models that were used and have no price, the most used first.

    Calls that the prices of now would leave without a cost; CSV is safe to open in a spreadsheet.
    """
    with _open(Action.UPDATE) as to:
        gaps = list_gaps(to.connection, to.tables, to.grant, BOOK)
    if form == "json":
        click.echo(json.dumps([asdict(gap) for gap in gaps], indent=2))
        return
    if form == "csv":
        click.echo(write_csv(field.name for field in fields(PriceGap)), nl=False)
        for gap in gaps:
            *cells, missing = astuple(gap)
            click.echo(write_csv([*cells, " ".join(missing)]), nl=False)
        return
    for gap in gaps:
        tokens = ", ".join(
            f"{getattr(gap, name)} {name.removesuffix('_tokens')}" for name in TOKENS
        )
        click.echo(
            f"{gap.provider}/{gap.model}: {gap.calls} calls; tokens: {tokens};"
            f" missing: {', '.join(gap.missing)}"
        )
    if not gaps:
        click.echo("every model that was used has a price")
