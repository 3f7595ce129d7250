"""govbudget: who may see and set a group's AI budget, decided by a policy that one can read.

The public names stand in `__init__.pyi`. Each is loaded when it is first used: a policy test pulls
in neither Flask nor SQLAlchemy.
"""

from __future__ import annotations

import ast
import pkgutil
from functools import cache
from importlib import import_module


@cache
def _find_modules() -> dict[str, str]:
    """Read from the stub which module each public name is in."""
    stub = ast.parse(pkgutil.get_data(__name__, "__init__.pyi") or b"")
    imports = (node for node in stub.body if isinstance(node, ast.ImportFrom))
    return {name.name: str(node.module) for node in imports for name in node.names}


def __getattr__(name: str) -> object:
    modules = _find_modules()
    if name == "__all__":
        return sorted(modules)
    if name not in modules:
        raise AttributeError(f"module `govbudget` has no attribute `{name}`")
    return getattr(import_module(modules[name]), name)
