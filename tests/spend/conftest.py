"""The command's fixtures."""

from __future__ import annotations

from tests.commands import empty_url, here, own_url, run, url  # noqa: F401 - fixtures
