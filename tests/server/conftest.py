"""The command's fixtures."""

from __future__ import annotations

from tests.commands import (  # noqa: F401 - fixtures
    empty_url,
    here,
    own_url,
    run,
    served_url,
    served_world,
    url,
)
