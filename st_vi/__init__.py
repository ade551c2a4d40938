"""Vietnamese embeddings for sentence-transformers: ViCLSR and viPolyQwen as stock modules and losses.

Names are imported on first use, so that ``import st_vi`` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from st_vi.version import __version__

_HOME = {
    "AttentionPooling": "st_vi.modules",
    "MLPHead": "st_vi.modules",
    "Qwen2VLTransformer": "st_vi.modules",
    "CachedDLELoss": "st_vi.losses",
    "CachedSupConNLILoss": "st_vi.losses",
    "DLELoss": "st_vi.losses",
    "MixedTaskCollator": "st_vi.data",
    "Task": "st_vi.tasks",
    "VIPOLYQWEN_TASKS": "st_vi.tasks",
    "WordSegmentedTransformer": "st_vi.modules",
    "SupConNLILoss": "st_vi.losses",
    "build_viclsr": "st_vi.recipes",
    "build_vipolyqwen": "st_vi.recipes",
    "train_viclsr": "st_vi.recipes",
    "train_vipolyqwen": "st_vi.recipes",
    "export_stock": "st_vi.hub",
    "import_viclsr": "st_vi.hub",
    "load": "st_vi.hub",
    "pretrained": "st_vi.hub",
    "trim_vocabulary": "st_vi.vocabulary",
}

# Modules that are available without a separate import.
_ROOMS = (
    "data",
    "encoding",
    "evaluation",
    "hub",
    "losses",
    "modules",
    "recipes",
    "tasks",
    "terms",
    "text",
    "viz",
)

__all__ = [
    "VIPOLYQWEN_TASKS",
    "AttentionPooling",
    "CachedDLELoss",
    "CachedSupConNLILoss",
    "DLELoss",
    "MLPHead",
    "MixedTaskCollator",
    "Qwen2VLTransformer",
    "SupConNLILoss",
    "Task",
    "WordSegmentedTransformer",
    "__version__",
    "build_viclsr",
    "build_vipolyqwen",
    "export_stock",
    "import_viclsr",
    "load",
    "pretrained",
    "train_viclsr",
    "train_vipolyqwen",
    "trim_vocabulary",
]

if TYPE_CHECKING:
    from st_vi import data, encoding, evaluation, hub, losses, modules, recipes, tasks, terms, text, viz  # noqa: F401
    from st_vi.data import MixedTaskCollator
    from st_vi.hub import export_stock, import_viclsr, load, pretrained
    from st_vi.losses import CachedDLELoss, CachedSupConNLILoss, DLELoss, SupConNLILoss
    from st_vi.modules import AttentionPooling, MLPHead, Qwen2VLTransformer, WordSegmentedTransformer
    from st_vi.recipes import build_viclsr, build_vipolyqwen, train_viclsr, train_vipolyqwen
    from st_vi.tasks import VIPOLYQWEN_TASKS, Task
    from st_vi.vocabulary import trim_vocabulary


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*__all__, *_ROOMS))
