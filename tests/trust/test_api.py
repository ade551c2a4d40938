"""The public names and their signatures are those of `api.txt`: what changes for users is seen, and meant.

To accept a change: ``ST_VI_ACCEPT_API=1 python -m pytest tests/trust/test_api.py``, and commit `api.txt` with it.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import st_vi

FILE = Path(__file__).with_name("api.txt")
ACCEPT = "ST_VI_ACCEPT_API"


class Shown:
    """Stands in a signature for what is printed."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def rooms() -> list[str]:
    names = [f"st_vi.{module.name}" for module in pkgutil.iter_modules(st_vi.__path__) if module.ispkg]
    return ["st_vi", *(name for name in sorted(names) if hasattr(importlib.import_module(name), "__all__"))]


def default_text(value: Any) -> str:
    """Plain values as they are; what has a long or changing text, such as a table of tasks, as dots."""
    plain = all(isinstance(part, int | float | str | None) for part in (value if isinstance(value, tuple) else [value]))
    return repr(value) if plain and len(repr(value)) < 40 else "..."


def signature_text(function: Any) -> str:
    signature, empty = inspect.signature(function), inspect.Signature.empty
    parameters = [
        parameter.replace(
            annotation=empty if parameter.annotation is empty else Shown(str(parameter.annotation)),
            default=empty if parameter.default is empty else Shown(default_text(parameter.default)),
        )
        for parameter in signature.parameters.values()
    ]
    returns = empty if signature.return_annotation in (empty, None, "None") else Shown(str(signature.return_annotation))
    return str(signature.replace(parameters=parameters, return_annotation=returns))


def member_lines(cls: type) -> Iterator[str]:
    """What the class or its own kin in st_vi define; what comes from stock is stock's to change."""
    own = [kin for kin in cls.__mro__ if kin.__module__.startswith("st_vi.")]
    fields = {field.name: field for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    names = sorted({name for kin in own for name in (*vars(kin), *inspect.get_annotations(kin))})
    names.sort(key=lambda name: list(fields).index(name) if name in fields else len(fields))  # the order of arguments
    for name in (name for name in names if not name.startswith("_") or name == "__call__"):
        value = inspect.getattr_static(cls, name, None)
        value = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if name in fields:
            default = fields[name].default
            yield f"{name}: {fields[name].type}" + (
                "" if default is dataclasses.MISSING else f" = {default_text(default)}"
            )
        else:
            yield name + (signature_text(value) if inspect.isfunction(value) else "")


def lines(path: str, value: Any) -> Iterator[str]:
    """One line for a name; for a class, one more for each of its fields, methods and attributes."""
    if inspect.isclass(value):
        kin = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        maker = None if dataclasses.is_dataclass(value) else inspect.getattr_static(value, "__init__")
        ours = inspect.isfunction(maker) and maker.__module__.startswith("st_vi.")
        yield f"class {path}" + (f"[{kin}]" if kin else "") + (signature_text(value) if ours else "")
        yield from (f"    {path}.{line}" for line in member_lines(value))
    elif callable(value):
        yield f"def {path}{signature_text(value)}"
    else:
        yield f"{path}: {type(value).__name__}"


def snapshot() -> str:
    told: list[str] = []
    homes = {name: room for room in rooms()[1:] for name in importlib.import_module(room).__all__}
    for room in rooms():
        for name in sorted(importlib.import_module(room).__all__):
            value, home = getattr(importlib.import_module(room), name), homes.get(name, room)
            told.extend(lines(f"{room}.{name}", value) if home == room else [f"{room}.{name} = {home}.{name}"])
    return "\n".join(told) + "\n"


def test_the_public_names_are_those_of_the_snapshot():
    pytest.importorskip("plotly", reason='st_vi.viz needs pip install "st-vi[notebooks]"')
    now = snapshot()
    if os.environ.get(ACCEPT):
        FILE.write_text(now, encoding="utf-8")
    before = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    changed = [
        line
        for line in difflib.ndiff(before.splitlines(), now.splitlines())
        if line[:2] in ("- ", "+ ")  # gone, or new
    ]
    assert not changed, f"the public names changed; if that is meant, run again with {ACCEPT}=1\n" + "\n".join(changed)


def test_the_snapshot_tells_what_matters():
    """A field, a default, a method and a name of the front door: a change of any of them changes a line."""
    told = snapshot()
    assert "    st_vi.terms.InfoNCE.temperature: float = 0.05\n" in told
    assert "class st_vi.modules.MLPHead[SavedModule](in_features: int, " in told
    assert "    st_vi.losses.DLELoss.compute_loss_from_embeddings(self, " in told
    assert "st_vi.DLELoss = st_vi.losses.DLELoss\n" in told
    assert " at 0x" not in told
