"""The command's fixtures."""

from __future__ import annotations

from tests.commands import here, run, url  # noqa: F401 - fixtures
