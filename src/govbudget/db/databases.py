"""Several databases: which one an organization is in.

What belongs to an organization is in its database; what belongs to none (users, roles on the site,
tokens, prices) is in every database.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from govbudget.errors import SettingsError
from govbudget.new_ids import SLOTS, Slot, find_slot, read_slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import Engine

    from govbudget.identity import Id

_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


class Databases:
    """Several databases, each of the organizations whose slots it has; `engine=` takes it.

    The slot of an organization is a hash of its id, from 0 to 4095; slot 0 is the site's, too.
    `read_slot` reads it from the id of a hold (a UUID, or its text), and gives None for an id of
    the caller's own.
    """

    read_slot = staticmethod(read_slot)

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        """Take the engine of each range of slots: `{"0-2047": one, "2048-4094": two, "4095": one}`.

        Several ranges in one text have commas in between. Raises SettingsError unless each slot is
        in exactly one of them, and names the others.
        """
        found: list[list[Engine]] = [[] for _ in range(SLOTS)]
        if not hasattr(engines, "items"):
            kind = type(engines).__name__
            raise SettingsError(f"`Databases` got `{kind}`; give a dict from slots to engines")
        for text, engine in engines.items():
            for slot in _read_slots(str(text)):
                found[slot].append(engine)
        missing = _write_slots(slot for slot in range(SLOTS) if not found[slot])
        doubled = _write_slots(slot for slot in range(SLOTS) if len(found[slot]) > 1)
        if missing or doubled:
            lacks = f"; no database has {missing}" if missing else ""
            lacks += f"; several have {doubled}" if doubled else ""
            raise SettingsError(f"give each slot from 0 to {SLOTS - 1} one database{lacks}")
        self._engines = [engine for (engine,) in found]

    def __call__(self, organization: Id | None) -> Engine:
        """Give the engine of an organization (an id of the type of ids), or of the site (None)."""
        if isinstance(organization, Slot):
            return self._engines[organization]
        return self._engines[0 if organization is None else find_slot(organization)]

    def __iter__(self) -> Iterator[tuple[str, Engine]]:
        """Give the slots of each database, as text, and its engine, by the first of its slots."""
        for slot in self.list_first():
            engine = self._engines[slot]
            yield _write_slots(i for i in range(SLOTS) if self._engines[i] is engine), engine

    def list_first(self) -> list[Slot]:
        """List the first slot of each database."""
        first: dict[int, Slot] = {}
        for slot, engine in enumerate(self._engines):
            first.setdefault(id(engine), Slot(slot))
        return list(first.values())


def _read_slots(text: str) -> Iterator[int]:
    """Read `7`, `0-2047` or `7,9-12`; raise SettingsError for another text."""
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (0, SLOTS) if found is None else (int(found[1]), int(found[2] or found[1]))
        if not first <= last < SLOTS:
            raise SettingsError(
                f"`{text[:60]}` is not a range of slots; write `7`, or `0-{SLOTS - 1}`"
            )
        yield from range(first, last + 1)


def _write_slots(slots: Iterable[int]) -> str:
    """Write ascending slots as ranges with commas in between."""
    ranges: list[list[int]] = []
    for slot in slots:
        if ranges and ranges[-1][-1] == slot - 1:
            ranges[-1][1:] = [slot]
        else:
            ranges.append([slot])
    return ",".join("-".join(map(str, found)) for found in ranges)
