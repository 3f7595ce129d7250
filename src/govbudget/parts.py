"""The parts that lie on the core, `spend`, `server` and `pages`: found by name, where they are."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from govbudget.errors import SettingsError

# How an application does without a part.
_WITHOUT = {"spend": "give `spend=False`", "pages": "leave out `pages=`"}


def is_installed(module: str) -> bool:
    """Whether the room that a module of govbudget is in is there; `spend.cli` is in `spend`."""
    return find_spec(f"govbudget.{module.partition('.')[0]}") is not None


def load_part(name: str) -> ModuleType:
    """Give what a part adds to an application; raise SettingsError where it is not installed."""
    if not is_installed(name):
        raise SettingsError(f"the part `{name}` is not installed; {_WITHOUT[name]}")
    return import_module(f"govbudget.{name}.part")
