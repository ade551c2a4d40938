"""The user's cache."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """A folder in the user's cache, which may not exist yet: ``~/.cache/st_vi``, or ``ST_VI_CACHE`` if it is set."""
    return Path(os.environ.get("ST_VI_CACHE") or "~/.cache/st_vi").expanduser() / name
