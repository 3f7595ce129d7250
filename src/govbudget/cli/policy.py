"""Commands that work on policy files alone: no database, no server."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from govbudget.authz.files import packaged_policy_dir
from govbudget.cli import NOT_SO
from govbudget.cli.target import find_policy_dir
from govbudget.errors import PolicyError
from govbudget.review.check import check_policy
from govbudget.review.render import RENDERERS, select_cells

if TYPE_CHECKING:
    from pathlib import Path

    from govbudget.authz.table import DecisionTable


@click.group()
def policy() -> None:
    """Check and print a policy.

    DIR: the argument, else GOVBUDGET_POLICY_DIR, else the packaged policy.
    """


def open_folder(argument: str | None) -> Path:
    """Give the folder that is asked about."""
    return find_policy_dir(argument) or packaged_policy_dir()


def open_table(argument: str | None) -> DecisionTable:
    """Load the table of the folder that is asked about and say which it is, on stderr."""
    folder = open_folder(argument)
    review = check_policy(folder)
    _announce(folder, review.digest)
    if review.table is None:
        raise PolicyError(review.findings)
    return review.table


def _announce(folder: Path, digest: str | None) -> None:
    click.echo(f"policy: {folder} {digest or '(unreadable)'}", err=True)


@policy.command("check")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@click.pass_context
def policy_check(ctx: click.Context, folder: str | None, form: str) -> None:
    """Print every finding as `file:line: code: sentence`; status 1 on any."""
    path = open_folder(folder)
    review = check_policy(path)
    _announce(path, review.digest)
    if form == "json":
        value = {
            "policy_digest": review.digest,
            "findings": [asdict(finding) for finding in review.findings],
        }
        click.echo(json.dumps(value, indent=2))
    else:
        for finding in review.findings:
            click.echo(str(finding))
        if not review.findings and review.table is not None:
            count = f"{len(review.table.lines)} lines, {len(review.table.scopes)} roles"
            click.echo(f"no findings: {count}, and every decision is as reviewed")
    if review.findings:
        ctx.exit(NOT_SO)


@policy.command("matrix")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--role", multiple=True)
@click.option("--object", "obj", multiple=True)
@click.option("--action", multiple=True)
@click.option("--format", "form", type=click.Choice(sorted(RENDERERS)), default="text")
def policy_matrix(
    folder: str | None,
    role: tuple[str, ...],
    obj: tuple[str, ...],
    action: tuple[str, ...],
    form: str,
) -> None:
    """Print every decision, with its deciding lines."""
    table = open_table(folder)
    try:
        cells = select_cells(table, role, obj, action)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(RENDERERS[form](table, cells), nl=False)
