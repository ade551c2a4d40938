"""Hybrid search in files. Needs ``pip install "st-vi[search]"``.

Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Passage": "st_vi.encoding.search.passages",
    "PictureIndex": "st_vi.encoding.search.pictures",
    "SearchIndex": "st_vi.encoding.search.index",
    "read_passages": "st_vi.encoding.search.passages",
}

__all__ = ["Passage", "PictureIndex", "SearchIndex", "read_passages"]

if TYPE_CHECKING:
    from st_vi.encoding.search.index import SearchIndex
    from st_vi.encoding.search.passages import Passage, read_passages
    from st_vi.encoding.search.pictures import PictureIndex


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
