"""Which of several databases a command works on. Where there is one, nothing here changes a thing.

What a command asks about an organization or a group is in its database. What it asks about a
database is asked of each in turn: one that fails hides no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from govbudget.cli import ABOUT, OK, NotHere, report
from govbudget.errors import PolicyError, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from govbudget.identity import Id

_KEY = "govbudget.turn"
# These would be the same with each database.
_OF_ALL = (PolicyError, SettingsError, click.UsageError, BrokenPipeError)


@dataclass(frozen=True, slots=True)
class Turn:
    """The database that a command works on now: its slots as text, its engine, whom it has.

    `opened` lists those of which something was printed for a program, of all that the command works
    on in turn; None: it works on this one alone.
    """

    slots: str
    engine: Engine
    has: Callable[[Id], bool]
    opened: list[str] | None = None


def find_turn() -> Turn | None:
    """Give the database that the command works on now; None: the only one, or the site's."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_KEY)


@contextmanager
def take(turn: Turn) -> Iterator[None]:
    """Work on this database for the length of a block. What goes wrong in it names the database."""
    meta = click.get_current_context().meta
    meta[_KEY] = turn
    try:
        yield
    except (*_OF_ALL, NotHere):
        raise
    except Exception as error:
        if turn.slots and turn.opened is not None:
            error.add_note(f"{ABOUT}database {turn.slots}: ")
        raise
    finally:
        del meta[_KEY]


def each_database(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Let a command work on each of several databases, and give the worst of their statuses.

    Where its parameters name an organization, or else a group, it works on their database alone.
    """

    @wraps(command)
    def run(*arguments: Any, **named: Any) -> int | None:  # noqa: ANN401 - the command's
        from govbudget.cli.environment import list_turns  # which loads the database's library

        owner = {name: named.get(name) for name in ("organization", "group")}
        turns = list_turns(**owner)
        if not turns or turns[0].opened is None:
            with take(turns[0]) if turns else nullcontext():
                return command(*arguments, **named)
        form, statuses, missing = named.get("form", "text"), [], []
        for turn in turns:
            if form == "text":
                click.echo(f"database {turn.slots}:")
            try:
                with take(turn):
                    statuses.append(command(*arguments, **named) or OK)
            except _OF_ALL:
                raise
            except NotHere as error:
                missing.append(error)
            except Exception as error:  # noqa: BLE001 - `report` raises what it does not know
                statuses.append(report(error))
        if form == "json":
            click.echo("}" if turns[0].opened else "{}")
        return max(statuses or map(report, missing[:1]))

    return run


@contextmanager
def in_database_of(organization: str | None = None, group: str | None = None) -> Iterator[None]:
    """Work on the database of an organization, or else of a group, for the length of a block.

    They are the texts of their ids; of neither: the site's.
    """
    from govbudget.cli.environment import list_turns  # as above

    named = {"organization": organization, "group": group}
    turns = list_turns(**named) if any(named.values()) else []
    with take(turns[0]) if turns else nullcontext():
        yield


def name_file(path: Path) -> Path:
    """Give the path of a file for the database that the command works on now.

    Where there are several, the first range of its slots stands before the suffix.
    """
    turn = find_turn()
    if turn is None or not turn.slots:
        return path
    first = turn.slots.partition(",")[0]  # all of them can be more than a name may have
    return path.with_name(f"{path.stem}.{first}{path.suffix}")
