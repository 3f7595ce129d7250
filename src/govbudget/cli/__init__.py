"""The command `govbudget`, and the same commands as `flask govbudget` inside a host."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

import click

from govbudget.authz.reader import suggest
from govbudget.errors import GovBudgetError, InvalidInput, PolicyError
from govbudget.parts import is_installed

OK, NOT_SO, WRONG = 0, 1, 2
ABOUT = "in "  # starts the note of an error that says which database it is about

# In which module each command is, loaded when it is named; those of a part where it is installed.
_MODULES = {
    "audit": "cli.audit",
    "budget": "cli.budgets",
    "budgets": "spend.budgets_file",
    "db": "cli.database",
    "demo": "server.demo",
    "directory": "server.cli",
    "notices": "spend.notices_cli",
    "policy": "cli.policy",
    # The first adds to the second.
    "prices": "spend.prices_cli" if is_installed("spend") else "cli.prices",
    "serve": "server.serve",
    "spend": "spend.cli",
    "token": "server.cli",
}


class NotSo(click.ClickException):
    """The thing asked about is not so: a sentence, and status 1."""


class NotHere(NotSo):
    """It is not so in this database; of several it can be so in another one."""


class _Commands(click.Group):
    """Loads a command when it is named, and says every error in one line.

    A command gives its status, or nothing where all is well.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(name for name, module in _MODULES.items() if is_installed(module))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            if not ctx.resilient_parsing:
                ctx.fail(f"`{cmd_name}` is not a command; {suggest(cmd_name, _MODULES)}")
            return None
        module = importlib.import_module(f"govbudget.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            status = super().invoke(ctx)
        except BrokenPipeError:  # who read our output has gone; nothing is left to say
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 128 + signal.SIGPIPE
        except Exception as error:  # noqa: BLE001 - it raises what it does not know
            status = report(error)
        return ctx.exit(status) if status else None


SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=_Commands, context_settings=SETTINGS)
@click.version_option(package_name="govbudget", message="%(prog)s %(version)s")
def cli() -> None:
    """AI budgets per group, governed by a policy that one can read."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command: status 0 well, 1 the thing asked about is not so, 2 wrong usage or input."""
    # Else Python looks through all that was imported, which takes half as long as importing it.
    atexit.register(gc.freeze)
    if sys.stdin is None:  # of a job that was started without one; read as a file, it is empty
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - for as long as the process lives
    try:
        status = cli.main(arguments, prog_name="govbudget", standalone_mode=False)
    except click.Abort:
        click.echo("govbudget: interrupted", err=True)
        status = 130
    except Exception as error:  # noqa: BLE001 - it raises what it does not know
        status = report(error)
    sys.exit(status if isinstance(status, int) else OK)


def report(error: Exception) -> int:
    """Say on stderr what was wrong, and give the status; raise what a command does not explain."""
    if not isinstance(error, _list_known()):
        raise error
    for line in _explain(error):
        click.echo(line, err=True)
    return NOT_SO if isinstance(error, NotSo) else WRONG


def _list_known() -> tuple[type[Exception], ...]:
    """Give the errors that a command explains; a database's where its library is loaded at all."""
    library = sys.modules.get("sqlalchemy.exc")
    refusals = (library.SQLAlchemyError,) if library else ()
    return (GovBudgetError, click.ClickException, OSError, *refusals)


def _explain(error: Exception) -> Iterator[str]:
    """Say what was wrong, about what: one line, and one more for each finding or wrong entry."""
    notes = getattr(error, "__notes__", ())
    about = "".join(note.removeprefix(ABOUT) for note in notes if note.startswith(ABOUT))
    if isinstance(error, PolicyError):
        yield from map(str, error.findings)
        return
    if isinstance(error, GovBudgetError):
        reason = error.detail
        if error.code == "invalid-id" and _has_own_users():
            reason += "; `directory find` looks ids up by name"
    elif isinstance(error, click.ClickException):
        reason = error.format_message()
        if reason.startswith("Usage: "):  # a group without a command: click says the help
            yield reason
            return
        if isinstance(error, click.UsageError) and error.ctx is not None:
            stop = "" if reason.endswith((".", "?", "!")) else "."
            reason += f"{stop} See `{error.ctx.command_path} --help`."
    elif isinstance(error, OSError):
        reason = f"{error.filename or 'input or output'}: {(error.strerror or str(error)).lower()}"
    else:
        reason = _explain_refusal(error)
    yield f"govbudget: {about}" + " ".join(reason.split())
    if isinstance(error, InvalidInput):
        for item in error.errors:
            yield f"  {item.pointer or '/'}: {item.detail}"


def _has_own_users() -> bool:
    """Say whether users are in govbudget's tables, unless a host has them in tables of its own."""
    from govbudget.cli.host import find_host

    host = find_host()
    return host is None or host.settings.layout.owns_directory


def _explain_refusal(error: Exception) -> str:
    """Say why the database refused, and what to do."""
    from govbudget.db.connection import DATABASE_URL
    from govbudget.db.retries import HINTS, find_sqlstate
    from govbudget.db.urls import DATABASE_URLS

    cause, state = getattr(error, "orig", None) or error, find_sqlstate(error)
    hint = HINTS.get(state or "", "its log says more")
    if state is None:  # it was not reached
        hint = f"is {DATABASE_URLS if os.environ.get(DATABASE_URLS) else DATABASE_URL} right?"
    return f"the database refused: {str(cause).strip().splitlines()[0]}; {hint}"
