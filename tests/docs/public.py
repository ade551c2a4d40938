"""The rooms of the package, and the public names of each."""

from __future__ import annotations

import importlib
import pkgutil

import st_vi

ROOMS = sorted(
    name
    for name in (f"st_vi.{module.name}" for module in pkgutil.iter_modules(st_vi.__path__) if module.ispkg)
    if hasattr(importlib.import_module(name), "__all__")
)
PUBLIC = [(room, name) for room in ["st_vi", *ROOMS] for name in importlib.import_module(room).__all__]
