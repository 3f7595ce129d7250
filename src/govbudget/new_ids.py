"""Ids that grow with time, so that what is added last stands together in an index.

UUIDs of version 8 (https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-8): 48 bits of
milliseconds since 1970, the version, 12 bits of slot, the variant, 62 bits of chance. The slot is a
stable hash of the organization: the first 12 bits of the SHA-256 of its id's text; 0: of the site.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from hashlib import sha256
from uuid import UUID

from govbudget.identity import Id

_NANOSECONDS = 10**6  # in a millisecond
_VERSION, _VARIANT = 8 << 76, 2 << 62
SLOTS = 1 << 12


class Slot(int):
    """A slot, where an organization's id may stand: all that an id of ours says of it."""


def make_id(organization_id: Id | None) -> UUID:
    """Make the id of something of the organization (None: of the site)."""
    milliseconds = time.time_ns() // _NANOSECONDS
    chance = int.from_bytes(os.urandom(8)) >> 2
    slot = 0 if organization_id is None else find_slot(organization_id)
    return UUID(int=milliseconds << 80 | _VERSION | slot << 64 | _VARIANT | chance)


@lru_cache(maxsize=4096)
def find_slot(organization_id: Id) -> int:
    """Find the slot of an organization, 0 to 4095: the same in every process, for ever."""
    return int.from_bytes(sha256(str(organization_id).encode()).digest()[:2]) >> 4


def read_slot(id_: UUID | str) -> Slot | None:
    """Read the slot of an id of ours, or of its text; None: the id is not one of ours.

    Raises ValueError for a text that is not a UUID.
    """
    id_ = UUID(str(id_))
    return Slot(id_.int >> 64 & SLOTS - 1) if id_.version == _VERSION >> 76 else None


def write_new_id(organization_id: str = "NULL") -> str:
    """Write the SQL that makes such an id; the argument is SQL, and NULL is the site."""
    milliseconds = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
    digest = f"encode(sha256(convert_to(CAST({organization_id} AS text), 'UTF8')), 'hex')"
    slot = "'000'" if organization_id == "NULL" else f"coalesce(left({digest}, 3), '000')"
    # The variant and the chance are those of a random id.
    return (
        f"CAST(lpad(to_hex({milliseconds}), 12, '0') || '8' || {slot}"
        " || substr(replace(CAST(gen_random_uuid() AS text), '-', ''), 17) AS uuid)"
    )
