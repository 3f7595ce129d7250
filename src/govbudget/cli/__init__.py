"""The command `govbudget`, and the same commands as `flask govbudget` inside a host."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from govbudget.errors import GovBudgetError, InvalidInput, PolicyError

OK, NOT_SO, WRONG = 0, 1, 2

# Where each command lives; loaded when it is named.
_COMMANDS = {
    "db": "govbudget.cli.database:db",
    "demo": "govbudget.cli.demo:demo",
    "directory": "govbudget.cli.database:directory",
    "policy": "govbudget.cli.policy:policy",
    "prices": "govbudget.cli.database:prices",
    "serve": "govbudget.cli.serve:serve",
    "token": "govbudget.cli.database:token",
}


class _Commands(click.Group):
    """Loads a command when it is named, and says every error in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except GovBudgetError as error:
            _say(error)
        except click.ClickException as error:
            _say_line(error.format_message())
        except OSError as error:
            _say_line(f"{error.strerror or error}: {error.filename or 'no file'}")
        except Exception as error:
            from sqlalchemy.exc import SQLAlchemyError

            if not isinstance(error, SQLAlchemyError):
                raise
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            _say_line(f"the database refused: {reason}; is GOVBUDGET_DATABASE_URL right?")
        ctx.exit(WRONG)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="govbudget", message="%(prog)s %(version)s")
def cli() -> None:
    """AI budgets per group, governed by a policy that one can read."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command: status 0 well, 1 the thing asked about is not so, 2 wrong usage or input."""
    try:
        status = cli.main(arguments, prog_name="govbudget", standalone_mode=False)
    except click.ClickException as error:
        _say_line(error.format_message())
        status = WRONG
    except click.Abort:
        _say_line("interrupted")
        status = 130
    sys.exit(status if isinstance(status, int) else OK)


def _say(error: GovBudgetError) -> None:
    if isinstance(error, PolicyError):
        for finding in error.findings:
            click.echo(str(finding), err=True)
        return
    _say_line(error.detail)
    if isinstance(error, InvalidInput):
        for item in error.errors:
            click.echo(f"  {item.pointer or '/'}: {item.detail}", err=True)


def _say_line(text: str) -> None:
    click.echo("govbudget: " + " ".join(text.split()), err=True)
