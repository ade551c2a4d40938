"""Refuse a backbone with missing weights, which transformers would initialise at random with only a log message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from st_vi.stock.weights import watched_reading

# Many checkpoints lack the pooler, which is not used.
_NOT_READ = re.compile(r"(^|\.)pooler\.")
# SimCSE's head, and so that of the released ViCLSR.
_HEAD = re.compile(r"^mlp\.dense\.")


@contextmanager
def whole_backbone() -> Iterator[None]:
    """Check that backbones and adapters loaded in this context get all of their weights, and that none is left over.

    Heads of other tasks, such as ``lm_head``, and buffers saved by older versions are ignored.

    Raises:
        ValueError: Weights are missing, left over or of another shape; names the first ones.

    Example:
        >>> from sentence_transformers.base.modules import Transformer
        >>> from st_vi.modules.whole_backbone import whole_backbone
        >>> with whole_backbone():
        ...     Transformer("FacebookAI/xlm-roberta-base")  # doctest: +SKIP
    """
    with watched_reading(_check):
        yield


def _check(model: Any, place: str, found: Any) -> None:
    missing = sorted(key for key in found.missing_keys if not _NOT_READ.search(key))
    parts = {name for name, _ in model.named_children()}
    buffers = {name for name, _ in model.named_buffers()}
    left = sorted(
        key
        for key in found.unexpected_keys
        if key.split(".")[0] in parts and key not in buffers and not _NOT_READ.search(key)
    )
    if found.mismatched_keys:
        key, *shapes = next(iter(sorted(found.mismatched_keys)))
        raise ValueError(
            f"{place} has weights of other shapes than its configuration describes: {key} has {tuple(shapes[0])}, not "
            f"{tuple(shapes[1])}. Check that weights and configuration come from the same model"
        )
    if missing:
        raise ValueError(
            f"{place} lacks {len(missing)} weights that its configuration describes ({_first(missing)}): they would be "
            f"random{_other_names(found.unexpected_keys)}"
        )
    if left:
        raise ValueError(
            f"{place} has {len(left)} weights for which its configuration has no place ({_first(left)}): they would be "
            "left out. Check that weights and configuration come from the same model"
        )
    if any(_HEAD.search(key) for key in found.unexpected_keys):
        raise ValueError(
            f"{place} has a head (mlp.dense), which would be left out: read it with st_vi.import_viclsr({place!r})"
        )


def _other_names(unexpected: Iterable[str]) -> str:
    if not (names := sorted(unexpected)):
        return ". Check that weights and configuration come from the same model"
    return f". Instead it has {len(names)} of other names ({_first(names)}): save the model that it was made from again"


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
