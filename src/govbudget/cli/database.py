"""Commands that work on the database: migrations, the directory, tokens, prices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from govbudget.cli import NOT_SO
from govbudget.cli.target import find_policy, open_target, operator
from govbudget.directory.load import load_directory
from govbudget.directory.tokens import MAX_DAYS, TokenStore
from govbudget.errors import NotFound
from govbudget.identity import Action, PriceBook
from govbudget.migrations import find_differences, head_revision, read_revision, upgrade
from govbudget.prices.price import parse_prices
from govbudget.prices.store import PriceStore

if TYPE_CHECKING:
    from typing import BinaryIO
    from uuid import UUID


@click.group()
def db() -> None:
    """Migrations of govbudget's own schema."""


@db.command("upgrade")
def db_upgrade() -> None:
    """Bring the schema to the newest revision."""
    with open_target() as target, target.engine.begin() as connection:
        before = read_revision(connection, target.settings.layout)
        upgrade(connection, target.settings.layout)
    head = head_revision()
    was = f"from {before or 'nothing'} to {head}" if before != head else f"at {head} already"
    click.echo(f"schema `{target.settings.schema}`: {was}")


@db.command("check")
@click.pass_context
def db_check(ctx: click.Context) -> None:
    """Say whether the schema is at the newest revision and as it should be (status 1: no)."""
    with open_target() as target, target.engine.connect() as connection:
        revision = read_revision(connection, target.settings.layout)
        if revision != head_revision():
            click.echo(
                f"schema `{target.settings.schema}` is at {revision or 'nothing'}, the newest is "
                f"{head_revision()}; run `govbudget db upgrade`"
            )
            ctx.exit(NOT_SO)
        differences = find_differences(connection, target.settings.layout)
    for difference in differences:
        click.echo(f"differs: {difference}")
    if differences:
        ctx.exit(NOT_SO)
    click.echo(f"schema `{target.settings.schema}` is at {revision}, as it should be")


@click.group()
def directory() -> None:
    """Organizations, users, groups, memberships and roles."""


@directory.command("load")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
def directory_load(file: BinaryIO, *, dry_run: bool) -> None:
    """Load FILE (JSON, `-`: standard input), the whole truth for the organizations it names."""
    policy = find_policy()
    with open_target() as target, target.engine.connect() as connection:
        tables = target.require_own_directory()
        changes = load_directory(connection, tables, file.read(), policy.table.scopes)
        if not dry_run:
            connection.commit()
    for change in changes:
        click.echo(str(change))
    counts = {
        verb: sum(c.verb == verb for c in changes) for verb in ("added", "changed", "removed")
    }
    summary = ", ".join(f"{count} {verb}" for verb, count in counts.items())
    click.echo(summary + (" (dry run: nothing was changed)" if dry_run else ""))


@click.group()
def token() -> None:
    """Bearer tokens for the stand-alone server."""


@token.command("create")
@click.argument("user", type=click.UUID)
@click.option("--days", type=click.IntRange(1, MAX_DAYS), default=90, show_default=True)
def token_create(user: UUID, days: int) -> None:
    """Print a new token for USER, and nothing else. It can't be shown again."""
    with open_target() as target, target.engine.begin() as connection:
        text = TokenStore(target.require_own_directory()).create(connection, user, days)
    click.echo(text)


@token.command("list")
def token_list() -> None:
    """List the tokens: id, state, last day, user. The secrets are stored nowhere."""
    with open_target() as target, target.engine.connect() as connection:
        tokens = TokenStore(target.require_own_directory()).list(connection)
    for item in tokens:
        until = item.expires_at.date().isoformat()
        click.echo(f"{item.id}  {item.state:<7}  {until}  {item.user_id}  {item.user_name}")


@token.command("revoke")
@click.argument("token_id", metavar="ID", type=click.UUID)
@click.pass_context
def token_revoke(ctx: click.Context, token_id: UUID) -> None:
    """Revoke the token with this ID (see `token list`); status 1 where there is none to revoke."""
    with open_target() as target, target.engine.begin() as connection:
        revoked = TokenStore(target.require_own_directory()).revoke(connection, token_id)
    if not revoked:
        click.echo(f"govbudget: no live token `{token_id}`; see `govbudget token list`", err=True)
        ctx.exit(NOT_SO)
    click.echo(f"revoked {token_id}")


@click.group()
def prices() -> None:
    """The model price book."""


@prices.command("load")
@click.argument("file", type=click.File("rb"))
def prices_load(file: BinaryIO) -> None:
    """Load FILE (a JSON array of price rows, `-`: standard input), all or nothing."""
    batch = parse_prices(file.read())
    policy, book = find_policy(), PriceBook()
    with open_target() as target, target.engine.begin() as connection:
        grant = policy.authorize(operator(policy, connection), Action.UPDATE, book)
        result = PriceStore(target.tables).upsert(connection, grant, book, batch)
    click.echo(f"{result.received} received, {result.changed} changed")


@prices.command("show")
@click.argument("provider")
@click.argument("model")
@click.pass_context
def prices_show(ctx: click.Context, provider: str, model: str) -> None:
    """Print the price in force of a model, in micros per one million tokens; status 1: unknown."""
    policy, book = find_policy(), PriceBook()
    with open_target() as target, target.engine.begin() as connection:
        grant = policy.authorize(operator(policy, connection), Action.READ, book)
        try:
            price = PriceStore(target.tables).get(connection, grant, book, provider, model)
        except NotFound:
            click.echo(f"govbudget: no price is known for `{provider}` `{model}`", err=True)
            ctx.exit(NOT_SO)
    click.echo(json.dumps(price.model_dump(), indent=2))
