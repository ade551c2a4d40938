"""What the generators share: which side a text is on, and rows as a dataset."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from datasets import Dataset, Features, Image, List, Value

from st_vi.data.sample_sets import Split

TEST_SHARE = 0.2
"""Share of everything generated that belongs to the test side."""


def side_of(text: str) -> Split:
    """The side of what this text describes: a hash, so that nothing is on both sides, whatever the seeds."""
    digest = int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
    return "test" if digest < TEST_SHARE * 2**64 else "train"


def to_dataset(rows: Iterable[dict[str, Any]]) -> Dataset:
    """Rows as a dataset; the names of columns say which are images and videos."""
    rows = list(rows)
    if not rows:
        raise ValueError("no rows to draw")
    features = {name: _feature(name) for name in rows[0]}
    return Dataset.from_list(rows, features=Features(features))


def _feature(name: str) -> Any:
    if name.endswith("_video"):
        return List(Image())
    if name.endswith("_image"):
        return Image()
    return [Value("string")] if name == "options" else Value("string")
