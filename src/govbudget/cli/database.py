"""`govbudget db`: the schema, its migrations and its state."""

from __future__ import annotations

from typing import Any

import click
import sqlalchemy as sa

from govbudget.cli import NOT_SO, OK, NotSo
from govbudget.cli.each_database import each_database
from govbudget.cli.environment import open_database
from govbudget.cli.host import find_settings
from govbudget.db.retries import OTHER_SCHEMA, RETRIED, find_sqlstate, retry
from govbudget.db.revisions import VERSION_TABLE, head_revision, read_revision
from govbudget.db.rights import find_excess
from govbudget.db.tables import Tables, list_rights
from govbudget.db.triggers import name_table, quote
from govbudget.layout import Layout
from govbudget.migrations import find_differences, upgrade, write_sql

# SQLSTATE: what a second upgrade at the same moment meets: the first made it meanwhile.
_MADE_MEANWHILE = frozenset({"23505", "42P06", "42P07", "42701", "42710", "42723"})
# What a foreign key to the host's groups meets: no such table, another type, not unique, a view, a
# key that is checked later, a table that is not kept.
_GROUPS_DO_NOT_FIT = OTHER_SCHEMA | {"42830", "42809", "55000", "42P16"}
_TIMEOUTS = {
    "55P03": ("lock_timeout", "for a lock"),
    "57014": ("statement_timeout", "for a statement"),
}


@click.group()
def db() -> None:
    """Migrations of govbudget's own schema."""


MAX_SECONDS = 2_147_483  # PostgreSQL keeps 32 bits of milliseconds
SECONDS: dict[str, Any] = {"metavar": "SECONDS", "type": click.IntRange(0, MAX_SECONDS)}
LOCK_HELP = "Give up if a lock takes longer; 0: wait."
STATEMENT_HELP = "Give up if a statement takes longer; 0: wait."


@db.command("upgrade")
@click.option("--lock-timeout", default=5, help=LOCK_HELP, **SECONDS)
@click.option("--statement-timeout", default=60, help=STATEMENT_HELP, **SECONDS)
@each_database
def db_upgrade(**timeouts: int) -> None:
    """Bring the schema to the newest revision: in one transaction, or not at all.

    Two at once do no harm.
    """
    layout = find_settings().layout
    with open_database() as engine:
        before = _upgrade(engine, layout, timeouts)
    head = head_revision()
    was = f"from {before or 'nothing'} to {head}" if before != head else f"at {head} already"
    click.echo(f"schema `{layout.schema}`: {was}")


def _upgrade(engine: sa.Engine, layout: Layout, timeouts: dict[str, int]) -> str | None:
    """Upgrade, and give the revision that it was at; try again where another one was faster."""

    def run() -> str | None:
        with engine.begin() as connection:
            for name, seconds in timeouts.items():
                connection.execute(sa.select(sa.func.set_config(name, f"{seconds}s", True)))  # noqa: FBT003
            before = read_revision(connection, layout)
            upgrade(connection, layout)
            return before

    try:
        return retry(run, RETRIED | _MADE_MEANWHILE)
    except sa.exc.DBAPIError as error:
        state = find_sqlstate(error)
        if state in _TIMEOUTS:
            name, waited = _TIMEOUTS[state]
            raise click.ClickException(
                f"gave up after waiting {timeouts[name]} s {waited}; nothing was changed; try "
                f"again at a quieter time, or with a longer --{name.replace('_', '-')}"
            ) from error
        if state in _GROUPS_DO_NOT_FIT and not layout.owns_directory:
            reason = str(error.orig).splitlines()[0]
            raise click.ClickException(
                f"GOVBUDGET_GROUPS is `{layout.groups}`, which can't be referred to ({reason}); "
                "name a unique column of the type GOVBUDGET_ID_TYPE, in a table that is there, or "
                "write `none`"
            ) from error
        raise


@db.command("current")
@each_database
def db_current() -> None:
    """Print the revision that the schema is at, and nothing else (status 1: there is none)."""
    layout = find_settings().layout
    with open_database() as engine, engine.connect() as connection:
        revision = read_revision(connection, layout)
    if revision is None:
        raise NotSo(f"schema `{layout.schema}` is at nothing")
    click.echo(revision)


@db.command("sql")
@click.option("--from", "start", metavar="REVISION", help="Revision to start from, if any.")
def db_sql(start: str | None) -> None:
    """Print the SQL of `db upgrade` for a DBA to run, as one transaction. Asks no database."""
    click.echo(write_sql(find_settings().layout, start), nl=False)


@db.command("grants")
@click.argument("role")
def db_grants(role: str) -> None:
    """Print the least rights that ROLE needs to serve, for a DBA to run. Asks no database.

    ROLE is a database role that owns none of the tables. For it, the ledger and the audit trail
    are append-only. Use another role to migrate, to load the directory and to make tokens. Run
    this again after each `db upgrade`. Rights on a host's own tables are not included.
    """
    if not role.strip() or role == "public":
        # PostgreSQL takes `public` for everybody, in quotes as well.
        raise click.UsageError("ROLE is the name of one database role, such as `govbudget_server`")
    layout, server = find_settings().layout, quote(role)
    click.echo(f"GRANT USAGE ON SCHEMA {quote(layout.schema)} TO {server};")
    click.echo(f"GRANT SELECT ON {quote(layout.schema)}.{VERSION_TABLE} TO {server};")
    for table, rights in list_rights(Tables(layout)):
        click.echo(f"GRANT {rights} ON {name_table(table)} TO {server};")


@db.command("check")
@each_database
def db_check() -> int:
    """Say whether the schema is at the newest revision and unchanged (status 1: no).

    Also checks the triggers that write the audit trail. Warns if the role of the URL may do more
    than serving needs, as the role that migrates may; the status stays the same.
    """
    layout = find_settings().layout
    with open_database() as engine, engine.connect() as connection:
        revision = read_revision(connection, layout)
        if revision != head_revision():
            click.echo(
                f"schema `{layout.schema}` is at {revision or 'nothing'}, the newest is "
                f"{head_revision()}; run `govbudget db upgrade`"
            )
            return NOT_SO
        differences = find_differences(connection, layout)
        excess = list(find_excess(connection, layout))
    for sentence in excess:
        click.echo(f"warning: {sentence}; to serve with less, see `govbudget db grants`")
    for difference in differences:
        click.echo(f"differs: {difference}")
    if differences:
        return NOT_SO
    click.echo(f"schema `{layout.schema}` is at {revision}, as it should be")
    return OK
