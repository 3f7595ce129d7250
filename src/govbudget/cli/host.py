"""Where a command works: inside a host, else by the environment. Needs no database's library."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from govbudget.settings import Settings, read_settings

if TYPE_CHECKING:
    from govbudget.installation import Installation

POLICY_DIR = "GOVBUDGET_POLICY_DIR"


def find_host() -> Installation | None:
    """Give the installation of the host application that the command runs in, if any."""
    flask = sys.modules.get("flask")  # a host has imported it
    host: Installation | None = None
    if flask and flask.has_app_context():
        host = flask.current_app.extensions.get("govbudget")
    return host


def find_settings() -> Settings:
    """Give the host's settings, else the environment's."""
    host = find_host()
    return read_settings(os.environ) if host is None else host.settings


def find_policy_dir(argument: str | None = None) -> Path | None:
    """Give the folder asked about: the argument, the host's, the environment's; else None."""
    host = find_host()
    if not argument and host is not None:
        return host.policy.folder
    folder = argument or os.environ.get(POLICY_DIR)
    return Path(folder) if folder else None
