"""`govbudget spend`: what was spent, and the proof of it."""

from __future__ import annotations

import click

from govbudget.cli import NOT_SO
from govbudget.cli.target import find_policy, open_target, operator
from govbudget.identity import Action, Ledger
from govbudget.spend.verify import verify_spend


@click.group()
def spend() -> None:
    """What was spent: the ledger, and what is added up from it."""


@spend.command("verify")
@click.option("--organization", help="An organization's id; without it: all of them.")
@click.pass_context
def spend_verify(ctx: click.Context, organization: str | None) -> None:
    """Prove that ledger, rollups, counters and holds agree; status 1 and a line each: they don't.

    It reads one snapshot and locks nothing: it may be run at any time.
    """
    policy = find_policy()
    with open_target() as target, target.engine.begin() as connection:
        place = None if organization is None else target.settings.id_type.parse(organization)
        grant = policy.authorize(operator(policy, connection), Action.CREATE, Ledger())
        seen = verify_spend(connection, target.tables, grant, place)
    for finding in seen.findings:
        click.echo(finding)
    if seen.findings:
        ctx.exit(NOT_SO)
    click.echo(f"{seen.members} members, {seen.calls} calls: ledger = rollups = counters")
