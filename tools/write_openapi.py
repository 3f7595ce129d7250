"""Writes docs/openapi.json: what an installation with the default settings serves."""

from __future__ import annotations

import json
from pathlib import Path

from govbudget.settings import Settings
from govbudget.web.openapi import describe
from govbudget.web.routes import list_routes

target = Path(__file__).parents[1] / "docs" / "openapi.json"
target.write_text(json.dumps(describe(Settings(), list_routes()), indent=1) + "\n")
