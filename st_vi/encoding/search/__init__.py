"""Hybrid search in files. Needs ``pip install "st-vi[search]"``.

Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Found": "st_vi.encoding.search.index",
    "FoundPicture": "st_vi.encoding.search.pictures",
    "Passage": "st_vi.encoding.search.passages",
    "PictureIndex": "st_vi.encoding.search.pictures",
    "SearchIndex": "st_vi.encoding.search.index",
    "read_passages": "st_vi.encoding.search.passages",
}

__all__ = ["Found", "FoundPicture", "Passage", "PictureIndex", "SearchIndex", "read_passages"]

if TYPE_CHECKING:
    from st_vi.encoding.search.index import Found, SearchIndex
    from st_vi.encoding.search.passages import Passage, read_passages
    from st_vi.encoding.search.pictures import FoundPicture, PictureIndex


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
